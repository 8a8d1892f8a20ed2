"""`POST /v1/chat/completions`."""

from __future__ import annotations

import secrets
import time
from functools import partial

import msgspec
from litestar import post
from litestar.datastructures import State
from litestar.response.base import ASGIResponse

from mm_gateway.api.chat_messages import read_messages, read_rendering, text_of
from mm_gateway.api.connection import HTTPRequest
from mm_gateway.api.endpoint import Asked, forwarded_body, includes_usage, receive, respond
from mm_gateway.api.generation_config import check_logprob_entries, generation_config, keep_alive_s, read_grammar
from mm_gateway.api.reasoning import chat_reasoning, tells_thoughts
from mm_gateway.api.replies.chat import ChatReply
from mm_gateway.api.replies.token_details import TokenDetails, running_usage, token_details
from mm_gateway.api.tools import read_tools
from mm_gateway.api.web_search import chat_searches, with_search_functions
from mm_gateway.backends.searching import Searcher
from mm_gateway.core import ChatInput, GenerationRequest
from mm_gateway.errors import InvalidRequestError
from mm_gateway.protocol import ChatCompletionRequest
from mm_gateway.protocol.forwarded import ForwardedChat, ForwardedFields
from mm_gateway.protocol.policy import refuse_unserved

_decoder = msgspec.json.Decoder(ChatCompletionRequest)
_forwarded_decoder = msgspec.json.Decoder(ForwardedChat)


@post(
    "/v1/chat/completions",
    status_code=200,
    summary="Continue a conversation",
    description="With `stream: true` the reply is a stream of server-sent chat.completion.chunk events.",
)
async def chat_completions(request: HTTPRequest, state: State) -> ASGIResponse:
    body = await receive(request, state)
    if body.forwarded:
        asked = await body.forward(_forwarded_decoder, partial(_forwarded, body.model))
    else:
        asked = await body.read(_decoder, partial(_asked, state.searcher, body.media))
    return await respond(request, state, asked, body.ignored)


def _asked(searcher: Searcher, media: bool, body: ChatCompletionRequest, ignored: list[str]) -> Asked:
    plan = chat_searches(body, searcher, ignored)
    generation = chat_request(body, _new_id(), ignored, media=media)
    if plan is not None:
        generation = with_search_functions(generation, plan)
    reply = ChatReply(
        id=generation.request_id,
        created=int(time.time()),
        model=body.model_name,
        choices=generation.config.n,
        logprobs=generation.config.logprobs is not None,
        include_usage=includes_usage(body),
        stages=(body.workflow or {}).get("events") is True,
        tokens=token_details(body),
        thoughts=tells_thoughts(body),
        custom={tool.custom.name for tool in body.tools or () if tool.type == "custom" and tool.custom is not None},
    )
    return Asked(generation, reply, stream=bool(body.stream), searches=plan)


def _forwarded(model: str, body: ForwardedChat, fields: ForwardedFields) -> Asked:
    choices = body.n or 1
    limit = body.max_completion_tokens if isinstance(body.max_completion_tokens, int) else body.max_tokens
    reply = ChatReply(
        id=_new_id(),
        created=int(time.time()),
        model=model,
        choices=choices,
        logprobs=bool(body.logprobs),
        include_usage=includes_usage(body),
        tokens=TokenDetails(running_usage=running_usage(body.stream_options)),
    )
    return Asked(forwarded_body("chat/completions", model, fields, choices, limit), reply, stream=bool(body.stream))


def _new_id() -> str:
    return f"chatcmpl-{secrets.token_hex(16)}"


def chat_request(body: ChatCompletionRequest, request_id: str, ignored: list[str], *, media: bool = False) -> GenerationRequest:
    """What a chat body asks for. ignored: gets the paths of what is left out. media: messages may have parts that are no text.

    Raises:
        InvalidRequestError: a value out of range; UnsupportedParameterError: something that is not served.
    """
    refuse_unserved(body)
    if not body.messages:
        raise InvalidRequestError("messages must hold at least one message", param="messages", code="empty_array")
    if body.top_logprobs and not body.logprobs:
        raise InvalidRequestError("top_logprobs needs logprobs to be true", param="top_logprobs")
    limits = [limit for limit in (body.max_completion_tokens, body.max_tokens) if limit is not None]
    if len(set(limits)) > 1:
        raise InvalidRequestError("max_tokens and max_completion_tokens are the same limit; give one of them", param="max_tokens")
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    check_logprob_entries(
        body.n or 1, logprobs, limits[0] if limits else None, limit_field="max_completion_tokens", logprobs_field="top_logprobs"
    )
    if body.verbosity in ("low", "high"):
        ignored.append("verbosity")
    tools = read_tools(body, ignored)
    grammar = read_grammar(body)
    if tools is not None and grammar is not None and (grammar.kind == "structural_tag" or not grammar.param.startswith("response_format")):
        raise InvalidRequestError(f"tools and {grammar.param} exclude each other", param=grammar.param)
    messages = read_messages(body.messages, media=media)
    return GenerationRequest(
        request_id=request_id,
        model=body.model_name,
        input=ChatInput(
            messages,
            tools,
            read_rendering(body, messages),
            echo=bool(body.echo),
            truncate=None if body.truncation is None else body.truncation == "auto",
            truncate_prompt_tokens=body.truncate_prompt_tokens,
            reasoning=chat_reasoning(body),
        ),
        config=generation_config(
            body,
            n=body.n,
            max_new_tokens=limits[0] if limits else None,
            logprobs=logprobs,
            grammar=grammar,
            prompt_logprobs=body.prompt_logprobs,
            return_token_ids=token_details(body).wanted,
            prediction=text_of("prediction.content", body.prediction.content, media=False) if body.prediction is not None else "",
        ),
        keep_alive=keep_alive_s(body.keep_alive),
        metadata=body.metadata or {},
        workflow=body.workflow,
        user=body.user,
    )
