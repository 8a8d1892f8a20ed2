"""Bodies of `/v1/responses`: what reaches the backend, what is echoed, and what is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from litestar.testing import AsyncTestClient
from openai.types.responses import Response

from mm_gateway.core import (
    ChatInput,
    ChoiceFinished,
    GenerationConfig,
    Grammar,
    Message,
    TextDelta,
    Tool,
    ToolCall,
    ToolUse,
    Usage,
)
from mm_gateway.errors import ContextLengthExceededError, GatewayError, InvalidRequestError, UpstreamError
from tests.support.scripted_backend import ScriptedBackend, app_over

ANSWER = [TextDelta(0, "a"), ChoiceFinished(0, "stop"), Usage(1, 1)]
BODY: dict[str, Any] = {"model": "scripted", "input": "Hi", "store": False}
F = {"type": "function", "name": "f", "description": "d", "parameters": {"properties": {"a": {"type": "integer"}}}}
G = {"type": "function", "name": "g", "strict": False, "parameters": None}
TOOLS = (Tool("f", "d", {"type": "object", "properties": {"a": {"type": "integer"}}}), Tool("g"))
USER = {"role": "user", "content": "Hi"}
CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a": 1}'}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "2"}


async def post(backend: ScriptedBackend, **fields: Any) -> Any:
    async with AsyncTestClient(app_over(backend)) as client:
        return await client.post("/v1/responses", json=BODY | fields)


async def chat_of(**fields: Any) -> ChatInput:
    """The conversation that reaches the backend."""
    backend = ScriptedBackend(ANSWER)
    reply = await post(backend, **fields)
    assert reply.status_code == 200, reply.text
    assert isinstance(backend.requests[0].input, ChatInput)
    return backend.requests[0].input


async def test_a_text_is_a_users_message_after_the_instructions() -> None:
    assert (await chat_of()).messages == (Message("user", "Hi"),)
    assert (await chat_of(instructions="Be brief.")).messages == (Message("system", "Be brief."), Message("user", "Hi"))


async def test_items_become_the_messages_of_a_conversation() -> None:
    items = [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
        USER,
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "phase": None,
            "content": [
                {"type": "output_text", "text": "Wait.", "annotations": [], "logprobs": None},
                {"type": "refusal", "refusal": " No."},
            ],
        },
        CALL | {"id": "fc_1", "status": "completed", "caller": None},
        CALL | {"call_id": "c2", "name": "g", "arguments": "{}"},
        RESULT | {"call_id": "c2", "output": [{"type": "input_text", "text": "x"}, {"type": "input_text", "text": "y"}]},
        RESULT,
        CALL | {"call_id": "c3"},
        RESULT | {"call_id": "c3"},
        USER,
    ]
    assert (await chat_of(input=items)).messages == (
        Message("developer", "a\nb"),
        Message("user", "Hi"),
        Message("assistant", "Wait.\n No.", tool_calls=(ToolCall("c1", "f", '{"a": 1}'), ToolCall("c2", "g", "{}"))),
        Message("tool", "x\ny", tool_call_id="c2"),
        Message("tool", "2", tool_call_id="c1"),
        Message("assistant", "", tool_calls=(ToolCall("c3", "f", '{"a": 1}'),)),
        Message("tool", "2", tool_call_id="c3"),
        Message("user", "Hi"),
    )


async def test_results_that_come_late_follow_their_calls() -> None:
    messages = (await chat_of(input=[CALL, USER, RESULT])).messages
    assert [message.role for message in messages] == ["assistant", "tool", "user"]


def allowed(mode: str, *names: str) -> dict[str, Any]:
    return {"type": "allowed_tools", "mode": mode, "tools": [{"type": "function", "name": name} for name in names]}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ToolUse(TOOLS)),
        ({"parallel_tool_calls": False}, ToolUse(TOOLS, parallel=False)),
        ({"tool_choice": "none"}, None),
        ({"tool_choice": "required"}, ToolUse(TOOLS, required=True)),
        ({"tool_choice": {"type": "function", "name": "g"}}, ToolUse(TOOLS, required=True, only="g", parallel=False)),
        ({"tool_choice": allowed("auto", "g")}, ToolUse(TOOLS[1:], places=(1,))),
        ({"tool_choice": allowed("required", "f", "g")}, ToolUse(TOOLS, required=True)),
    ],
)
async def test_what_may_and_must_be_called_reaches_the_backend_and_is_echoed(fields: dict[str, Any], expected: ToolUse | None) -> None:
    backend = ScriptedBackend(ANSWER)
    reply = await post(backend, tools=[F, G | {"defer_loading": False}], **fields)
    assert isinstance(backend.requests[0].input, ChatInput)
    assert backend.requests[0].input.tools == expected
    parsed = Response.model_validate(reply.json())
    assert [tool.name for tool in parsed.tools if tool.type == "function"] == ["f", "g"]
    assert [tool.strict for tool in parsed.tools if tool.type == "function"] == [True, False]
    assert reply.json()["tool_choice"] == fields.get("tool_choice", "auto")
    assert parsed.parallel_tool_calls is fields.get("parallel_tool_calls", True)


async def test_parameters_reach_the_backend() -> None:
    backend = ScriptedBackend(ANSWER)
    own = {"temperature": 0.5, "top_p": 0.9, "top_k": 3, "min_p": 0.1, "seed": 7, "repetition_penalty": 1.2, "stop": "x"}
    own |= {"presence_penalty": 0.5, "frequency_penalty": -0.5, "ignore_eos": True, "logit_bias": {"5": 1.0}}
    more = {"max_output_tokens": 9, "top_logprobs": 2, "include": ["message.output_text.logprobs"], "keep_alive": "1m", "user": "u"}
    assert (await post(backend, **own, **more, workflow={"a": [1]}, metadata={"k": "v"})).status_code == 200
    (request,) = backend.requests
    own |= {"stop": ("x",), "logit_bias": {5: 1.0}}
    assert request.config == GenerationConfig(max_new_tokens=9, logprobs=2, **own)
    assert (request.keep_alive, request.user, request.workflow, request.metadata) == (60.0, "u", {"a": [1]}, {"k": "v"})


@pytest.mark.parametrize(("given", "truncate"), [(None, False), ("disabled", False), ("auto", True)])
async def test_truncation_is_up_to_the_request_and_off_by_default(given: str | None, truncate: bool) -> None:
    assert (await chat_of(truncation=given)).truncate is truncate


SCHEMA = {"type": "object", "properties": {}}


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, Grammar("json_object", param="text.format")),
        (
            {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True},
            Grammar("json_schema", json.dumps(SCHEMA, separators=(",", ":")), "text.format.schema"),
        ),
    ],
)
async def test_the_text_format_constrains_and_is_echoed(form: dict[str, Any], expected: Grammar | None) -> None:
    backend = ScriptedBackend(ANSWER)
    reply = await post(backend, text={"format": form})
    assert backend.requests[0].config.grammar == expected
    assert reply.json()["text"]["format"] == form
    Response.model_validate(reply.json())


async def test_what_has_no_effect_is_accepted_and_null_is_absence() -> None:
    backend = ScriptedBackend(ANSWER)
    body = {"safety_identifier": "s", "prompt_cache_key": "p", "service_tier": "auto", "background": False, "reasoning": {"effort": None}}
    body |= {"tools": None, "tool_choice": None, "metadata": None, "text": None, "stream": None, "max_tool_calls": 3}
    body |= {"include": ["reasoning.encrypted_content"], "parallel_tool_calls": False, "conversation": None, "previous_response_id": None}
    reply = await post(backend, **body)
    assert reply.status_code == 200, reply.text
    parsed = Response.model_validate(reply.json())
    assert (parsed.safety_identifier, parsed.prompt_cache_key, parsed.service_tier) == ("s", "p", "default")
    assert backend.requests[0].config == GenerationConfig()


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"input": None}, "input", "missing_required_parameter"),
        ({"input": []}, "input", "empty_array"),
        ({"input": 3}, "input", None),
        ({"nonsense": 1}, "nonsense", None),
        ({"messages": [USER]}, "messages", None),
        ({"input": [{"role": "robot", "content": "a"}]}, "input[0].role", None),
        ({"input": [USER, {"role": "user"}]}, "input[1].content", None),
        ({"input": [USER | {"colour": "b"}]}, "input[0].colour", None),
        ({"input": [{}]}, "input[0].role", None),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input[0].content[0].type",
            "unsupported_value",
        ),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0].type", "unsupported_value"),
        ({"input": [{"role": "user", "content": [{"type": ["x"]}]}]}, "input[0].content[0].type", "unsupported_value"),
        ({"input": [{"role": "user", "content": [{"type": "output_text", "text": "a"}]}]}, "input[0].content[0].type", "invalid_value"),
        ({"input": [{"role": "user", "content": [{"text": "a"}]}]}, "input[0].content[0].type", None),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": 1}]}]}, "input[0].content[0].text", None),
        ({"input": [USER | {"id": "i" * 65}]}, "input[0].id", None),
        ({"input": [USER | {"id": "i"}, USER | {"id": "i"}]}, "input", None),
        ({"input": [{"type": "computer_call", "id": "x"}]}, "input[0].type", "unsupported_value"),
        ({"input": [{"type": {}}]}, "input[0].type", "unsupported_value"),
        ({"input": [CALL]}, "input", None),
        ({"input": [RESULT]}, "input", None),
        ({"input": [CALL, CALL, RESULT, RESULT]}, "input", None),
        ({"input": [CALL, RESULT, RESULT]}, "input", None),
        ({"input": [CALL, RESULT | {"output": [{"type": "input_image"}]}]}, "input[1].output[0].type", "unsupported_value"),
        ({"temperature": 2.5}, "temperature", None),
        ({"max_output_tokens": 0}, "max_output_tokens", None),
        ({"top_logprobs": 21}, "top_logprobs", None),
        ({"include": ["everything"]}, "include[0]", None),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata", None),
        ({"metadata": {"a": "b" * 513}}, "metadata", None),
        ({"max_tool_calls": 0}, "max_tool_calls", None),
        ({"truncation": "some"}, "truncation", None),
        ({"stream_options": {}}, "stream_options", None),
        ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, "tools[0].type", "unsupported_value"),
        ({"tools": [{"name": "f"}]}, "tools[0].type", None),
        ({"tools": [{"type": {"a": 1}, "name": "f"}]}, "tools[0].type", None),
        (
            {"tools": [{"type": "function", "name": "f", "parameters": {"type": "object", "maximum": 2**64}}]},
            "tools[0].parameters.maximum",
            None,
        ),
        (
            {"text": {"format": {"type": "json_schema", "name": "f", "schema": {"properties": 10**30}}}},
            "text.format.schema.properties",
            None,
        ),
        ({"tools": [{"type": "function"}]}, "tools[0].name", None),
        ({"tools": [F | {"function": {}}]}, "tools[0].function", None),
        ({"tools": [F | {"defer_loading": True}]}, "tools[0].defer_loading", None),
        ({"tools": [F | {"name": "a b"}]}, "tools[0].name", None),
        ({"tools": [F | {"parameters": {"type": "string"}}]}, "tools[0].parameters", "invalid_function_parameters"),
        ({"tools": [F, F]}, "tools[1].name", None),
        ({"tool_choice": "required"}, "tool_choice", None),
        ({"tools": [F], "tool_choice": "sometimes"}, "tool_choice", None),
        ({"tools": [F], "tool_choice": {"type": "function"}}, "tool_choice.name", None),
        ({"tools": [F], "tool_choice": {"type": "function", "name": "h"}}, "tool_choice.name", None),
        ({"tools": [F], "tool_choice": {"type": "file_search"}}, "tool_choice.type", "unsupported_value"),
        ({"tools": [F], "tool_choice": {"type": "allowed_tools"}}, "tool_choice.mode", None),
        ({"tools": [F], "tool_choice": allowed("auto", "h")}, "tool_choice.tools", None),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type", None),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema", None),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name", None),
        ({"text": {"verbosity": ""}}, "text.verbosity", None),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort", None),
        ({"reasoning": {"summary": "rhymed"}}, "reasoning.summary", None),
        ({"background": True, "store": False}, "store", None),
        ({"conversation": "conv_1"}, "conversation", "unsupported_parameter"),
        ({"prompt": {"id": "p"}}, "prompt", "unsupported_parameter"),
        ({"moderation": {"model": "m"}}, "moderation", "unsupported_parameter"),
        ({"context_management": [{"type": "compaction"}]}, "context_management", "unsupported_parameter"),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_what_cannot_be_served_is_named(fields: dict[str, Any], param: str, code: str | None) -> None:
    backend = ScriptedBackend(ANSWER)
    reply = await post(backend, **fields)
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert (error["param"], error["code"], error["type"]) == (param, code, "invalid_request_error")
    assert backend.requests == []


@pytest.mark.parametrize(
    ("error", "param"),
    [
        (ContextLengthExceededError(8, 9), "input"),
        (InvalidRequestError("x", param="messages[0].content"), "input"),
        (InvalidRequestError("x", param="tools[1].function.parameters"), "tools[1].parameters"),
        (UpstreamError("x", status=400, param="response_format"), "text.format"),
        (InvalidRequestError("x", param="seed"), "seed"),
        (InvalidRequestError("x"), None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_backends_error_names_the_fields_of_this_body(error: GatewayError, param: str | None, stream: bool) -> None:
    reply = await post(ScriptedBackend([error]), stream=stream)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == param


async def test_an_unknown_model_and_another_media_type_are_refused() -> None:
    assert (await post(ScriptedBackend(ANSWER), model="nope")).status_code == 404
    async with AsyncTestClient(app_over(ScriptedBackend(ANSWER), max_body_bytes=2000)) as client:
        assert (await client.post("/v1/responses", content=b"a=b", headers={"content-type": "text/plain"})).status_code == 415
        assert (await client.post("/v1/responses", json=BODY | {"input": "x" * 3000})).status_code == 413
        assert (await client.get("/v1/responses")).status_code == 405
