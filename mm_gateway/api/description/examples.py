"""What the API's description shows: questions that several requests ask, and replies."""

from __future__ import annotations

from typing import Any

import msgspec

HELLO = [{"role": "user", "content": "Hello!"}]
CLOCK: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "The time in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
_HEAD = {"id": "chatcmpl-1", "created": 1764000000, "model": "mock", "system_fingerprint": "fp_mm_gateway"}
_USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
_OUTPUT: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "the model", "annotations": [], "logprobs": []}],
}
RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1764000000,
    "status": "completed",
    "model": "mock",
    "output": [_OUTPUT],
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
COMPACTED: dict[str, Any] = {
    "id": "resp_1",
    "object": "response.compaction",
    "created_at": 1764000000,
    "output": [
        {"type": "message", "id": "msg_1", "role": "user", "status": "completed", "content": [{"type": "input_text", "text": "Hello!"}]},
        {"type": "compaction", "id": "cmp_1", "encrypted_content": "AQ…"},
    ],
    "usage": RESPONSE["usage"],
}
CARD: dict[str, Any] = {
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


CHAT: dict[str, Any] = {
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
}
CHAT_STREAM = _stream(
    "chat.completion.chunk",
    {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None},
    {"index": 0, "delta": {"content": "Hello!"}, "logprobs": None, "finish_reason": None},
    {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"},
)
COMPLETION: dict[str, Any] = {
    **_HEAD,
    "id": "cmpl-1",
    "object": "text_completion",
    "choices": [{"index": 0, "text": " there was", "finish_reason": "length", "logprobs": None}],
    "usage": _USAGE,
}
COMPLETION_STREAM = _stream("text_completion", {"index": 0, "text": " there was", "logprobs": None, "finish_reason": "length"})
EMBEDDINGS: dict[str, Any] = {
    "object": "list",
    "model": "mock",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.6, -0.8]}],
    "usage": {"prompt_tokens": 4, "total_tokens": 4},
}
MESSAGE: dict[str, Any] = {
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
}
