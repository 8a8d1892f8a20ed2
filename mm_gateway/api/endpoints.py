"""The table of endpoints: a row is a handler and what the API's description says of it. A new endpoint is a module and a row here."""

from __future__ import annotations

from typing import Any

import msgspec

from mm_gateway.api.admin import manage_model
from mm_gateway.api.chat import chat_completions
from mm_gateway.api.completions import completions
from mm_gateway.api.description.endpoint import GET_ERRORS, MODEL_ERRORS, STORED_ERRORS, Endpoint
from mm_gateway.api.embeddings import embeddings
from mm_gateway.api.health import health, ping, version
from mm_gateway.api.messages.endpoints import count_message_tokens, create_message, root
from mm_gateway.api.models import get_model, list_models
from mm_gateway.api.responses.endpoints import (
    cancel_response,
    count_input_tokens,
    create_response,
    delete_response,
    get_response,
    list_input_items,
)
from mm_gateway.api.tokens import detokenize, tokenize
from mm_gateway.protocol import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionRequest,
    Completion,
    CompletionChunk,
    CompletionRequest,
    DetokenizeReply,
    DetokenizeRequest,
    EmbeddingList,
    EmbeddingRequest,
    Health,
    ModelCard,
    ModelList,
    TokenizeReply,
    TokenizeRequest,
    Version,
)
from mm_gateway.protocol.message_request import CountTokensRequest, MessageRequest
from mm_gateway.protocol.messages import MessageReplyBody, MessageTokens
from mm_gateway.protocol.response_request import ResponseRequest
from mm_gateway.protocol.responses import DeletedResponse, InputTokens, ItemList, ResponseObject

_HELLO = [{"role": "user", "content": "Hello!"}]
_CLOCK: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "The time in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
_HEAD = {"id": "chatcmpl-1", "created": 1764000000, "model": "mock", "system_fingerprint": "fp_mm_gateway"}
_USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
_MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "the model", "annotations": [], "logprobs": []}],
}
_RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1764000000,
    "status": "completed",
    "model": "mock",
    "output": [_MESSAGE],
    "metadata": {},
    "parallel_tool_calls": True,
    "store": True,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "usage": {
        "input_tokens": 1,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 3,
    },
}
_CARD: dict[str, Any] = {
    "id": "gpt2",
    "object": "model",
    "created": 1764000000,
    "owned_by": "mm-gateway",
    "root": "gpt2",
    "max_model_len": 1024,
    "backend": "local",
    "state": "ready",
    "context_length": 1024,
    "aliases": [],
    "details": {"model_name": "gpt2", "pinned": False},
}


def _stream(kind: str, *choices: dict[str, Any]) -> str:
    chunks = ({**_HEAD, "object": kind, "choices": [choice]} for choice in choices)
    return "".join(f"data: {msgspec.json.encode(chunk).decode()}\n\n" for chunk in chunks) + "data: [DONE]\n\n"


_ROWS = (
    Endpoint(
        chat_completions,
        "Text",
        body=ChatCompletionRequest,
        reply=ChatCompletion,
        event=ChatCompletionChunk,
        errors=MODEL_ERRORS,
        examples={
            "conversation": {
                "model": "mock",
                "messages": [{"role": "system", "content": "Be brief."}, *_HELLO],
                "max_completion_tokens": 50,
                "temperature": 0.7,
            },
            "stream": {"model": "mock", "messages": _HELLO, "stream": True, "stream_options": {"include_usage": True}},
            "tools": {"model": "mock", "messages": _HELLO, "tools": [_CLOCK], "tool_choice": "required"},
            "tool result": {
                "model": "mock",
                "messages": [
                    *_HELLO,
                    {
                        "role": "assistant",
                        "tool_calls": [
                            {"id": "call_1", "type": "function", "function": {"name": "get_time", "arguments": '{"city":"Paris"}'}}
                        ],
                    },
                    {"role": "tool", "tool_call_id": "call_1", "content": "12:00"},
                ],
                "tools": [_CLOCK],
            },
            "log-probabilities": {"model": "mock", "messages": _HELLO, "logprobs": True, "top_logprobs": 2, "n": 2, "seed": 7},
        },
        answer={
            **_HEAD,
            "object": "chat.completion",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "Hello! How", "refusal": None},
                    "finish_reason": "length",
                    "logprobs": None,
                }
            ],
            "usage": _USAGE,
        },
        stream=_stream(
            "chat.completion.chunk",
            {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None},
            {"index": 0, "delta": {"content": "Hello!"}, "logprobs": None, "finish_reason": None},
            {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"},
        ),
    ),
    Endpoint(
        completions,
        "Text",
        body=CompletionRequest,
        reply=Completion,
        event=CompletionChunk,
        errors=MODEL_ERRORS,
        examples={
            "text": {"model": "mock", "prompt": "Once upon a time", "max_tokens": 20, "stop": ["\n\n"]},
            "batch": {"model": "mock", "prompt": ["Once", "Twice"], "n": 2, "best_of": 3, "seed": 1},
            "scored": {"model": "mock", "prompt": [15496, 11, 995], "max_tokens": 0, "echo": True, "logprobs": 1},
        },
        answer={
            **_HEAD,
            "id": "cmpl-1",
            "object": "text_completion",
            "choices": [{"index": 0, "text": " there was", "finish_reason": "length", "logprobs": None}],
            "usage": _USAGE,
        },
        stream=_stream("text_completion", {"index": 0, "text": " there was", "logprobs": None, "finish_reason": "length"}),
    ),
    Endpoint(
        embeddings,
        "Embeddings",
        body=EmbeddingRequest,
        reply=EmbeddingList,
        errors=MODEL_ERRORS,
        examples={
            "text": {"model": "mock", "input": "The food was delicious."},
            "batch": {"model": "mock", "input": ["one text", "another"], "encoding_format": "base64"},
            "tokens": {"model": "mock", "input": [[15496, 11], [995]]},
        },
        answer={
            "object": "list",
            "model": "mock",
            "data": [{"object": "embedding", "index": 0, "embedding": [0.6, -0.8]}],
            "usage": {"prompt_tokens": 4, "total_tokens": 4},
        },
    ),
    Endpoint(
        tokenize,
        "Tokens",
        body=TokenizeRequest,
        reply=TokenizeReply,
        errors=MODEL_ERRORS,
        examples={
            "text": {"model": "mock", "prompt": "Hello, world", "return_token_strs": True},
            "conversation": {"model": "mock", "messages": _HELLO, "tools": [_CLOCK]},
        },
        answer={"count": 2, "max_model_len": 32768, "tokens": [15496, 995], "token_strs": ["Hello,", " world"]},
    ),
    Endpoint(
        detokenize,
        "Tokens",
        body=DetokenizeRequest,
        reply=DetokenizeReply,
        errors=MODEL_ERRORS,
        examples={"tokens": {"model": "mock", "tokens": []}},
        answer={"prompt": "Hello, world"},
    ),
    Endpoint(
        create_response,
        "Responses",
        body=ResponseRequest,
        reply=ResponseObject,
        events="Events are named as OpenAI names them; the last one is response.completed, response.incomplete or response.failed.",
        errors=MODEL_ERRORS,
        examples={
            "text": {"model": "mock", "input": "Hello!", "store": False},
            "conversation": {"model": "mock", "instructions": "Be brief.", "input": _HELLO, "max_output_tokens": 20, "stream": True},
        },
        answer=_RESPONSE,
    ),
    Endpoint(
        count_input_tokens,
        "Responses",
        body=ResponseRequest,
        reply=InputTokens,
        errors=MODEL_ERRORS,
        examples={"text": {"model": "mock", "instructions": "Be brief.", "input": "Hello!"}},
        answer={"object": "response.input_tokens", "input_tokens": 11},
    ),
    Endpoint(get_response, "Responses", reply=ResponseObject, answer=_RESPONSE, errors=STORED_ERRORS),
    Endpoint(
        delete_response,
        "Responses",
        reply=DeletedResponse,
        answer={"id": "resp_1", "object": "response", "deleted": True},
        errors=STORED_ERRORS,
    ),
    Endpoint(cancel_response, "Responses", reply=ResponseObject, errors=STORED_ERRORS),
    Endpoint(list_input_items, "Responses", reply=ItemList, errors=STORED_ERRORS),
    Endpoint(
        create_message,
        "Messages",
        body=MessageRequest,
        reply=MessageReplyBody,
        events="Events are named as Anthropic names them; the last one is message_stop, or error.",
        errors=MODEL_ERRORS,
        examples={
            "text": {"model": "mock", "max_tokens": 20, "messages": _HELLO},
            "tools": {
                "model": "mock",
                "max_tokens": 200,
                "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
                "messages": _HELLO,
                "tools": [{"name": "get_time", "input_schema": _CLOCK["function"]["parameters"]}],
                "tool_choice": {"type": "any"},
                "stream": True,
            },
        },
        answer={
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "mock",
            "content": [{"type": "text", "text": "the model"}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {
                "input_tokens": 1,
                "output_tokens": 2,
                "cache_read_input_tokens": 0,
                "cache_creation_input_tokens": 0,
                "output_tokens_details": {"thinking_tokens": 0},
            },
        },
    ),
    Endpoint(
        count_message_tokens,
        "Messages",
        body=CountTokensRequest,
        reply=MessageTokens,
        errors=MODEL_ERRORS,
        examples={"text": {"model": "mock", "system": "Be brief.", "messages": _HELLO}},
        answer={"input_tokens": 3},
    ),
    Endpoint(list_models, "Models", reply=ModelList, answer={"object": "list", "data": [_CARD]}),
    Endpoint(
        get_model,
        "Models",
        reply=ModelCard,
        answer=_CARD,
        errors=(*GET_ERRORS, "NotFound"),
        parameters={"model_id": {"description": "A name or an alias; it may hold slashes.", "example": "mock"}},
    ),
    Endpoint(
        health,
        "Operation",
        reply=Health,
        answer={"status": "ok", "version": "0.1.0"},
        errors=("MethodNotAllowed", "Internal"),
        other_replies={"503": Health},
        security="",
    ),
    Endpoint(root, "Operation", errors=("MethodNotAllowed", "Internal"), security=""),
    Endpoint(ping, "Operation", errors=("MethodNotAllowed", "Internal"), security=""),
    Endpoint(version, "Operation", reply=Version, answer={"version": "0.1.0"}, errors=("MethodNotAllowed", "Internal"), security=""),
    Endpoint(
        manage_model,
        "Operation",
        reply=ModelCard,
        answer=_CARD,
        errors=("BadRequest", "Unauthorized", "Forbidden", "NotFound", "MethodNotAllowed", "Internal", "Unavailable"),
        security="admin",
        parameters={
            "target": {"description": "A model's name, a slash, and `load`, `unload`, `pin` or `unpin`.", "example": "gpt2/load"},
        },
    ),
)

ENDPOINTS = {(endpoint.method, endpoint.path): endpoint for endpoint in _ROWS}
