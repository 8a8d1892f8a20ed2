"""`GET /health`: whether the process serves; open to everybody."""

from __future__ import annotations

from litestar import HttpMethod, Response, route
from litestar.datastructures import State

import mm_gateway
from mm_gateway.protocol import Health


@route("/health", http_method=[HttpMethod.GET, HttpMethod.HEAD], sync_to_thread=False, summary="Whether the gateway serves")
def health(state: State) -> Response[Health]:
    if state.draining:
        return Response(Health("shutting down", mm_gateway.__version__), status_code=503)
    return Response(Health("ok", mm_gateway.__version__))
