"""`POST /v1/chat/completions` and `POST /v1/completions`."""

from __future__ import annotations

import secrets
import time

import msgspec
from litestar import Request, post
from litestar.datastructures import State
from litestar.exceptions import HTTPException, InternalServerException
from litestar.openapi.datastructures import ResponseSpec
from litestar.response.base import ASGIResponse

from mm_gateway.api.replies import ChatReply, CompletionReply, Reply
from mm_gateway.api.requests import chat_request, completion_request, decode
from mm_gateway.api.serve_events import stream_response, whole_response
from mm_gateway.catalog import Catalog
from mm_gateway.core import CompletionInput, GenerationRequest
from mm_gateway.errors import InvalidRequestError, ShuttingDownError
from mm_gateway.protocol import ChatCompletion, ChatCompletionRequest, Completion, CompletionRequest, ErrorReply
from mm_gateway.settings import ServerSettings

_chat_decoder = msgspec.json.Decoder(ChatCompletionRequest)
_completion_decoder = msgspec.json.Decoder(CompletionRequest)

_ERRORS = {
    status: ResponseSpec(ErrorReply, description=description, generate_examples=False)
    for status, description in {
        400: "The request is wrong; `param` names the field",
        401: "API key missing or wrong",
        404: "Unknown model",
        429: "Too many requests; see Retry-After",
        503: "The model cannot serve now",
    }.items()
}


@post(
    "/v1/chat/completions",
    status_code=200,
    summary="Continue a conversation",
    description="Body: ChatCompletionRequest. With `stream: true` the reply is a stream of server-sent chat.completion.chunk events.",
    responses={200: ResponseSpec(ChatCompletion, generate_examples=False), **_ERRORS},
)
async def chat_completions(request: Request, state: State) -> ASGIResponse:
    body = decode(_chat_decoder, await _json_body(request))
    stages = (body.workflow or {}).get("events") is True
    id = f"chatcmpl-{secrets.token_hex(16)}"
    generation = chat_request(body, id)
    reply = ChatReply(
        id=id,
        created=int(time.time()),
        model=body.model,
        choices=generation.config.n,
        logprobs=generation.config.logprobs is not None,
        include_usage=_include_usage(body),
        stages=stages,
    )
    return await _respond(request, state, generation, reply, stream=bool(body.stream), stages=stages)


@post(
    "/v1/completions",
    status_code=200,
    summary="Continue a text",
    description="Body: CompletionRequest. With `stream: true` the reply is a stream of server-sent text_completion events.",
    responses={200: ResponseSpec(Completion, generate_examples=False), **_ERRORS},
)
async def completions(request: Request, state: State) -> ASGIResponse:
    body = decode(_completion_decoder, await _json_body(request))
    id = f"cmpl-{secrets.token_hex(16)}"
    generation = completion_request(body, id)
    assert isinstance(generation.input, CompletionInput)
    reply = CompletionReply(
        id=id,
        created=int(time.time()),
        model=body.model,
        choices=len(generation.input.prompts) * generation.config.n,
        logprobs=generation.config.logprobs,
        include_usage=_include_usage(body),
    )
    return await _respond(request, state, generation, reply, stream=bool(body.stream))


async def _respond(
    request: Request, state: State, generation: GenerationRequest, reply: Reply, *, stream: bool, stages: bool = False
) -> ASGIResponse:
    if state.draining:
        raise ShuttingDownError("The server is shutting down")
    catalog: Catalog = state.catalog
    settings: ServerSettings = state.server
    events = catalog.resolve(generation.model).generate(generation)
    if stream:
        return await stream_response(
            events, reply, request.receive, early_commit_s=settings.early_commit_s, heartbeat_s=settings.heartbeat_s, stages=stages
        )
    return await whole_response(events, reply, request.receive)


async def _json_body(request: Request) -> bytes:
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise HTTPException(status_code=415, detail="The body must be JSON: send it with Content-Type: application/json")
    try:
        return await request.body()
    except InternalServerException as error:
        # Litestar's word for a client that hung up amid its body: no fault of ours, and nobody reads the answer.
        raise HTTPException(status_code=400, detail="The connection was closed before the body was complete") from error


def _include_usage(body: ChatCompletionRequest | CompletionRequest) -> bool:
    if body.stream_options is None:
        return False
    if not body.stream:
        raise InvalidRequestError("stream_options is only allowed when stream is true", param="stream_options")
    return bool(body.stream_options.include_usage)
