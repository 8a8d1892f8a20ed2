"""Bodies that are as large as somebody wants them, for the endpoints that generate."""

from __future__ import annotations

from typing import Any

from mm_gateway.core.limits import MAX_TOOL_CALLS

USER = {"role": "user", "content": "Hi"}
CHAT, TEXT, RESPONSES, VECTORS = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings"
SENT = {CHAT: {"messages": [USER]}, TEXT: {"prompt": "Hi"}, RESPONSES: {"input": "Hi"}, VECTORS: {"input": "Hi"}, "/detokenize": {}}
"""What each endpoint needs at least, besides the model."""


def call(id: str, arguments: str = "{}") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": "f", "arguments": arguments}}


def calls(count: int, per_message: int = MAX_TOOL_CALLS) -> list[dict[str, Any]]:
    """A conversation with so many calls, each message's results in reverse order."""
    turns: list[dict[str, Any]] = [USER]
    for begin in range(0, count, per_message):
        ids = [f"call_{index}" for index in range(begin, min(begin + per_message, count))]
        turns.append({"role": "assistant", "tool_calls": [call(id) for id in ids]})
        turns += [{"role": "tool", "tool_call_id": id, "content": "1"} for id in reversed(ids)]
    return turns


def function_items(count: int) -> list[dict[str, Any]]:
    return [
        item
        for index in range(count)
        for item in (
            {"type": "function_call", "call_id": f"c{index}", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": f"c{index}", "output": "1"},
        )
    ]


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value
