"""`POST /tokenize` and `POST /detokenize`, as vLLM has them."""

from __future__ import annotations

import msgspec
from litestar import post
from litestar.datastructures import State
from litestar.response.base import ASGIResponse

from mm_gateway.api.access.keys import resolve
from mm_gateway.api.chat_messages import read_messages, read_rendering
from mm_gateway.api.connection import HTTPRequest, while_connected
from mm_gateway.api.endpoint import receive
from mm_gateway.api.reasoning import chat_reasoning
from mm_gateway.api.tools import read_tools
from mm_gateway.catalog import Catalog
from mm_gateway.core import ChatInput, TokenizingBackend
from mm_gateway.errors import InvalidRequestError, ShuttingDownError
from mm_gateway.protocol import DetokenizeReply, DetokenizeRequest, TokenizeReply, TokenizeRequest
from mm_gateway.protocol.policy import refuse_unserved
from mm_gateway.work_pools import BODIES

_MANY_TOKENS = 4096
"""From here on a reply is encoded on a thread: the event loop serves the others meanwhile."""

_tokenize_decoder = msgspec.json.Decoder(TokenizeRequest)
_detokenize_decoder = msgspec.json.Decoder(DetokenizeRequest)


@post(
    "/tokenize",
    status_code=200,
    summary="The tokens of a text or a conversation",
    description="A conversation is encoded as `/v1/chat/completions` would, tools included.",
)
async def tokenize(request: HTTPRequest, state: State) -> ASGIResponse:
    received = await receive(request, state)
    body, given = await received.read(_tokenize_decoder, lambda body, ignored: (body, _tokenize_input(body, ignored)))
    backend = tokenizing_backend(request, state, body.model_name)
    found = await while_connected(request, backend.tokenize(given, add_special_tokens=body.add_special_tokens is not False))
    return await _json(TokenizeReply(len(found.ids), found.context_length, found.ids, found.strings if body.return_token_strs else None))


@post(
    "/detokenize",
    status_code=200,
    summary="The text of token ids",
    description="Special tokens are part of the text.",
)
async def detokenize(request: HTTPRequest, state: State) -> ASGIResponse:
    body = await (await receive(request, state)).read(_detokenize_decoder, lambda body, _: body)
    text = await while_connected(request, tokenizing_backend(request, state, body.model_name).detokenize(body.tokens))
    return await _json(DetokenizeReply(text))


def _tokenize_input(body: TokenizeRequest, ignored: list[str]) -> str | ChatInput:
    if (body.prompt is None) == (body.messages is None):
        raise InvalidRequestError("Give either prompt or messages", param="prompt" if body.messages is None else "messages")
    refuse_unserved(body)
    if body.prompt is not None:
        of_messages = (
            "add_generation_prompt",
            "continue_final_message",
            "chat_template_kwargs",
            "documents",
            "reasoning_effort",
            "reasoning",
            "thinking_budget",
            "thinking_token_budget",
            "tools",
            "tool_choice",
            "parallel_tool_calls",
        )
        for name in of_messages:
            if (value := getattr(body, name)) is not None and value is not False:
                raise InvalidRequestError(f"{name} is only allowed with messages", param=name)
        return body.prompt
    if not body.messages:
        raise InvalidRequestError("messages must hold at least one message", param="messages", code="empty_array")
    messages, tools = read_messages(body.messages), read_tools(body, ignored)
    return ChatInput(messages, tools, read_rendering(body, messages), reasoning=chat_reasoning(body))


def tokenizing_backend(request: HTTPRequest, state: State, model: str) -> TokenizingBackend:
    """The backend of a name.

    Raises:
        GatewayError: no model of that name, none for this key, none with a tokenizer, or the server is about to end.
    """
    if state.draining:
        raise ShuttingDownError("The server is shutting down")
    catalog: Catalog = state.catalog
    backend = resolve(request, catalog, model)
    if not isinstance(backend, TokenizingBackend):
        raise InvalidRequestError(f"The model `{model[:200]}` has no tokenizer of its own", param="model")
    return backend


async def _json(reply: TokenizeReply | DetokenizeReply) -> ASGIResponse:
    large = isinstance(reply, TokenizeReply) and reply.count > _MANY_TOKENS
    body = await BODIES.run(msgspec.json.encode, reply) if large else msgspec.json.encode(reply)
    return ASGIResponse(body=body, media_type="application/json")
