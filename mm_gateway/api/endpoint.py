"""What the endpoints share: reading a JSON body, and answering it with a Backend's events."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.response.base import ASGIResponse

from mm_gateway.api.access.admission import output_tokens, ticket_of
from mm_gateway.api.access.keys import principal, resolve
from mm_gateway.api.connection import HTTPRequest
from mm_gateway.api.replies.reply import Reply
from mm_gateway.api.serve_events import stream_response, whole_response
from mm_gateway.catalog import Catalog
from mm_gateway.configuration.settings import ServerSettings
from mm_gateway.core import GenerationRequest
from mm_gateway.errors import InvalidRequestError, ShuttingDownError
from mm_gateway.protocol import ChatCompletionRequest, CompletionRequest
from mm_gateway.protocol.decoding import decode
from mm_gateway.work_pools import BODIES

Body = TypeVar("Body", bound=msgspec.Struct)
Result = TypeVar("Result")

LARGE_BODY_BYTES = 64 * 2**10
"""From here on a body is read on a thread: the event loop serves the others meanwhile. For less, the way there costs more than it saves."""


async def read_body(request: HTTPRequest, decoder: msgspec.json.Decoder[Body], read: Callable[[Body], Result]) -> Result:
    """Decode the body, and make of it what the endpoint works with.

    Args:
        read: checks and turns the decoded body; it must not touch what belongs to the event loop.

    Raises:
        InvalidRequestError: as for `decode` and `read`. HTTPException: it is not JSON by its headers.
    """
    json = await _json_of(request)
    ticket_of(request).body_bytes = len(json)
    if len(json) < LARGE_BODY_BYTES:
        return read(decode(decoder, json))
    return await BODIES.run(lambda: read(decode(decoder, json)))


async def respond(request: HTTPRequest, state: State, generation: GenerationRequest, reply: Reply, *, stream: bool) -> ASGIResponse:
    """Generate for whoever asks, and send it as a stream or as a whole."""
    if state.draining:
        raise ShuttingDownError("The server is shutting down")
    catalog: Catalog = state.catalog
    settings: ServerSettings = state.server
    backend = resolve(request, catalog, generation.model)
    ticket = ticket_of(request)
    ticket.begin(output_tokens(generation))
    events = backend.generate(msgspec.structs.replace(generation, principal=principal(request)))
    if stream:
        return await stream_response(
            events,
            reply,
            request.receive,
            ticket,
            early_commit_s=settings.early_commit_s,
            heartbeat_s=settings.heartbeat_s,
        )
    return await whole_response(events, reply, request.receive, ticket)


def includes_usage(body: ChatCompletionRequest | CompletionRequest) -> bool:
    """Whether a stream ends with a chunk of usage."""
    if body.stream_options is None:
        return False
    if not body.stream:
        raise InvalidRequestError("stream_options is only allowed when stream is true", param="stream_options")
    return bool(body.stream_options.include_usage)


async def _json_of(request: HTTPRequest) -> bytes:
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise HTTPException(status_code=415, detail="The body must be JSON: send it with Content-Type: application/json")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HTTPException(status_code=415, detail="The body must not be compressed: send it without Content-Encoding")
    return await request.body()
