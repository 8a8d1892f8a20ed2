"""Tools of `/v1/responses` that are no functions: what a model is told of them, their calls as OpenAI's items, and these in the history."""

from __future__ import annotations

import json
from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from mm_gateway.core import ChatInput, ChoiceFinished, Grammar, Message, TextDelta, ToolCall, ToolCallDelta, ToolUse, Usage
from tests.api.responses.test_streams import stream_of, types, whole
from tests.support.scripted_backend import ScriptedBackend, Step, app_over

LARK = 'start: "a" /[b\\n]+/'
CUSTOM = {"type": "custom", "name": "patch", "description": "Patch.", "format": {"type": "grammar", "syntax": "lark", "definition": LARK}}
GROUP = {
    "type": "namespace",
    "name": "crm",
    "description": "Customers.",
    "tools": [
        {"type": "function", "name": "find", "parameters": {"type": "object", "properties": {}}, "strict": False, "defer_loading": False},
        {"type": "custom", "name": "ask"},
    ],
}
LOCAL, SHELL, PATCH = {"type": "local_shell"}, {"type": "shell", "environment": {"type": "local"}}, {"type": "apply_patch"}
TOOLS = [CUSTOM, GROUP, LOCAL, SHELL, PATCH]
ANSWER: list[Step] = [TextDelta(0, "a"), ChoiceFinished(0, "stop"), Usage(1, 1)]


def called(*calls: tuple[str, str]) -> list[Step]:
    """Arguments come character by character."""
    steps: list[Step] = []
    for number, (name, arguments) in enumerate(calls):
        steps.append(ToolCallDelta(0, number, id=f"c{number}", name=name))
        steps += [ToolCallDelta(0, number, arguments=char) for char in arguments]
    return [*steps, ChoiceFinished(0, "tool_calls"), Usage(3, 9)]


async def asked(**fields: Any) -> tuple[ChatInput, Any]:
    """What reaches the backend, and the reply."""
    backend = ScriptedBackend(ANSWER)
    async with AsyncTestClient(app_over(backend)) as client:
        reply = await client.post("/v1/responses", json={"model": "scripted", "input": "Hi", "tools": TOOLS} | fields)
    assert reply.status_code == 200, reply.text
    input = backend.requests[0].input
    assert isinstance(input, ChatInput)
    return input, reply


async def refused(**fields: Any) -> Any:
    async with AsyncTestClient(app_over(ScriptedBackend(ANSWER))) as client:
        reply = await client.post("/v1/responses", json={"model": "scripted", "input": "Hi"} | fields)
    assert reply.status_code == 400, reply.text
    return reply.json()["error"]["param"]


def tools_of(input: ChatInput) -> ToolUse:
    assert input.tools is not None
    return input.tools


async def test_a_model_is_told_of_functions_of_their_shape() -> None:
    input, reply = await asked()
    use = tools_of(input)
    assert [tool.name for tool in use.tools] == ["patch", "crm__find", "crm__ask", "local_shell", "shell", "apply_patch"]
    assert use.places == (0, 1, 1, 2, 3, 4)
    patch, find = use.tools[:2]
    assert patch.input_grammar == Grammar("lark", LARK, "tools[0].format.definition") and LARK in patch.description
    assert find.description == "Customers."
    assert "x-mm-gateway-ignored" not in reply.headers
    assert reply.json()["tools"][0] == CUSTOM


@pytest.mark.parametrize(
    ("choice", "only"),
    [
        ({"type": "custom", "name": "patch"}, "patch"),
        ({"type": "function", "name": "find", "namespace": "crm"}, "crm__find"),
        ({"type": "local_shell"}, "local_shell"),
        ({"type": "shell"}, "shell"),
        ({"type": "apply_patch"}, "apply_patch"),
    ],
)
async def test_each_can_be_the_choice(choice: dict[str, Any], only: str) -> None:
    assert tools_of((await asked(tool_choice=choice))[0]).only == only


async def test_some_can_be_allowed() -> None:
    choice = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "shell"}, {"type": "custom", "name": "patch"}]}
    assert [tool.name for tool in tools_of((await asked(tool_choice=choice))[0]).tools] == ["patch", "shell"]


async def test_what_openai_would_run_itself_is_left_out_and_named() -> None:
    container = {"type": "shell", "environment": {"type": "container_auto"}}
    input, reply = await asked(tools=[container, {"type": "tool_search"}, PATCH])
    assert [tool.name for tool in tools_of(input).tools] == ["apply_patch"]
    assert reply.headers["x-mm-gateway-ignored"] == "tools[0], tools[1]"
    assert reply.json()["tools"] == [PATCH]


async def test_the_text_of_a_custom_call_is_streamed_as_such() -> None:
    text = 'a"\n\\'
    events = await stream_of(called(("patch", json.dumps({"input": text}))), {"tools": TOOLS})
    assert [name for name in types(events) if name != "custom_tool_call_input.delta"] == [
        "created",
        "in_progress",
        "output_item.added",
        "custom_tool_call_input.done",
        "output_item.done",
        "completed",
    ]
    deltas = [event["delta"] for event in events if event["type"] == "response.custom_tool_call_input.delta"]
    assert deltas == [*text] and events[-3]["input"] == text
    item = events[-2]["item"]
    assert item == {
        "type": "custom_tool_call",
        "id": item["id"],
        "call_id": "c0",
        "name": "patch",
        "input": text,
        "status": "completed",
    }
    assert item["id"].startswith("ctc_") and events[-1]["response"]["output"] == [item]


COMMAND = {"command": ["ls", "-l"], "working_directory": "/tmp", "timeout_ms": 5}
OPERATION = {"type": "update_file", "path": "a", "diff": "@@\n-a\n+b"}


async def test_calls_of_every_kind_are_items_of_their_own_kind() -> None:
    steps = called(
        ("crm__find", "{}"),
        ("crm__ask", '{"input": "who"}'),
        ("local_shell", json.dumps(COMMAND)),
        ("shell", '{"commands": ["ls"]}'),
        ("apply_patch", json.dumps(OPERATION)),
        ("apply_patch", '{"type": "delete_file", "path": "b"}'),
    )
    events = await stream_of(steps, {"tools": TOOLS})
    output = events[-1]["response"]["output"]
    told = [{name: value for name, value in item.items() if name not in ("id", "call_id", "status")} for item in output]
    assert told == [
        {"type": "function_call", "name": "find", "namespace": "crm", "arguments": "{}"},
        {"type": "custom_tool_call", "name": "ask", "namespace": "crm", "input": "who"},
        {"type": "local_shell_call", "action": {"type": "exec", "env": {}, **COMMAND}},
        {"type": "shell_call", "action": {"commands": ["ls"]}},
        {"type": "apply_patch_call", "operation": OPERATION},
        {"type": "apply_patch_call", "operation": {"type": "delete_file", "path": "b"}},
    ]
    assert [item["call_id"] for item in output] == [f"c{number}" for number in range(6)]
    folded = (await whole(steps, tools=TOOLS))["output"]
    assert [{**item, "id": ""} for item in folded] == [{**item, "id": ""} for item in output]


async def test_a_call_that_is_cut_shows_what_there_is_of_it() -> None:
    steps: list[Step] = [*called(("shell", '{"commands": ["ls", "ca'))[:-2], ChoiceFinished(0, "length"), Usage(3, 9)]
    (item,) = (await whole(steps, tools=TOOLS))["output"]
    assert item["status"] == "incomplete" and item["action"]["commands"] == ["ls", "ca"]


COMMANDS = ['ls "a\\b"', "", "echo 'ä\n'"]


@pytest.mark.parametrize("whole_at_once", [False, True])
@pytest.mark.parametrize("arguments", [{"commands": COMMANDS, "timeout_ms": 5}, {"timeout_ms": 5, "commands": COMMANDS}])
async def test_commands_are_streamed_one_by_one(arguments: dict[str, Any], whole_at_once: bool) -> None:
    text = json.dumps(arguments)
    steps = called(("shell", text))
    if whole_at_once:
        steps = [ToolCallDelta(0, 0, id="c0", name="shell", arguments=text), *steps[-2:]]
    events = await stream_of(steps, {"tools": TOOLS})
    told = [event for event in events if "shell_call_command" in event["type"]]
    assert {event["output_index"] for event in told} == {0}
    for number, command in enumerate(COMMANDS):
        kinds = [event for event in told if event["command_index"] == number]
        assert kinds[0]["type"].endswith("added") and kinds[0]["command"] == ""
        assert kinds[-1]["type"].endswith("done") and kinds[-1]["command"] == command
        assert "".join(event["delta"] for event in kinds[1:-1]) == command
    assert [event["command_index"] for event in told] == sorted(event["command_index"] for event in told)
    assert events[-1]["response"]["output"][0]["action"]["commands"] == COMMANDS


@pytest.mark.parametrize("names", [("type", "path", "diff"), ("diff", "path", "type")])
async def test_a_patch_is_told_of_once_its_file_is_known_and_its_diff_is_streamed(names: tuple[str, ...]) -> None:
    text = json.dumps({name: OPERATION[name] for name in names})
    events = await stream_of(called(("apply_patch", text), ("apply_patch", '{"type": "delete_file", "path": "b"}')), {"tools": TOOLS})
    first = [event for event in events if event.get("output_index") == 0]
    assert first[0]["item"]["operation"] == OPERATION | {"diff": ""} and first[0]["item"]["status"] == "in_progress"
    assert {event["type"] for event in first[1:-2]} == {"response.apply_patch_call_operation_diff.delta"}
    assert "".join(event["delta"] for event in first[1:-2]) == first[-2]["diff"] == OPERATION["diff"]
    second = [event for event in events if event.get("output_index") == 1]
    assert [event["type"] for event in second] == ["response.output_item.added", "response.output_item.done"]
    assert second[0]["item"]["operation"] == {"type": "delete_file", "path": "b"}


async def test_items_of_every_kind_can_be_brought_back() -> None:
    """With the ids and statuses of the output, and without them."""
    input, _ = await asked(
        input=[
            {"role": "user", "content": "Hi"},
            {"type": "custom_tool_call", "call_id": "a", "name": "patch", "input": 'x"'},
            {"type": "function_call", "call_id": "b", "name": "find", "namespace": "crm", "arguments": "{}"},
            {
                "type": "local_shell_call",
                "id": "lsh_1",
                "call_id": "c",
                "action": {"type": "exec", "env": {}, **COMMAND},
                "status": "completed",
            },
            {"type": "shell_call", "call_id": "d", "action": {"commands": ["ls"], "timeout_ms": None}, "environment": {"type": "local"}},
            {"type": "apply_patch_call", "call_id": "e", "operation": OPERATION, "status": "completed"},
            {"type": "custom_tool_call_output", "call_id": "a", "output": [{"type": "input_text", "text": "done"}]},
            {"type": "function_call_output", "call_id": "b", "output": "none"},
            {"type": "local_shell_call_output", "id": "lsh_1", "output": "total 0"},
            {
                "type": "shell_call_output",
                "call_id": "d",
                "output": [
                    {"stdout": "a\n", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}},
                    {"stdout": "", "stderr": "no\n", "outcome": {"type": "exit", "exit_code": 2}},
                    {"stdout": "", "stderr": "", "outcome": {"type": "timeout"}},
                ],
            },
            {"type": "apply_patch_call_output", "call_id": "e", "status": "failed", "output": "No such line"},
        ]
    )
    assert input.messages[1:] == (
        Message(
            "assistant",
            "",
            tool_calls=(
                ToolCall("a", "patch", '{"input": "x\\""}'),
                ToolCall("b", "crm__find", "{}"),
                ToolCall("c", "local_shell", json.dumps(COMMAND)),
                ToolCall("d", "shell", '{"commands": ["ls"]}'),
                ToolCall("e", "apply_patch", json.dumps(OPERATION)),
            ),
        ),
        Message("tool", "done", tool_call_id="a"),
        Message("tool", "none", tool_call_id="b"),
        Message("tool", "total 0", tool_call_id="c"),
        Message("tool", "a\nno\n(exit status 2)\n(stopped: it took too long)", tool_call_id="d"),
        Message("tool", "No such line", tool_call_id="e"),
    )


async def test_a_stored_response_goes_on_from_calls_of_every_kind() -> None:
    backend = ScriptedBackend(called(("patch", '{"input": "a"}'), ("local_shell", '{"command": ["ls"]}')))
    async with AsyncTestClient(app_over(backend)) as client:
        first = (await client.post("/v1/responses", json={"model": "scripted", "input": "Hi", "tools": TOOLS})).json()
        outputs = [
            {"type": "custom_tool_call_output", "call_id": "c0", "output": "1"},
            {"type": "local_shell_call_output", "call_id": "c1", "output": "2"},
        ]
        body = {"model": "scripted", "previous_response_id": first["id"], "input": outputs, "tools": TOOLS}
        second = await client.post("/v1/responses", json=body)
        assert second.status_code == 200, second.text
        listed = (await client.get(f"/v1/responses/{second.json()['id']}/input_items?order=asc")).json()["data"]
    kinds = ["message", "custom_tool_call", "local_shell_call", "custom_tool_call_output", "local_shell_call_output"]
    assert [item["type"] for item in listed] == kinds
    input = backend.requests[1].input
    assert isinstance(input, ChatInput) and [message.content for message in input.messages[2:]] == ["1", "2"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "custom"}]}, "tools[0].name"),
        ({"tools": [{"type": "custom", "name": "a", "format": {"type": "grammar", "syntax": "lark"}}]}, "tools[0].format.definition"),
        ({"tools": [{"type": "namespace", "name": "a", "tools": [{"type": "shell"}]}]}, "tools[0].tools[0].type"),
        ({"tools": [{"type": "namespace", "name": "a" * 60, "tools": [{"type": "custom", "name": "long"}]}]}, "tools[0].tools[0].name"),
        ({"tools": [{"type": "namespace", "name": "a"}]}, "tools[0].tools"),
        ({"tools": [LOCAL, {"type": "custom", "name": "local_shell"}]}, "tools[1].name"),
        ({"tools": [LOCAL], "tool_choice": {"type": "shell"}}, "tool_choice.type"),
        ({"tools": [LOCAL], "tool_choice": {"type": "custom"}}, "tool_choice.name"),
        ({"input": [{"type": "custom_tool_call", "call_id": "a", "name": "b"}]}, "input[0].input"),
        ({"input": [{"type": "local_shell_call_output", "output": "b"}]}, "input[0].call_id"),
        ({"input": [{"type": "shell_call_output", "call_id": "x", "output": []}]}, "input"),
    ],
)
async def test_what_is_wrong_is_named(fields: dict[str, Any], param: str) -> None:
    assert await refused(**fields) == param
