"""Whether the process serves, and which version: `GET /health`, `/ping` and `/version`; open to everybody."""

from __future__ import annotations

from litestar import HttpMethod, Response, get, route
from litestar.datastructures import State

import mm_gateway
from mm_gateway.protocol import Health, Version


@route("/health", http_method=[HttpMethod.GET, HttpMethod.HEAD], sync_to_thread=False, summary="Whether the gateway serves")
def health(state: State) -> Response[Health]:
    if state.draining:
        return Response(Health("shutting down", mm_gateway.__version__), status_code=503)
    return Response(Health("ok", mm_gateway.__version__))


@route(
    "/ping",
    http_method=[HttpMethod.GET, HttpMethod.HEAD],
    sync_to_thread=False,
    summary="The same by its status alone, as SageMaker and vLLM have it",
)
def ping(state: State) -> Response[bytes]:
    return Response(b"", status_code=503 if state.draining else 200, media_type="text/plain")


@get("/version", sync_to_thread=False, summary="The version, as vLLM has it")
def version() -> Version:
    return Version(mm_gateway.__version__)
