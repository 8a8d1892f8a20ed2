"""What bodies of `/v1/messages` become: a conversation, and what may be called; what is left out is named."""

from __future__ import annotations

from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from mm_gateway.api.access.keys import unnamed_keys
from mm_gateway.core import ChatInput, ChoiceFinished, GenerationRequest, Message, TextDelta, ToolCall, Usage
from tests.support.scripted_backend import ScriptedBackend, app_over

ANSWER = [TextDelta(0, "a"), ChoiceFinished(0, "stop"), Usage(1, 1)]
HI: dict[str, Any] = {"role": "user", "content": "Hi"}
BODY: dict[str, Any] = {"model": "scripted", "max_tokens": 100, "messages": [HI]}
F: dict[str, Any] = {"name": "f", "description": "d", "input_schema": {"type": "object", "properties": {"a": {"type": "integer"}}}}
THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "of another server"}
CALL: dict[str, Any] = {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}}


async def asked(ignored: str | None = None, /, **fields: Any) -> GenerationRequest:
    backend = ScriptedBackend(ANSWER)
    async with AsyncTestClient(app_over(backend)) as client:
        reply = await client.post("/v1/messages?beta=true", json=BODY | fields)
    assert reply.status_code == 200, reply.text
    assert reply.headers.get("x-mm-gateway-ignored") == ignored
    return backend.requests[0]


async def refused(**fields: Any) -> str:
    async with AsyncTestClient(app_over(ScriptedBackend(ANSWER))) as client:
        reply = await client.post("/v1/messages", json=BODY | fields)
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["type"] == "invalid_request_error"
    return reply.json()["error"]["message"]


def chat(request: GenerationRequest) -> ChatInput:
    assert isinstance(request.input, ChatInput)
    return request.input


async def conversation(*turns: Any, ignored: str | None = None, **fields: Any) -> list[Message]:
    return list(chat(await asked(ignored, messages=list(turns), **fields)).messages)


def result(content: Any = None, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": content, **more}]}


async def test_limits_and_sampling_are_passed_on() -> None:
    config = (await asked(temperature=0.5, top_p=0.9, top_k=5, stop_sequences=["x"], seed=3, metadata={"user_id": "u"})).config
    assert (config.max_new_tokens, config.clamp_to_context) == (100, True)
    assert (config.temperature, config.top_p, config.top_k, config.stop, config.seed) == (0.5, 0.9, 5, ("x",), 3)


async def test_the_system_prompt_is_a_text_or_blocks_without_what_is_for_anthropics_accounts() -> None:
    assert await conversation(HI, system="Be brief.") == [Message("system", "Be brief."), Message("user", "Hi")]
    blocks = [
        {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1; cch=1f;"},
        {"type": "text", "text": "Be", "cache_control": {"type": "ephemeral", "scope": "global"}},
        {"type": "text", "text": "brief."},
    ]
    assert (await conversation(HI, system=blocks, ignored="system[0]"))[0] == Message("system", "Be\nbrief.")


async def test_turns_of_one_role_are_one_and_a_system_message_stays_in_its_place() -> None:
    assert await conversation(HI, HI, {"role": "system", "content": "Now brief."}, {"role": "assistant", "content": "a"}, HI) == [
        Message("user", "Hi\nHi"),
        Message("system", "Now brief."),
        Message("assistant", "a"),
        Message("user", "Hi"),
    ]


async def test_calls_and_their_results_become_messages_in_their_order() -> None:
    second = CALL | {"id": "c2", "input": {}}
    turns = [
        HI,
        {
            "role": "assistant",
            "content": [THOUGHT, {"type": "text", "text": "T"}, CALL, second],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c2", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
                {
                    "type": "tool_result",
                    "tool_use_id": "c1",
                    "is_error": True,
                    "content": "no such file",
                    "cache_control": {"type": "ephemeral"},
                },
                {"type": "text", "text": "Go on."},
            ],
        },
    ]
    calls = (ToolCall("c1", "f", '{"a":1}'), ToolCall("c2", "f", "{}"))
    assert await conversation(*turns, tools=[F]) == [
        Message("user", "Hi"),
        Message("assistant", "T", tool_calls=calls, reasoning="Hm."),
        Message("tool", "one\ntwo", tool_call_id="c2"),
        Message("tool", "Error: no such file", tool_call_id="c1"),
        Message("user", "Go on."),
    ]


async def test_calls_and_results_have_to_fit() -> None:
    called = {"role": "assistant", "content": [CALL]}
    assert "without `tool_result` blocks immediately after: c1" in await refused(messages=[HI, called])
    assert "without `tool_result` blocks immediately after: c1" in await refused(messages=[HI, called, HI])
    assert "unexpected `tool_use_id`" in await refused(messages=[HI, result("x")])
    assert "must be unique" in await refused(messages=[HI, {"role": "assistant", "content": [CALL, CALL]}, result("x")])


async def test_documents_and_search_results_are_read_as_text() -> None:
    document = {"type": "document", "title": "T", "source": {"type": "text", "media_type": "text/plain", "data": "D"}}
    parts = {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "P"}]}}
    found = {"type": "search_result", "source": "https://a.example", "title": "S", "content": [{"type": "text", "text": "R"}]}
    (message,) = await conversation({"role": "user", "content": [document, parts, found]})
    assert message.content == (
        '<document title="T">\nD\n</document>\n<document>\nP\n</document>\n<document title="S" source="https://a.example">\nR\n</document>'
    )


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}


async def test_what_a_model_of_text_cannot_read_is_refused_by_name() -> None:
    assert "messages[0].content[0]: this model cannot read images" in await refused(messages=[{"role": "user", "content": [IMAGE]}])
    called = [HI, {"role": "assistant", "content": [CALL]}, result([IMAGE])]
    assert "messages[2].content[0].content[0]: this model cannot read images" in await refused(messages=called)
    pdf = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}}
    assert "not 'base64'" in await refused(messages=[{"role": "user", "content": [pdf]}])
    assert "'container_upload'" in await refused(messages=[{"role": "user", "content": [{"type": "container_upload", "file_id": "f"}]}])


async def test_what_other_servers_thought_and_ran_is_left_out_and_named_where_it_cannot_be_read() -> None:
    content = [
        {"type": "redacted_thinking", "data": "x"},
        {"type": "thinking", "thinking": "", "signature": "mmg2.AAAA"},
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
        {"type": "text", "text": "a"},
    ]
    named = ", ".join(f"messages[1].content[{index}]" for index in range(4))
    messages = await conversation(HI, {"role": "assistant", "content": content}, HI, ignored=named)
    assert messages[1] == Message("assistant", "a")


async def test_a_turn_of_the_assistant_at_the_end_is_gone_on_with() -> None:
    request = chat(await asked(messages=[HI, {"role": "assistant", "content": "I am"}]))
    assert request.rendering.continue_final_message and not request.rendering.add_generation_prompt


@pytest.mark.parametrize(
    ("choice", "required", "only", "parallel"),
    [
        (None, False, None, True),
        ({"type": "auto", "disable_parallel_tool_use": True}, False, None, False),
        ({"type": "any"}, True, None, True),
        ({"type": "tool", "name": "f"}, True, "f", False),
    ],
)
async def test_choices_of_tools(choice: Any, required: bool, only: str | None, parallel: bool) -> None:
    use = chat(await asked(tools=[F, {**F, "name": "g", "type": "custom"}], tool_choice=choice)).tools
    assert use is not None and [tool.name for tool in use.tools] == ["f", "g"]
    assert (use.required, use.only, use.parallel) == (required, only, parallel)
    assert use.tools[0].parameters == F["input_schema"] and use.tools[0].description == "d"


async def test_no_tool_may_be_used_where_none_is_chosen() -> None:
    assert chat(await asked(tools=[F], tool_choice={"type": "none"})).tools is None


async def test_tools_that_clients_run_are_functions_of_their_documented_shape() -> None:
    tools = [
        {"type": "bash_20250124", "name": "bash"},
        {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"},
        {"type": "memory_20250818", "name": "memory"},
    ]
    use = chat(await asked(tools=tools, tool_choice={"type": "tool", "name": "bash"})).tools
    assert use is not None and [tool.name for tool in use.tools] == ["bash", "str_replace_based_edit_tool", "memory"]
    assert set((use.tools[0].parameters or {})["properties"]) == {"command", "restart"}
    assert (use.tools[1].parameters or {})["properties"]["command"]["enum"] == ["view", "create", "str_replace", "insert"]


async def test_tools_that_only_anthropics_servers_run_are_left_out_and_named_and_refused_where_they_have_to_be_used() -> None:
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 5}
    use = chat(await asked("tools[0]", tools=[search, F])).tools
    assert use is not None and [tool.name for tool in use.tools] == ["f"]
    assert chat(await asked("tools[0]", tools=[search])).tools is None
    assert "web_search_20250305" in await refused(tools=[search], tool_choice={"type": "any"})
    assert "web_search_20250305" in await refused(tools=[search, F], tool_choice={"type": "tool", "name": "web_search"})


async def test_a_tool_has_to_be_whole() -> None:
    assert "tools[0].input_schema" in await refused(tools=[{"name": "f"}])
    assert "tools[0].name" in await refused(tools=[{**F, "name": "a b"}])
    assert "'nonsense'" in await refused(tools=[{**F, "type": "nonsense"}])
    assert "not found" in await refused(tools=[F], tool_choice={"type": "tool", "name": "g"})
    assert (await asked(tools=[{**F, "name": "m" * 128}])).input is not None


@pytest.mark.parametrize(
    ("fields", "effort", "budget"),
    [
        ({}, None, None),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}, "high", None),
        ({"thinking": {"type": "enabled", "budget_tokens": 50}}, None, 50),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "high"}}, "none", None),
        ({"output_config": {"effort": "max"}}, "xhigh", None),
    ],
)
async def test_thinking(fields: dict[str, Any], effort: str | None, budget: int | None) -> None:
    reasoning = chat(await asked(**fields)).reasoning
    assert (reasoning.effort, reasoning.thinking_budget) == (effort, budget)


async def test_a_budget_of_thought_leaves_room_for_the_answer() -> None:
    assert "thinking.budget_tokens" in await refused(thinking={"type": "enabled", "budget_tokens": 100})
    assert "thinking.budget_tokens" in await refused(thinking={"type": "enabled"})


async def test_a_format_is_a_grammar() -> None:
    format = {"type": "json_schema", "schema": {"type": "object"}}
    for fields in ({"output_config": {"format": format}}, {"output_format": format}):
        grammar = (await asked(**fields)).config.grammar
        assert grammar is not None and (grammar.kind, grammar.text) == ("json_schema", '{"type":"object"}')


async def test_what_claude_code_sends_is_accepted_and_what_would_change_the_reply_is_named() -> None:
    keep = {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}
    await asked(context_management=keep, service_tier="auto", cache_control={"type": "ephemeral"}, betas=["x"])
    clear = {"edits": [{"type": "clear_thinking_20251015"}, {"type": "clear_tool_uses_20250919"}]}
    await asked("context_management.edits[1]", context_management=clear)
    await asked("output_config.task_budget", output_config={"effort": "low", "task_budget": {"type": "tokens", "total": 5}})
    assert "thread" in await refused(thread={"id": "t"})
    assert "nonsense" in await refused(nonsense=1)


async def test_a_key_is_taken_from_x_api_key_too() -> None:
    app = app_over(ScriptedBackend(ANSWER), keys=unnamed_keys(["right"]))
    async with AsyncTestClient(app) as client:
        assert (await client.post("/v1/messages", json=BODY, headers={"x-api-key": "right"})).status_code == 200
        assert (await client.post("/v1/messages", json=BODY, headers={"authorization": "Bearer right"})).status_code == 200
        for headers in ({"x-api-key": "wrong"}, {}):
            reply = await client.post("/v1/messages", json=BODY, headers=headers)
            assert (reply.status_code, reply.json()["error"]["type"]) == (401, "authentication_error")
