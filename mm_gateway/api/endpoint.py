"""What the endpoints share: reading a JSON body, and answering it with a Backend's events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Literal, TypeVar

import msgspec
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.response.base import ASGIResponse

from mm_gateway.api.access.admission import Ticket, output_tokens, ticket_of
from mm_gateway.api.access.keys import principal, resolve
from mm_gateway.api.connection import HTTPRequest
from mm_gateway.api.observation.tracing import RequestTrace
from mm_gateway.api.replies.reply import Reply
from mm_gateway.api.serve_events import stream_response, whole_response
from mm_gateway.backends.searching import SearchPlan, with_searches
from mm_gateway.catalog import Catalog
from mm_gateway.configuration.server_settings import ServerSettings
from mm_gateway.core import ForwardedBody, ForwardingBackend, GenerationEvent, GenerationRequest
from mm_gateway.errors import InvalidRequestError, ModelNotFoundError, ShuttingDownError
from mm_gateway.protocol import ChatCompletionRequest, CompletionRequest
from mm_gateway.protocol.decoding import decode
from mm_gateway.protocol.fields import AddressedBody
from mm_gateway.protocol.forwarded import ForwardedChat, ForwardedCompletion, ForwardedFields, forwarded_fields
from mm_gateway.work_pools import BODIES

Body = TypeVar("Body", bound=AddressedBody)
Understood = TypeVar("Understood", bound=msgspec.Struct)
Result = TypeVar("Result")

LARGE_BODY_BYTES = 64 * 2**10
"""From here on a body is read on a thread: the event loop serves the others meanwhile. For less, the way there costs more than it saves."""


class Asked(msgspec.Struct, frozen=True):
    """What a body asks for, and the reply that it is to have."""

    request: GenerationRequest | ForwardedBody
    reply: Reply
    stream: bool = False
    searches: SearchPlan | None = None
    """What the model may search; None: nothing."""


class ReceivedBody:
    """A request's JSON.

    Attributes:
        model: the name that it is for, in it or by default; "" where there is neither.
        forwarded: another server reads it. media: the model may take parts of messages that are no text.
        ignored: what of it is left out, as paths. unknown: the same list where unknown fields are left out; None: they are refused.
    """

    def __init__(self, json: bytes, model: str, *, forwarded: bool, media: bool, ignore_unknown: bool) -> None:
        self.model = model
        self.forwarded = forwarded
        self.media = media
        self.ignored: list[str] = []
        self.unknown = self.ignored if ignore_unknown else None
        self._json = json

    async def read(self, decoder: msgspec.json.Decoder[Body], read: Callable[[Body, list[str]], Result]) -> Result:
        """Decode it, and make of it what the endpoint works with.

        Args:
            read: checks and turns the decoded body, and adds to the list what is left out; it must not touch what belongs to the event
                loop.

        Raises:
            InvalidRequestError: as for `decode` and `read`, or no model is named.
        """

        def work() -> Result:
            body = decode(decoder, self._json, self.unknown)
            body.model = self.model
            if not body.model:
                raise InvalidRequestError("You must provide the parameter: model", param="model")
            return read(body, self.ignored)

        return await _off_loop(self._json, work)

    def fields(self) -> ForwardedFields:
        """Every field as it came, of a body that has been read."""
        return forwarded_fields(self._json)

    async def forward(self, decoder: msgspec.json.Decoder[Understood], read: Callable[[Understood, ForwardedFields], Result]) -> Result:
        """Decode what has to be understood of it. read: as for `read`, beside it gets all fields as they came."""

        def work() -> Result:
            return read(decode(decoder, self._json), self.fields())

        return await _off_loop(self._json, work)


async def receive(request: HTTPRequest, state: State) -> ReceivedBody:
    """Wait for the body, and see who is to read it.

    Raises:
        HTTPException: it is not JSON by its headers.
    """
    json = await json_of(request)
    ticket = ticket_of(request)
    ticket.body_bytes = len(json)
    catalog: Catalog = state.catalog
    model = await _off_loop(json, lambda: _model_of(json)) or catalog.default_model or ""
    try:
        backend = resolve(request, catalog, model)
        info = backend.info()
        ticket.backend, ticket.record.model = backend, info.id
        forwarded, media = isinstance(backend, ForwardingBackend), info.media
    except ModelNotFoundError:
        forwarded = media = False  # an error that waits until the body has been read
    settings: ServerSettings = state.server
    return ReceivedBody(json, model, forwarded=forwarded, media=media, ignore_unknown=settings.unknown_fields == "ignore")


async def serve(
    request: HTTPRequest,
    state: State,
    decoder: msgspec.json.Decoder[Body],
    ask: Callable[[Body, list[str]], Asked],
    forwarded_decoder: msgspec.json.Decoder[Understood],
    forward: Callable[[str, Understood, ForwardedFields], Asked],
) -> ASGIResponse:
    """Answer a request for text or vectors.

    Args:
        ask: what a body asks for; it adds to the list what of the body is left out. forward: the same of a body for another server, from
            the model's name, what has to be understood of the body, and all of its fields.
    """
    body = await receive(request, state)
    if body.forwarded:
        asked = await body.forward(forwarded_decoder, partial(forward, body.model))
    else:
        asked = await body.read(decoder, ask)
    return await respond(request, state, asked, body.ignored)


async def respond(request: HTTPRequest, state: State, asked: Asked, ignored: Sequence[str]) -> ASGIResponse:
    """Generate for whoever asks, and send it as a stream or as a whole. ignored: what of the body was left out."""
    settings: ServerSettings = state.server
    ticket = ticket_of(request)
    events = await generate(request, state, asked, ticket)
    if asked.stream:
        return await stream_response(
            events,
            asked.reply,
            request.receive,
            ticket,
            ignored,
            early_commit_s=settings.early_commit_s,
            heartbeat_s=settings.heartbeat_s,
        )
    return await whole_response(events, asked.reply, request.receive, ticket, ignored)


async def generate(request: HTTPRequest, state: State, asked: Asked, ticket: Ticket) -> AsyncIterator[GenerationEvent]:
    """The events of what a body asks for; the ticket begins to wait for the first of them.

    Raises:
        ShuttingDownError: there is no new work. ModelNotFoundError: there is no such model. RateLimitError: there is no room for it.
        StorageError: whether its key has a budget left cannot be known now.
    """
    if state.draining:
        raise ShuttingDownError("The server is shutting down")
    catalog: Catalog = state.catalog
    # As it was when the body was read: a reload may have changed what the name means.
    backend = ticket.backend or resolve(request, catalog, asked.request.model)
    ticket.record.stream = asked.stream
    trace: RequestTrace | None = request.scope["state"].get("trace")
    if trace is not None:
        trace.asked(asked.request)
        ticket.record.listener = trace.listener
    await ticket.begin(output_tokens(asked.request), catalog.price_of(backend), catalog.prices)
    match asked.request:
        case ForwardedBody() as body:
            assert isinstance(backend, ForwardingBackend)
            return backend.forward(body)
        case GenerationRequest() as generation:
            generation = msgspec.structs.replace(generation, principal=principal(request))
            plan = asked.searches
            return backend.generate(generation) if plan is None else with_searches(backend.generate, generation, state.searcher, plan)


def forwarded_body(
    endpoint: Literal["chat/completions", "completions"], model: str, fields: ForwardedFields, choices: int, max_tokens: object
) -> ForwardedBody:
    """max_tokens: of each choice, where it is a number."""
    output_tokens = choices * max_tokens if isinstance(max_tokens, int) and max_tokens > 0 else 0
    return ForwardedBody(model=model, endpoint=endpoint, fields=fields, choices=choices, output_tokens=output_tokens)


def includes_usage(body: ChatCompletionRequest | CompletionRequest | ForwardedChat | ForwardedCompletion) -> bool:
    """Whether a stream ends with a chunk of usage."""
    if body.stream_options is None:
        return False
    if not body.stream:
        raise InvalidRequestError("stream_options is only allowed when stream is true", param="stream_options")
    return bool(body.stream_options.include_usage)


async def _off_loop(json: bytes, work: Callable[[], Result]) -> Result:
    """Work on a body; a large one does not hold up the event loop."""
    return await BODIES.run(work) if len(json) >= LARGE_BODY_BYTES else work()


class _Named(msgspec.Struct):
    model: str | None = None


_named = msgspec.json.Decoder(_Named)


def _model_of(json: bytes) -> str | None:
    try:
        return _named.decode(json).model
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None  # whoever reads all of it says what is wrong


async def json_of(request: HTTPRequest) -> bytes:
    """The body, which may be no JSON yet.

    Raises:
        HTTPException: it is not JSON by its headers.
    """
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise HTTPException(status_code=415, detail="The body must be JSON: send it with Content-Type: application/json")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HTTPException(status_code=415, detail="The body must not be compressed: send it without Content-Encoding")
    return await request.body()
