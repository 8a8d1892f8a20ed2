"""What of a body is left out is named in a header: unknown fields where `server.unknown_fields` says so, tools that nobody here runs."""

from __future__ import annotations

from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from mm_gateway.core import ChatInput, ChoiceFinished, TextDelta, ToolUse, Usage
from tests.support.scripted_backend import ScriptedBackend, app_over

ANSWER = [TextDelta(0, "a"), ChoiceFinished(0, "stop"), Usage(1, 1)]
FUNCTION = {"name": "f", "cache": 1, "parameters": {"type": "object", "any_keyword": 1}}
CHAT: dict[str, Any] = {
    "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}], "thinking": "x"}],
    "tools": [{"type": "function", "function": FUNCTION}],
    "stream_options": {"include_usage": True, "every": 2},
    "stream": True,
    "logit_bias": {"5": 1},
    "client_metadata": {"a": "b"},
}
COMPLETION = {"prompt": "Hi", "client_metadata": 1}
RESPONSE = {
    "input": [{"role": "user", "content": [{"type": "input_text", "text": "Hi", "cache": 1}], "thinking": "x"}],
    "tools": [{"type": "function", **FUNCTION}],
    "text": {"format": {"type": "text"}, "tone": "kind"},
    "zeal": 1,
}
EMBEDDING = {"input": "Hi", "task": "query"}

BODIES = [
    ("/v1/chat/completions", CHAT, {"messages[0].thinking", "tools[0].function.cache", "stream_options.every", "client_metadata"}),
    ("/v1/completions", COMPLETION, {"client_metadata"}),
    ("/v1/responses", RESPONSE, {"input[0].content[0].cache", "input[0].thinking", "tools[0].cache", "text.tone", "zeal"}),
    ("/v1/embeddings", EMBEDDING, {"task"}),
]


@pytest.mark.parametrize(("path", "body", "ignored"), BODIES, ids=lambda value: value if isinstance(value, str) else "")
async def test_unknown_fields_are_left_out_and_named_where_told_so(path: str, body: dict[str, Any], ignored: set[str]) -> None:
    async with AsyncTestClient(app_over(ScriptedBackend(ANSWER), unknown_fields="ignore")) as client:
        reply = await client.post(path, json={"model": "scripted", **body})
    assert reply.status_code == 200, reply.text
    assert set(reply.headers["x-mm-gateway-ignored"].split(", ")) == ignored


@pytest.mark.parametrize(("path", "body", "ignored"), BODIES, ids=lambda value: value if isinstance(value, str) else "")
async def test_unknown_fields_are_refused_by_name_unless_told_so(path: str, body: dict[str, Any], ignored: set[str]) -> None:
    async with AsyncTestClient(app_over(ScriptedBackend(ANSWER))) as client:
        reply = await client.post(path, json={"model": "scripted", **body})
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] in ignored


@pytest.mark.parametrize("fields", [{"temperature": 5}, {"messages": [{"role": "nobody", "content": "x"}]}, {"audio": {}}])
async def test_whatever_is_ignored_what_is_known_is_checked(fields: dict[str, Any]) -> None:
    async with AsyncTestClient(app_over(ScriptedBackend(ANSWER), unknown_fields="ignore")) as client:
        reply = await client.post("/v1/chat/completions", json={"model": "scripted", "zeal": 1, **CHAT, **fields})
    assert reply.status_code == 400
    assert reply.json()["error"]["param"].startswith(next(iter(fields)))


async def test_a_header_is_bounded_however_many_fields_there_are() -> None:
    async with AsyncTestClient(app_over(ScriptedBackend(ANSWER), unknown_fields="ignore")) as client:
        body = {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}]} | {f"\n{index}é": 1 for index in range(5000)}
        reply = await client.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200
    assert len(reply.headers["x-mm-gateway-ignored"]) == 4096


async def test_tools_that_no_model_here_can_be_given_are_left_out_and_named() -> None:
    codex = [
        {"type": "function", **FUNCTION, "cache": None},
        {"type": "tool_search"},
        {"type": "web_search"},
        {"type": "image_generation"},
    ]
    backend = ScriptedBackend(ANSWER)
    async with AsyncTestClient(app_over(backend)) as client:
        body = {"model": "scripted", "input": "Hi", "tools": codex, "tool_choice": "auto", "parallel_tool_calls": True}
        reply = await client.post("/v1/responses", json=body)
    assert reply.status_code == 200, reply.text
    assert reply.headers["x-mm-gateway-ignored"] == "tools[1], tools[2], tools[3]"
    assert [tool["name"] for tool in reply.json()["tools"]] == ["f"]
    assert isinstance(backend.requests[0].input, ChatInput)
    assert [tool.name for tool in (backend.requests[0].input.tools or ToolUse(())).tools] == ["f"]
