"""What the OpenAPI description says of each endpoint: one row each. Adding an endpoint adds a row here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

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
)
from mm_gateway.protocol.response_request import ResponseRequest
from mm_gateway.protocol.responses import DeletedResponse, InputTokens, ItemList, ResponseObject

TAGS = {
    "Responses": "Conversations that the gateway keeps.",
    "Text": "Conversations and texts, continued.",
    "Embeddings": "Texts as vectors.",
    "Tokens": "How a model reads text.",
    "Models": "What is served.",
    "Operation": "For those who run the gateway.",
}

HEADERS: dict[str, Any] = {
    "x-request-id": {"description": "Names the request in the log.", "schema": {"type": "string", "pattern": "^req_[0-9a-f]{32}$"}},
    "openai-processing-ms": {"description": "Milliseconds until the reply began.", "schema": {"type": "integer", "minimum": 0}},
    "retry-after": {"description": "Seconds after which to try again.", "schema": {"type": "integer", "minimum": 1}},
    "retry-after-ms": {"description": "The same in milliseconds.", "schema": {"type": "integer", "minimum": 1}},
    "x-should-retry": {"description": "false: trying again cannot help.", "schema": {"type": "string", "enum": ["true", "false"]}},
}
for _what in ("requests", "tokens"):
    HEADERS |= {
        f"x-ratelimit-limit-{_what}": {"description": f"{_what.title()} per minute, where limited.", "schema": {"type": "integer"}},
        f"x-ratelimit-remaining-{_what}": {"description": f"{_what.title()} left now.", "schema": {"type": "integer", "minimum": 0}},
        f"x-ratelimit-reset-{_what}": {"description": "Until all are there again, e.g. `1m12s`.", "schema": {"type": "string"}},
    }

# name -> status, description, headers
ERRORS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "BadRequest": (
        "400",
        "The request is wrong; `param` names the field. Codes: `context_length_exceeded`, `unsupported_parameter`, `unsupported_value`, …",
        (),
    ),
    "Unauthorized": ("401", "API key missing or wrong (`invalid_api_key`)", ()),
    "Forbidden": ("403", "Not open to this key, or to anybody (`permission_denied`)", ()),
    "NotFound": ("404", "Unknown model (`model_not_found`) or path", ()),
    "MethodNotAllowed": ("405", "The path is served, but not by this method", ()),
    "TooLarge": ("413", "The body is larger than `server.max_body_bytes`", ()),
    "NotJson": ("415", "The body is not sent as application/json", ()),
    "TooMany": ("429", "A limit or a queue is full (`rate_limit_exceeded`)", ("retry-after", "retry-after-ms", "x-should-retry")),
    "Internal": ("500", "The gateway's fault; the message shows nothing of its inside", ()),
    "Upstream": ("502", "The server behind a remote model cannot be reached, or broke off", ()),
    "Unavailable": (
        "503",
        "The model cannot serve now (`model_overloaded`), or the gateway is shutting down",
        ("retry-after", "retry-after-ms", "x-should-retry"),
    ),
    "UpstreamTimeout": ("504", "The server behind a remote model did not answer in time", ()),
    "Passed": ("default", "An error of the server behind a remote model, passed on with its status", ()),
}
_GET = ("BadRequest", "Unauthorized", "MethodNotAllowed", "TooMany", "Internal")
_STORED = (*_GET, "NotFound")
_POST = ("BadRequest", "Unauthorized", "NotFound", "MethodNotAllowed", "TooLarge", "NotJson", "TooMany", "Internal")
_MODEL = (*_POST, "Upstream", "Unavailable", "UpstreamTimeout", "Passed")


@dataclass(frozen=True)
class Endpoint:
    """One row.

    Attributes:
        tag: where it is listed. body, reply: structs of what comes and goes. event: of one event, where it can stream.
        events: instead, what its events are, where they are of many kinds.
        examples: bodies by name, each accepted by the mock. answer: a reply. stream: a stream.
        errors: names in ERRORS. other_replies: status -> struct, of replies that are no errors. security: which key opens it.
        parameters: more about path parameters, by name.
    """

    tag: str
    reply: type[msgspec.Struct]
    body: type[msgspec.Struct] | None = None
    event: type[msgspec.Struct] | None = None
    events: str | None = None
    examples: Mapping[str, Any] = field(default_factory=dict)
    answer: Any = None
    stream: str | None = None
    errors: tuple[str, ...] = _GET
    other_replies: Mapping[str, type[msgspec.Struct]] = field(default_factory=dict)
    security: Literal["", "client", "admin"] = "client"
    parameters: Mapping[str, Any] = field(default_factory=dict)


_HELLO = [{"role": "user", "content": "Hello!"}]
_CLOCK = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "The time in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
_HEAD = {"id": "chatcmpl-1", "created": 1764000000, "model": "mock", "system_fingerprint": "fp_mm_gateway"}
_USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
_MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "the model", "annotations": [], "logprobs": []}],
}
_RESPONSE = {
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
_CARD = {
    "id": "gpt2",
    "object": "model",
    "created": 1764000000,
    "owned_by": "mm-gateway",
    "backend": "local",
    "state": "ready",
    "context_length": 1024,
    "aliases": [],
    "details": {"model_name": "gpt2", "pinned": False},
}


def _stream(kind: str, *choices: dict[str, Any]) -> str:
    chunks = ({**_HEAD, "object": kind, "choices": [choice]} for choice in choices)
    return "".join(f"data: {msgspec.json.encode(chunk).decode()}\n\n" for chunk in chunks) + "data: [DONE]\n\n"


ENDPOINTS: dict[tuple[str, str], Endpoint] = {
    ("POST", "/v1/chat/completions"): Endpoint(
        "Text",
        body=ChatCompletionRequest,
        reply=ChatCompletion,
        event=ChatCompletionChunk,
        errors=_MODEL,
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
    ("POST", "/v1/completions"): Endpoint(
        "Text",
        body=CompletionRequest,
        reply=Completion,
        event=CompletionChunk,
        errors=_MODEL,
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
    ("POST", "/v1/embeddings"): Endpoint(
        "Embeddings",
        body=EmbeddingRequest,
        reply=EmbeddingList,
        errors=_MODEL,
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
    ("POST", "/tokenize"): Endpoint(
        "Tokens",
        body=TokenizeRequest,
        reply=TokenizeReply,
        errors=_MODEL,
        examples={
            "text": {"model": "mock", "prompt": "Hello, world", "return_token_strs": True},
            "conversation": {"model": "mock", "messages": _HELLO, "tools": [_CLOCK]},
        },
        answer={"count": 2, "max_model_len": 32768, "tokens": [15496, 995], "token_strs": ["Hello,", " world"]},
    ),
    ("POST", "/detokenize"): Endpoint(
        "Tokens",
        body=DetokenizeRequest,
        reply=DetokenizeReply,
        errors=_MODEL,
        examples={"tokens": {"model": "mock", "tokens": []}},
        answer={"prompt": "Hello, world"},
    ),
    ("POST", "/v1/responses"): Endpoint(
        "Responses",
        body=ResponseRequest,
        reply=ResponseObject,
        events="Events are named as OpenAI names them; the last one is response.completed, response.incomplete or response.failed.",
        errors=_MODEL,
        examples={
            "text": {"model": "mock", "input": "Hello!", "store": False},
            "conversation": {"model": "mock", "instructions": "Be brief.", "input": _HELLO, "max_output_tokens": 20, "stream": True},
        },
        answer=_RESPONSE,
    ),
    ("POST", "/v1/responses/input_tokens"): Endpoint(
        "Responses",
        body=ResponseRequest,
        reply=InputTokens,
        errors=_MODEL,
        examples={"text": {"model": "mock", "instructions": "Be brief.", "input": "Hello!"}},
        answer={"object": "response.input_tokens", "input_tokens": 11},
    ),
    ("GET", "/v1/responses/{response_id}"): Endpoint("Responses", reply=ResponseObject, answer=_RESPONSE, errors=_STORED),
    ("DELETE", "/v1/responses/{response_id}"): Endpoint(
        "Responses", reply=DeletedResponse, answer={"id": "resp_1", "object": "response", "deleted": True}, errors=_STORED
    ),
    ("POST", "/v1/responses/{response_id}/cancel"): Endpoint("Responses", reply=ResponseObject, errors=_STORED),
    ("GET", "/v1/responses/{response_id}/input_items"): Endpoint("Responses", reply=ItemList, errors=_STORED),
    ("GET", "/v1/models"): Endpoint("Models", reply=ModelList, answer={"object": "list", "data": [_CARD]}),
    ("GET", "/v1/models/{model_id}"): Endpoint(
        "Models",
        reply=ModelCard,
        answer=_CARD,
        errors=(*_GET, "NotFound"),
        parameters={"model_id": {"description": "A name or an alias; it may hold slashes.", "example": "mock"}},
    ),
    ("GET", "/health"): Endpoint(
        "Operation",
        reply=Health,
        answer={"status": "ok", "version": "0.1.0"},
        errors=("MethodNotAllowed", "Internal"),
        other_replies={"503": Health},
        security="",
    ),
    ("POST", "/admin/models/{target}"): Endpoint(
        "Operation",
        reply=ModelCard,
        answer=_CARD,
        errors=("BadRequest", "Unauthorized", "Forbidden", "NotFound", "MethodNotAllowed", "Internal", "Unavailable"),
        security="admin",
        parameters={
            "target": {"description": "A model's name, a slash, and `load`, `unload`, `pin` or `unpin`.", "example": "gpt2/load"},
        },
    ),
}
