"""`POST /v1/completions`."""

from __future__ import annotations

import secrets
import time

import msgspec
from litestar import post
from litestar.datastructures import State
from litestar.response.base import ASGIResponse

from mm_gateway.api.connection import HTTPRequest
from mm_gateway.api.endpoint import Asked, forwarded_body, includes_usage, serve
from mm_gateway.api.generation_config import (
    check_count,
    check_logprob_entries,
    generation_config,
    keep_alive_s,
    read_grammar,
    texts_or_tokens,
)
from mm_gateway.api.replies.completion import CompletionReply
from mm_gateway.api.replies.token_details import TokenDetails, running_usage, token_details
from mm_gateway.core import CompletionInput, GenerationRequest
from mm_gateway.core.limits import MAX_CHOICES
from mm_gateway.errors import InvalidRequestError, UnsupportedParameterError
from mm_gateway.protocol import CompletionRequest
from mm_gateway.protocol.forwarded import ForwardedCompletion, ForwardedFields, entries
from mm_gateway.protocol.policy import refuse_unserved

_decoder = msgspec.json.Decoder(CompletionRequest)
_forwarded_decoder = msgspec.json.Decoder(ForwardedCompletion)

_MAX_TOKENS = 16
"""OpenAI's default for this endpoint."""


@post(
    "/v1/completions",
    status_code=200,
    summary="Continue a text",
    description="With `stream: true` the reply is a stream of server-sent text_completion events.",
)
async def completions(request: HTTPRequest, state: State) -> ASGIResponse:
    return await serve(request, state, _decoder, _asked, _forwarded_decoder, _forwarded)


def _asked(body: CompletionRequest, _: list[str]) -> Asked:
    generation = completion_request(body, _new_id())
    assert isinstance(generation.input, CompletionInput)
    reply = CompletionReply(
        id=generation.request_id,
        created=int(time.time()),
        model=body.model_name,
        choices=len(generation.input.prompts) * generation.config.n,
        logprobs=generation.config.logprobs,
        include_usage=includes_usage(body),
        n=generation.config.n,
        tokens=token_details(body),
    )
    return Asked(generation, reply, stream=bool(body.stream))


def _forwarded(model: str, body: ForwardedCompletion, fields: ForwardedFields) -> Asked:
    prompts, n = entries(body.prompt), body.n or 1
    if body.best_of is not None and body.best_of > n:
        raise UnsupportedParameterError(
            "best_of greater than n is not supported for remote models, which are asked for streams", param="best_of"
        )
    check_count(prompts, n, "prompt")
    logprobs = int(body.logprobs) if body.logprobs is not None else None
    reply = CompletionReply(
        id=_new_id(),
        created=int(time.time()),
        model=model,
        choices=prompts * n,
        logprobs=logprobs,
        include_usage=includes_usage(body),
        tokens=TokenDetails(running_usage=running_usage(body.stream_options)),
    )
    return Asked(forwarded_body("completions", model, fields, prompts * n, body.max_tokens), reply, stream=bool(body.stream))


def _new_id() -> str:
    return f"cmpl-{secrets.token_hex(16)}"


def completion_request(body: CompletionRequest, request_id: str) -> GenerationRequest:
    """What a completion body asks for; errors as for `chat_request`."""
    refuse_unserved(body)
    prompts = texts_or_tokens(body.prompt, "prompt")
    n = body.n or 1
    best_of = body.best_of or n
    if best_of < n:
        raise InvalidRequestError(f"best_of must be between n ({n}) and {MAX_CHOICES}, got {best_of}", param="best_of")
    if body.stream and best_of > n:
        raise InvalidRequestError("best_of greater than n cannot be streamed", param="best_of")
    check_count(len(prompts), best_of, "prompt")
    echo = bool(body.echo)
    scored = echo and body.logprobs is not None
    if scored and body.prompt_logprobs not in (None, body.logprobs):
        raise InvalidRequestError(
            "prompt_logprobs must be the same as logprobs with echo, which scores the prompt too", param="prompt_logprobs"
        )
    max_tokens = _MAX_TOKENS if body.max_tokens is None else body.max_tokens
    if max_tokens == 0 and not scored and body.prompt_logprobs is None:
        raise InvalidRequestError(
            "max_tokens must be at least 1, got 0; without generating, echo with logprobs scores a prompt", param="max_tokens"
        )
    check_logprob_entries(len(prompts) * best_of, body.logprobs, max_tokens, limit_field="max_tokens", logprobs_field="logprobs")
    return GenerationRequest(
        request_id=request_id,
        model=body.model_name,
        input=CompletionInput(
            prompts,
            echo=echo,
            add_special_tokens=body.add_special_tokens is not False,
            truncate_prompt_tokens=body.truncate_prompt_tokens,
        ),
        config=generation_config(
            body,
            n=body.n,
            max_new_tokens=max_tokens,
            logprobs=body.logprobs,
            # As in vLLM, and clients count on it: lm-eval takes the last entry for the token that it had to let be generated.
            end_logprobs=body.logprobs is not None,
            grammar=read_grammar(body),
            prompt_logprobs=body.logprobs if scored else body.prompt_logprobs,
            return_token_ids=token_details(body).wanted,
        ),
        best_of=body.best_of,
        keep_alive=keep_alive_s(body.keep_alive),
        user=body.user,
    )
