"""The gateway without metrics, log of requests and usage, for what they cost: `python -m benchmarks.gateway.unobserved serve …`.

No setting turns all of them off, since they cost next to nothing, which is what this is to show.
"""

from __future__ import annotations

import os

from mm_gateway.api import app
from mm_gateway.api.observation.record import RequestRecord
from mm_gateway.main import run

if __name__ == "__main__":
    os.environ["MM_GATEWAY_SERVER_REQUEST_LOG"] = "off"
    app.tell = lambda observers, record: None
    RequestRecord.observe = lambda self, event: None  # type: ignore[method-assign]
    run()
