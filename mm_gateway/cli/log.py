"""The log of a server on stderr. Its log of requests is `api/observation/request_log.py`."""

from __future__ import annotations

import logging
import sys

from mm_gateway.timeline import request_id

FORMAT = "%(asctime)s %(levelname)s %(request)s%(name)s: %(message)s"


def log_to_stderr(level: str) -> None:
    """From this level on; what is said while a request is worked on begins with the request's id, that of its `x-request-id`."""
    logging.basicConfig(level=level.upper(), format=FORMAT, stream=sys.stderr)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_name_request)


def _name_request(record: logging.LogRecord) -> bool:
    id = request_id()
    record.request = f"{id} " if id else ""
    return True
