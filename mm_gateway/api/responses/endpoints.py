"""`/v1/responses`: create and compact a response, and count its input tokens.

What becomes of a response, unless it is not to be stored: complete or cut by its length, it is kept before the client is told
of its end, so that the next request finds it. Failed in mid-stream, it is kept as `failed`, without output, and cannot be
continued. Refused before its first event, or left by its client, nothing of it is kept, but for those that run in the background.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec
from litestar import post
from litestar.datastructures import State
from litestar.response.base import ASGIResponse

from mm_gateway.api.access.admission import Admission, ticket_of
from mm_gateway.api.access.keys import principal
from mm_gateway.api.connection import HTTPRequest, while_connected
from mm_gateway.api.endpoint import LARGE_BODY_BYTES, Asked, generate, receive, respond
from mm_gateway.api.observation.record import tell
from mm_gateway.api.responses.as_chat import as_chat
from mm_gateway.api.responses.background import BackgroundResponse, BackgroundResponses, BackgroundStream, as_known
from mm_gateway.api.responses.compaction import ASKED, CompactReply, kept, shown, without_trigger
from mm_gateway.api.responses.conversation import carried, conversation
from mm_gateway.api.responses.items import ItemIds, has_encrypted, read_items, referenced
from mm_gateway.api.responses.reply import ResponseReply
from mm_gateway.api.responses.request import ENCRYPTED, check, new_response, response_request, wants_logprobs
from mm_gateway.api.responses.sealed_texts import SealedTexts
from mm_gateway.api.responses.store import ResponseStore
from mm_gateway.api.responses.tools import ResponseTools
from mm_gateway.api.serve_events import ignored_header
from mm_gateway.api.tokens import tokenizing_backend
from mm_gateway.core import ChatInput, ForwardedBody, GenerationRequest
from mm_gateway.errors import InvalidRequestError, NotStoredError, UnsupportedParameterError
from mm_gateway.protocol.response_request import ResponseRequest
from mm_gateway.protocol.responses import CompactionItem, InputTokens, Item, ResponseObject, StoredResponse
from mm_gateway.work_pools import BODIES

_decoder = msgspec.json.Decoder(ResponseRequest)

_MANY_ITEMS = 128
"""From here on a conversation is put together on a thread: the event loop serves the others meanwhile."""


class _Read(msgspec.Struct, frozen=True):
    """What a body came to.

    Attributes:
        ids: of its response. items: of its conversation, earlier turns included. asked: what they ask for.
        ignored: what of the body is left out. compacting: a summary of the conversation, in place of an answer.
    """

    body: ResponseRequest
    ids: ItemIds
    items: list[Item]
    asked: GenerationRequest | ForwardedBody
    tools: ResponseTools
    ignored: list[str]
    compacting: bool


@post(
    "/v1/responses",
    status_code=200,
    summary="Create a response",
    description="Body: ResponseRequest. With `stream: true` the reply is a stream of named server-sent events, the last of which is "
    "response.completed, response.incomplete or response.failed.",
)
async def create_response(request: HTTPRequest, state: State) -> ASGIResponse:
    read = await _read(request, state)
    body, items = read.body, read.items
    store: ResponseStore = state.responses
    owner = principal(request)
    response = new_response(body, read.ids.response, int(time.time()), read.tools.shown(body.tools))
    if response.store:
        begun = StoredResponse(response, items)
        if len(items) > _MANY_ITEMS or ticket_of(request).body_bytes >= LARGE_BODY_BYTES:
            await BODIES.run(store.check_size, begun)
        else:
            store.check_size(begun)
        await store.ready()

    async def keep(final: ResponseObject) -> bool:
        try:
            return await store.put(owner, StoredResponse(final, items), again=bool(body.background))
        except NotStoredError:
            return False

    sealed = await _sealed(state, body, compacting=read.compacting)
    reply = ResponseReply(
        response,
        include=body.include or (),
        logprobs=wants_logprobs(body),
        obfuscate=body.stream_options is not None and bool(body.stream_options.include_obfuscation),
        keep=keep if response.store else None,
        **_making(read, sealed, owner),
    )
    asked = Asked(read.asked, reply, stream=bool(body.stream), searches=None if read.compacting else read.tools.searches)
    if body.background:
        return await _in_background(request, state, read, asked, reply)
    return await respond(request, state, asked, read.ignored)


@post(
    "/v1/responses/compact",
    status_code=200,
    summary="Sum up a conversation, so that it goes on with fewer tokens",
    description="Body: as of POST /v1/responses, without `stream` and `background`; nothing is stored. The output, what users and "
    "developers said and an item that holds the summary, takes the place of the input of the next response.",
)
async def compact_response(request: HTTPRequest, state: State) -> ASGIResponse:
    read = await _read(request, state, compact=True)
    body, owner = read.body, principal(request)
    response = msgspec.structs.replace(new_response(body, read.ids.response, int(time.time()), []), store=False)
    sealed = await _sealed(state, body, compacting=True)
    reply = CompactReply(response, read.items, include=(), logprobs=False, obfuscate=False, **_making(read, sealed, owner))
    return await respond(request, state, Asked(read.asked, reply), read.ignored)


@post(
    "/v1/responses/input_tokens",
    status_code=200,
    summary="How many tokens a response would read",
    description="Body: as of POST /v1/responses. Nothing is generated or stored, weights are not loaded, and the whole input is counted, "
    "whether it fits the model's context or not.",
)
async def count_input_tokens(request: HTTPRequest, state: State) -> InputTokens:
    read = await _read(request, state)
    asked = read.asked
    if isinstance(asked, ForwardedBody):
        raise UnsupportedParameterError("The input tokens of a remote model cannot be counted", param="model", code="unsupported_value")
    assert isinstance(asked.input, ChatInput)
    found = await while_connected(request, tokenizing_backend(request, state, read.body.model_name).tokenize(asked.input))
    return InputTokens(len(found.ids))


async def _in_background(request: HTTPRequest, state: State, read: _Read, asked: Asked, reply: ResponseReply) -> ASGIResponse:
    """Begin it, and answer with what there is of it: a stream of its events, or the response as it is queued."""
    background: BackgroundResponses = state.background
    admission: Admission = state.admission
    store: ResponseStore = state.responses
    owner = principal(request)
    background.check_room()
    ticket = admission.apart(request)
    record = ticket.record

    def over() -> None:
        record.ended = time.monotonic()
        tell(state.observers, record)

    job = BackgroundResponse(reply.response, read.items, reply, partial(store.put, owner), streamed=asked.stream, over=over)
    try:
        await job.begin(await generate(request, state, asked, ticket), ticket)
    except BaseException:
        ticket.close()
        raise
    record.outlived, record.status = True, 200
    background.add(owner, job)
    headers = ignored_header(read.ignored, reply)
    if asked.stream:
        return BackgroundStream(job, request.receive, heartbeat_s=state.server.heartbeat_s, headers=headers)
    return ASGIResponse(body=msgspec.json.encode(reply.response), media_type="application/json", headers=headers)


async def _read(request: HTTPRequest, state: State, *, compact: bool = False) -> _Read:
    """compact: the endpoint asks for a compaction; otherwise the body may."""
    received = await receive(request, state)
    forwarded, ignored, unknown = received.forwarded, received.ignored, received.unknown
    body = await received.read(_decoder, lambda body, _: _checked(body, compact))
    store: ResponseStore = state.responses
    owner = principal(request)
    ids = ItemIds()
    previous = await _previous(store, owner, body.previous_response_id)
    compacting = without_trigger(body) or compact
    if compacting and body.text is not None and body.text.format is not None:
        ignored.append("text.format")
        body.text.format = None
    if not forwarded and body.text is not None and body.text.verbosity in ("low", "high"):
        ignored.append("text.verbosity")
    wanted = referenced(body.input)
    stored = await store.items(owner, wanted) if wanted else {}
    sealed: SealedTexts = state.sealed_texts
    if has_encrypted(body.input) or any(isinstance(item, CompactionItem) for item in (*previous, *stored.values())):
        await sealed.ready()
    unseal = partial(sealed.open, owner)

    def read() -> _Read:
        given: Sequence[Item] = ()
        if body.input is not None:
            given = read_items(body.input, ids, stored, unseal, media=received.media, unknown=unknown)
        items = [*previous, *given]
        if compacting and not items:
            raise InvalidRequestError("There is nothing to sum up before the compaction_trigger", param="input")
        messages = conversation(items, body.instructions, unseal)
        tools = ResponseTools(body, None if forwarded else state.searcher, ignored, unknown)
        use = tools.use
        if compacting:
            messages, use = (*messages, ASKED), shown(use)
        if forwarded:
            asked = as_chat(body, received.fields(), messages, use, ignored)
        else:
            asked = response_request(body, ids.response, messages, use, media=received.media)
        return _Read(body, ids, items, asked, tools, ignored, compacting)

    # For a few items the way to a thread costs more than it saves.
    given = 0 if body.input is None or isinstance(body.input, str) else len(body.input)
    return await BODIES.run(read) if given + len(previous) > _MANY_ITEMS else read()


def _checked(body: ResponseRequest, compact: bool) -> ResponseRequest:
    check(body)
    for name in ("stream", "background") if compact else ():
        if getattr(body, name):
            raise UnsupportedParameterError(f"{name}: a compaction is answered whole, and at once", param=name, code="unsupported_value")
    return body


async def _sealed(state: State, body: ResponseRequest, *, compacting: bool) -> SealedTexts:
    """What encrypts, with its key at hand where it is needed."""
    sealed: SealedTexts = state.sealed_texts
    if compacting or ENCRYPTED in (body.include or ()):
        await sealed.ready()
    return sealed


def _making(read: _Read, sealed: SealedTexts, owner: str) -> dict[str, Any]:
    """How the items of a reply are made."""
    encrypted = ENCRYPTED in (read.body.include or ())
    return {
        "new_id": read.ids.new,
        "called": read.tools.called,
        "encrypt": partial(sealed.seal, owner, of="reasoning") if encrypted else None,
        "summary": partial(sealed.seal, owner, of="compaction") if read.compacting else None,
    }


async def _previous(store: ResponseStore, owner: str, id: str | None) -> list[Item]:
    """The conversation so far."""
    if id is None:
        return []
    try:
        stored = await store.get(owner, id)
    except NotStoredError:
        raise InvalidRequestError(
            f"Previous response with id '{id[:100]}' not found.", param="previous_response_id", code="previous_response_not_found"
        ) from None
    status = as_known(stored).status
    if status in ("failed", "cancelled"):
        ended = "failed" if status == "failed" else "was cancelled"
        raise InvalidRequestError(
            f"The previous response {ended}, so there is nothing to continue. Continue the one before it", param="previous_response_id"
        )
    if status in ("queued", "in_progress"):
        raise InvalidRequestError("The previous response has not ended yet. Continue it once it has", param="previous_response_id")
    output = carried(stored.response.output)
    compacted = any(isinstance(item, CompactionItem) for item in output)
    return [*(kept(stored.input) if compacted else stored.input), *output]
