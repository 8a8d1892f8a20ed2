"""What `/v1/responses` keeps: retrieve, stream again, delete, cancel a response, and list its input."""

from __future__ import annotations

import msgspec
from litestar import delete, get, post
from litestar.datastructures import State
from litestar.params import FromPath
from litestar.response.base import ASGIResponse

from mm_gateway.api.access.keys import principal
from mm_gateway.api.connection import HTTPRequest
from mm_gateway.api.responses.background import BackgroundResponses, BackgroundStream, as_known, not_streamable
from mm_gateway.api.responses.store import ResponseStore
from mm_gateway.errors import InvalidRequestError
from mm_gateway.protocol.responses import DeletedResponse, ItemList, ResponseObject, StoredResponse
from mm_gateway.work_pools import BODIES

MAX_PAGE = 100
PAGE = 20


@get(
    "/v1/responses/{response_id:str}",
    summary="A stored response, or one that runs in the background",
    description="`stream=true`: its events again, and those that are still to come, of a response of `background: true` and "
    "`stream: true`; `starting_after`: only those behind that sequence number.",
)
async def get_response(request: HTTPRequest, state: State, response_id: FromPath[str]) -> ASGIResponse:
    background: BackgroundResponses = state.background
    stream, after = _stream_of(request)
    job = background.get(principal(request), response_id)
    if stream:
        if job is None:
            await _stored(request, state, response_id)
            raise not_streamable()
        if not job.streamed:
            raise not_streamable()
        return BackgroundStream(job, request.receive, after=after, heartbeat_s=state.server.heartbeat_s)
    if job is not None and not job.ended:
        return await _stored_json(job.response)
    return await _stored_json(as_known(await _stored(request, state, response_id)))


def _stream_of(request: HTTPRequest) -> tuple[bool, int]:
    """Whether events are asked for, and behind which; -1: all.

    Raises:
        InvalidRequestError: a parameter is none.
    """
    parameters = request.query_params
    given = parameters.get("stream", "false").lower()
    if given not in ("true", "false", "1", "0"):
        raise InvalidRequestError(f"stream must be true or false, got '{given[:20]}'", param="stream")
    stream, after = given in ("true", "1"), parameters.get("starting_after")
    if after is None:
        return stream, -1
    if not stream:
        raise InvalidRequestError("starting_after is only allowed when stream is true", param="starting_after")
    if not (after.isascii() and after.isdecimal()) or len(after) > 12:
        raise InvalidRequestError(f"starting_after must be a sequence number, got '{after[:20]}'", param="starting_after")
    return stream, int(after)


@delete(
    "/v1/responses/{response_id:str}",
    status_code=200,
    summary="Delete a stored response; one that runs in the background ends",
)
async def delete_response(request: HTTPRequest, state: State, response_id: FromPath[str]) -> DeletedResponse:
    """Responses that continue it keep their conversation."""
    background: BackgroundResponses = state.background
    store: ResponseStore = state.responses
    owner = principal(request)
    await background.remove(owner, response_id)
    await store.delete(owner, response_id)
    return DeletedResponse(response_id)


@post(
    "/v1/responses/{response_id:str}/cancel",
    status_code=200,
    summary="Cancel a response that runs in the background; one that has ended stays as it is",
)
async def cancel_response(request: HTTPRequest, state: State, response_id: FromPath[str]) -> ASGIResponse:
    background: BackgroundResponses = state.background
    job = background.get(principal(request), response_id)
    if job is not None:
        await job.cancel()
        return await _stored_json(job.response)
    response = as_known(await _stored(request, state, response_id))
    if not response.background:
        raise InvalidRequestError("Cannot cancel a synchronous response. Close the connection to cancel one that is running")
    if response.status in ("queued", "in_progress"):
        raise InvalidRequestError("Another process of this gateway runs the response. Cancel it there")
    return await _stored_json(response)


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
