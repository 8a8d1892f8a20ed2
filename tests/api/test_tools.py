"""Tools in chat bodies: what reaches the backend, what is refused by name, and how calls are sent back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from mm_gateway.core import ChatInput, ChoiceFinished, Message, TextDelta, Tool, ToolCall, ToolCallDelta, ToolUse, Usage
from tests.support.scripted_backend import ScriptedBackend, app_over

F = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"properties": {"a": {"type": "integer"}}}}}
G = {"type": "function", "function": {"name": "g"}}
TOOLS = (Tool("f", "d", {"type": "object", "properties": {"a": {"type": "integer"}}}), Tool("g"))
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
USER = {"role": "user", "content": "Hi"}
ANSWER = [TextDelta(0, "a"), ChoiceFinished(0, "stop"), Usage(1, 1)]
CALLS = [
    TextDelta(0, "Wait."),
    ToolCallDelta(0, 0, id="c1", name="f"),
    ToolCallDelta(0, 0, arguments='{"a"'),
    ToolCallDelta(0, 0, arguments=": 1}"),
    ToolCallDelta(0, 1, id="c2", name="g", arguments="{}"),
    ChoiceFinished(0, "tool_calls"),
    Usage(3, 9),
]


async def post(backend: ScriptedBackend, **body: Any) -> Any:
    async with AsyncTestClient(app_over(backend)) as client:
        return await client.post("/v1/chat/completions", json={"model": "scripted", "messages": [USER]} | body)


def allowed(mode: str, *names: str) -> dict[str, Any]:
    return {
        "type": "allowed_tools",
        "allowed_tools": {"mode": mode, "tools": [{"type": "function", "function": {"name": n}} for n in names]},
    }


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ToolUse(TOOLS)),
        ({"tool_choice": "auto", "parallel_tool_calls": True}, ToolUse(TOOLS)),
        ({"parallel_tool_calls": False}, ToolUse(TOOLS, parallel=False)),
        ({"tool_choice": "none"}, None),
        ({"tool_choice": "required"}, ToolUse(TOOLS, required=True)),
        ({"tool_choice": {"type": "function", "function": {"name": "g"}}}, ToolUse(TOOLS, required=True, only="g", parallel=False)),
        ({"tool_choice": allowed("auto", "g")}, ToolUse(TOOLS[1:], places=(1,))),
        ({"tool_choice": allowed("required", "f", "g")}, ToolUse(TOOLS, required=True)),
    ],
)
async def test_what_may_and_must_be_called_reaches_the_backend(fields: dict[str, Any], expected: ToolUse | None) -> None:
    backend = ScriptedBackend(ANSWER)
    assert (await post(backend, tools=[F, G], **fields)).status_code == 200
    assert isinstance(backend.requests[0].input, ChatInput)
    assert backend.requests[0].input.tools == expected


async def test_calls_and_results_of_the_conversation_reach_the_backend() -> None:
    backend = ScriptedBackend(ANSWER)
    turns = [USER, {"role": "assistant", "tool_calls": [CALL | {"index": 0}]}, {"role": "tool", "tool_call_id": "c1", "content": "2"}]
    assert (await post(backend, messages=turns)).status_code == 200
    assert isinstance(backend.requests[0].input, ChatInput)
    assert backend.requests[0].input.messages[1:] == (
        Message("assistant", "", tool_calls=(ToolCall("c1", "f", '{"a": 1}'),)),
        Message("tool", "2", tool_call_id="c1"),
    )


CALLER = {"role": "assistant", "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "2"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, "tools[0].type"),
        ({"tools": [{"type": "telepathy"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a", "x": 1}}]}, "tools[0].function.x"),
        ({"tools": [F, F]}, "tools[1].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a", "parameters": {"type": "string"}}}]}, "tools[0].function.parameters"),
        ({"tools": [F] * 129}, "tools"),
        ({"tools": [F], "tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": [F], "tool_choice": {"type": "function", "function": {"name": "h"}}}, "tool_choice.function.name"),
        ({"tools": [F], "tool_choice": {"type": "custom"}}, "tool_choice.type"),
        ({"tools": [F], "tool_choice": allowed("auto")}, "tool_choice.allowed_tools.tools"),
        ({"tools": [F], "tool_choice": allowed("auto", "h")}, "tool_choice.allowed_tools.tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"parallel_tool_calls": True}, "parallel_tool_calls"),
        ({"tools": [F], "guided_regex": "a"}, "guided_regex"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"messages": [USER, RESULT]}, "messages[1].tool_call_id"),
        ({"messages": [USER, CALLER]}, "messages[1].tool_calls"),
        ({"messages": [USER, CALLER, USER, RESULT]}, "messages[1].tool_calls"),
        ({"messages": [USER, CALLER, RESULT, RESULT]}, "messages[3].tool_call_id"),
        ({"messages": [USER, CALLER, {"role": "tool", "content": "2"}]}, "messages[2].tool_call_id"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": [CALL]}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "user", "content": "x", "tool_call_id": "c"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "function", "name": "f", "content": "x"}]}, "messages[0].role"),
    ],
)
async def test_what_cannot_be_served_is_named(fields: dict[str, Any], param: str) -> None:
    reply = await post(ScriptedBackend(ANSWER), **fields)
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["param"] == param


async def test_calls_are_part_of_the_message() -> None:
    (choice,) = (await post(ScriptedBackend(CALLS), tools=[F, G])).json()["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant",
        "content": "Wait.",
        "refusal": None,
        "tool_calls": [CALL, {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}}],
    }
    (choice,) = (await post(ScriptedBackend(CALLS[1:]), tools=[F, G])).json()["choices"]
    assert choice["message"]["content"] is None


async def test_a_stream_sends_each_call_with_its_name_first() -> None:
    reply = await post(ScriptedBackend(CALLS), tools=[F, G], stream=True)
    chunks = [json.loads(line.removeprefix("data: ")) for line in reply.text.splitlines() if line.startswith("data: {")]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "Wait."},
        {"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]},
        {"tool_calls": [{"index": 1, "id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}}]},
        {},
    ]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


WEB, GLOBE = {"type": "web_search"}, {"type": "mcp", "server_label": "x"}


@pytest.mark.parametrize("choice", [{}, {"tool_choice": "auto"}, {"tool_choice": "required"}])
async def test_tools_that_only_other_servers_run_are_left_out_and_named(choice: dict[str, Any]) -> None:
    backend = ScriptedBackend(ANSWER)
    reply = await post(backend, tools=[WEB, F, GLOBE, G], **choice)
    assert reply.status_code == 200, reply.text
    assert reply.headers["x-mm-gateway-ignored"] == "tools[0], tools[2]"
    assert isinstance(backend.requests[0].input, ChatInput)
    assert backend.requests[0].input.tools == ToolUse(
        TOOLS, required="tool_choice" in choice and choice["tool_choice"] == "required", places=(1, 3)
    )


async def test_a_conversation_with_nothing_but_such_tools_has_none() -> None:
    backend = ScriptedBackend(ANSWER)
    reply = await post(backend, tools=[WEB], parallel_tool_calls=True, stream=True)
    assert (reply.status_code, reply.headers["x-mm-gateway-ignored"]) == (200, "tools[0]")
    assert isinstance(backend.requests[0].input, ChatInput)
    assert backend.requests[0].input.tools is None


async def test_a_choice_of_such_a_tool_is_refused() -> None:
    reply = await post(ScriptedBackend(ANSWER), tools=[WEB, F], tool_choice={"type": "web_search"})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "tool_choice.type")


async def test_a_function_is_named_by_its_place_in_the_body() -> None:
    reply = await post(ScriptedBackend(ANSWER), tools=[WEB, F, F])
    assert reply.json()["error"]["param"] == "tools[2].function.name"
