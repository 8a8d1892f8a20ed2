"""`POST /v1/chat/completions` and `POST /v1/completions`."""

from __future__ import annotations

import secrets
import time

import msgspec
from litestar import Request, post
from litestar.datastructures import State
from litestar.response.base import ASGIResponse

from mm_gateway.api.access.keys import principal
from mm_gateway.api.endpoint import json_body, respond
from mm_gateway.api.generation_requests import chat_request, completion_request, decode
from mm_gateway.api.replies import ChatReply, CompletionReply
from mm_gateway.core import CompletionInput
from mm_gateway.errors import InvalidRequestError
from mm_gateway.protocol import ChatCompletionRequest, CompletionRequest

_chat_decoder = msgspec.json.Decoder(ChatCompletionRequest)
_completion_decoder = msgspec.json.Decoder(CompletionRequest)


@post(
    "/v1/chat/completions",
    status_code=200,
    summary="Continue a conversation",
    description="With `stream: true` the reply is a stream of server-sent chat.completion.chunk events.",
)
async def chat_completions(request: Request, state: State) -> ASGIResponse:
    body = decode(_chat_decoder, await json_body(request))
    stages = (body.workflow or {}).get("events") is True
    id = f"chatcmpl-{secrets.token_hex(16)}"
    generation = msgspec.structs.replace(chat_request(body, id), principal=principal(request))
    reply = ChatReply(
        id=id,
        created=int(time.time()),
        model=body.model,
        choices=generation.config.n,
        logprobs=generation.config.logprobs is not None,
        include_usage=_include_usage(body),
        stages=stages,
    )
    return await respond(request, state, generation, reply, stream=bool(body.stream), stages=stages)


@post(
    "/v1/completions",
    status_code=200,
    summary="Continue a text",
    description="With `stream: true` the reply is a stream of server-sent text_completion events.",
)
async def completions(request: Request, state: State) -> ASGIResponse:
    body = decode(_completion_decoder, await json_body(request))
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
    return await respond(request, state, generation, reply, stream=bool(body.stream))


def _include_usage(body: ChatCompletionRequest | CompletionRequest) -> bool:
    if body.stream_options is None:
        return False
    if not body.stream:
        raise InvalidRequestError("stream_options is only allowed when stream is true", param="stream_options")
    return bool(body.stream_options.include_usage)
