"""What the generating endpoints share: reading a JSON body, and answering it with a Backend's events."""

from __future__ import annotations

from litestar import Request
from litestar.datastructures import State
from litestar.exceptions import HTTPException, InternalServerException
from litestar.response.base import ASGIResponse

from mm_gateway.api.access.admission import output_tokens, ticket_of
from mm_gateway.api.access.keys import resolve
from mm_gateway.api.replies import Reply
from mm_gateway.api.serve_events import stream_response, whole_response
from mm_gateway.catalog import Catalog
from mm_gateway.configuration.settings import ServerSettings
from mm_gateway.core import GenerationRequest
from mm_gateway.errors import ShuttingDownError


async def respond(
    request: Request, state: State, generation: GenerationRequest, reply: Reply, *, stream: bool, stages: bool = False
) -> ASGIResponse:
    """stages: the reply has chunks for a workflow's stages."""
    if state.draining:
        raise ShuttingDownError("The server is shutting down")
    catalog: Catalog = state.catalog
    settings: ServerSettings = state.server
    backend = resolve(request, catalog, generation.model)
    ticket = ticket_of(request)
    ticket.begin(await request.body(), output_tokens(generation))
    events = backend.generate(generation)
    if stream:
        return await stream_response(
            events, reply, request.receive, ticket, early_commit_s=settings.early_commit_s, heartbeat_s=settings.heartbeat_s, stages=stages
        )
    return await whole_response(events, reply, request.receive, ticket)


async def json_body(request: Request) -> bytes:
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise HTTPException(status_code=415, detail="The body must be JSON: send it with Content-Type: application/json")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HTTPException(status_code=415, detail="The body must not be compressed: send it without Content-Encoding")
    try:
        return await request.body()
    except InternalServerException as error:
        # Litestar's word for a client that hung up amid its body: no fault of ours, and nobody reads the answer.
        raise HTTPException(status_code=400, detail="The connection was closed before the body was complete") from error
