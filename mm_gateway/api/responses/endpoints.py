"""`/v1/responses`: create, retrieve, delete, list the input of, cancel, and count the input tokens of a response.

What becomes of a response, unless it is not to be stored: complete or cut by its length, it is kept before the client is told
of its end, so that the next request finds it. Failed in mid-stream, it is kept as `failed`, without output, and cannot be
continued. Refused before its first event, or left by its client, nothing of it is kept.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

import msgspec
from litestar import delete, get, post
from litestar.datastructures import State
from litestar.params import FromPath
from litestar.response.base import ASGIResponse

from mm_gateway.api.access.admission import ticket_of
from mm_gateway.api.access.keys import principal
from mm_gateway.api.connection import HTTPRequest, while_connected
from mm_gateway.api.endpoint import LARGE_BODY_BYTES, Asked, receive, respond
from mm_gateway.api.responses.as_chat import as_chat
from mm_gateway.api.responses.conversation import carried, conversation
from mm_gateway.api.responses.items import ItemIds, has_encrypted, read_items, referenced
from mm_gateway.api.responses.reply import ResponseReply
from mm_gateway.api.responses.request import ENCRYPTED, check, new_response, response_request, wants_logprobs
from mm_gateway.api.responses.sealed_thoughts import SealedThoughts
from mm_gateway.api.responses.store import ResponseStore
from mm_gateway.api.responses.tools import ResponseTools
from mm_gateway.api.tokens import tokenizing_backend
from mm_gateway.core import ChatInput, ForwardedBody, GenerationRequest
from mm_gateway.errors import InvalidRequestError, NotStoredError, UnsupportedParameterError
from mm_gateway.protocol.response_request import ResponseRequest
from mm_gateway.protocol.responses import DeletedResponse, InputTokens, Item, ItemList, ResponseObject, StoredResponse
from mm_gateway.work_pools import BODIES

_decoder = msgspec.json.Decoder(ResponseRequest)

MAX_PAGE = 100
PAGE = 20
_MANY_ITEMS = 128
"""From here on a conversation is put together on a thread: the event loop serves the others meanwhile."""


@post(
    "/v1/responses",
    status_code=200,
    summary="Create a response",
    description="Body: ResponseRequest. With `stream: true` the reply is a stream of named server-sent events, the last of which is "
    "response.completed, response.incomplete or response.failed.",
)
async def create_response(request: HTTPRequest, state: State) -> ASGIResponse:
    body, ids, items, asked, tools, ignored = await _read(request, state)
    store: ResponseStore = state.responses
    owner = principal(request)
    response = new_response(body, ids.response, int(time.time()), tools.shown(body.tools))
    if response.store:
        begun = StoredResponse(response, items)
        if len(items) > _MANY_ITEMS or ticket_of(request).body_bytes >= LARGE_BODY_BYTES:
            await BODIES.run(store.check_size, begun)
        else:
            store.check_size(begun)
        await store.ready()

    async def keep(final: ResponseObject) -> bool:
        return await store.put(owner, StoredResponse(final, items))

    sealed: SealedThoughts = state.sealed_thoughts
    wanted = ENCRYPTED in (body.include or ())
    if wanted:
        await sealed.ready()
    reply = ResponseReply(
        response,
        ids.new,
        called=tools.called,
        include=body.include or (),
        logprobs=wants_logprobs(body),
        obfuscate=body.stream_options is not None and bool(body.stream_options.include_obfuscation),
        keep=keep if response.store else None,
        encrypt=partial(sealed.seal, owner) if wanted else None,
    )
    return await respond(request, state, Asked(asked, reply, stream=bool(body.stream), searches=tools.searches), ignored)


@post(
    "/v1/responses/input_tokens",
    status_code=200,
    summary="How many tokens a response would read",
    description="Body: as of POST /v1/responses. Nothing is generated or stored, weights are not loaded, and the whole input is counted, "
    "whether it fits the model's context or not.",
)
async def count_input_tokens(request: HTTPRequest, state: State) -> InputTokens:
    body, _, _, asked, _, _ = await _read(request, state)
    if isinstance(asked, ForwardedBody):
        raise UnsupportedParameterError("The input tokens of a remote model cannot be counted", param="model", code="unsupported_value")
    assert isinstance(asked.input, ChatInput)
    found = await while_connected(request, tokenizing_backend(request, state, body.model_name).tokenize(asked.input))
    return InputTokens(len(found.ids))


async def _read(
    request: HTTPRequest, state: State
) -> tuple[ResponseRequest, ItemIds, list[Item], GenerationRequest | ForwardedBody, ResponseTools, list[str]]:
    """The body, with the ids of its response, the items of its conversation, earlier turns included, what they ask for, its tools, and what
    of the body is left out.
    """
    received = await receive(request, state)
    forwarded, ignored, unknown = received.forwarded, received.ignored, received.unknown
    body = await received.read(_decoder, lambda body, _: _checked(body, forwarded))
    store: ResponseStore = state.responses
    owner = principal(request)
    ids = ItemIds()
    previous = await _previous(store, owner, body.previous_response_id)
    wanted = referenced(body.input)
    stored = await store.items(owner, wanted) if wanted else {}
    sealed: SealedThoughts = state.sealed_thoughts
    if has_encrypted(body.input):
        await sealed.ready()

    def read() -> tuple[list[Item], GenerationRequest | ForwardedBody, ResponseTools]:
        given: Sequence[Item] = ()
        if body.input is not None:
            given = read_items(body.input, ids, stored, partial(sealed.open, owner), forwarded=forwarded, unknown=unknown)
        items = [*previous, *given]
        messages = conversation(items, body.instructions)
        tools = ResponseTools(body, None if forwarded else state.searcher, ignored, unknown)
        if forwarded:
            return items, as_chat(body, received.fields(), messages, tools.use, ignored), tools
        return items, response_request(body, ids.response, messages, tools.use), tools

    # For a few items the way to a thread costs more than it saves.
    given = 0 if body.input is None or isinstance(body.input, str) else len(body.input)
    items, asked, tools = await BODIES.run(read) if given + len(previous) > _MANY_ITEMS else read()
    return body, ids, items, asked, tools, ignored


def _checked(body: ResponseRequest, forwarded: bool) -> ResponseRequest:
    check(body, forwarded=forwarded)
    return body


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
    if stored.response.status == "failed":
        raise InvalidRequestError(
            "The previous response failed, so there is nothing to continue. Continue the one before it", param="previous_response_id"
        )
    return [*stored.input, *carried(stored.response.output)]


@get(
    "/v1/responses/{response_id:str}",
    summary="A stored response",
)
async def get_response(request: HTTPRequest, state: State, response_id: FromPath[str]) -> ASGIResponse:
    parameters = request.query_params
    for name in ("stream", "starting_after"):
        if parameters.get(name, "false").lower() not in ("false", "0"):
            raise UnsupportedParameterError(f"{name} is not supported by this server: streams are not stored", param=name)
    return await _stored_json((await _stored(request, state, response_id)).response)


@delete(
    "/v1/responses/{response_id:str}",
    status_code=200,
    summary="Delete a stored response",
)
async def delete_response(request: HTTPRequest, state: State, response_id: FromPath[str]) -> DeletedResponse:
    """Responses that continue it keep their conversation."""
    store: ResponseStore = state.responses
    await store.delete(principal(request), response_id)
    return DeletedResponse(response_id)


@post(
    "/v1/responses/{response_id:str}/cancel",
    status_code=200,
    summary="Cancel a background response: always an error, since there are none",
)
async def cancel_response(request: HTTPRequest, state: State, response_id: FromPath[str]) -> ResponseObject:
    await _stored(request, state, response_id)
    raise InvalidRequestError("Cannot cancel a synchronous response. Close the connection to cancel one that is running")


@get(
    "/v1/responses/{response_id:str}/input_items",
    summary="What a stored response was made from, earlier turns included; pages by `limit`, `order` and `after`",
)
async def list_input_items(request: HTTPRequest, state: State, response_id: FromPath[str]) -> ASGIResponse:
    parameters = request.query_params
    limit, order, after = parameters.get("limit", str(PAGE)), parameters.get("order", "desc"), parameters.get("after")
    if not limit.isdecimal() or len(limit) > 3 or not 1 <= int(limit) <= MAX_PAGE:
        raise InvalidRequestError(f"limit must be between 1 and {MAX_PAGE}, got '{limit[:20]}'", param="limit")
    if order not in ("asc", "desc"):
        raise InvalidRequestError(f"order must be asc or desc, got '{order[:20]}'", param="order")
    items = (await _stored(request, state, response_id)).input
    if order == "desc":
        items = items[::-1]
    if after is not None:
        position = next((index for index, item in enumerate(items) if item.id == after), None)
        if position is None:
            raise InvalidRequestError(f"after: no input item with id '{after[:64]}'", param="after")
        items = items[position + 1 :]
    page = items[: int(limit)]
    first, last = (page[0].id, page[-1].id) if page else (None, None)
    return await _stored_json(ItemList(page, first, last, has_more=len(page) < len(items)))


async def _stored_json(reply: ResponseObject | ItemList) -> ASGIResponse:
    """Encoded on a thread, since it may be megabytes."""
    return ASGIResponse(body=await BODIES.run(msgspec.json.encode, reply), media_type="application/json")


async def _stored(request: HTTPRequest, state: State, id: str) -> StoredResponse:
    store: ResponseStore = state.responses
    return await store.get(principal(request), id)
