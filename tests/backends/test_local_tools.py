"""Tool calls of real engines with random weights: whatever the format, what has to be called is called with arguments that fit."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from litestar.testing import AsyncTestClient
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response

from mm_gateway.api.app import create_app
from mm_gateway.catalog import build_catalog
from mm_gateway.configuration.model_config import ModelConfig, ModelType
from mm_gateway.configuration.settings import Settings
from tests.support import checkpoints

MODELS: dict[str, ModelType] = {"hermes": "chatml", "react": "qwen-chat", "plain": "gpt2", "llama": "llama"}


class Weather(msgspec.Struct, forbid_unknown_fields=True):
    """What WEATHER describes."""

    city: str
    days: int


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 8}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}
CLOCK = {
    "type": "function",
    "function": {"name": "clock", "parameters": {"type": "object", "properties": {}, "additionalProperties": False}},
}
ARGUMENTS = {"get_weather": Weather, "clock": dict[str, str]}


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncTestClient]:
    folder: Path = checkpoints.llama(tmp_path_factory.mktemp("llama"), max_position_embeddings=4096)
    models = {
        name: ModelConfig(model_name=name, path=str(folder), model_type=model_type, device="cpu", dtype="fp32")
        for name, model_type in MODELS.items()
    }
    settings = Settings(models=models)
    async with AsyncTestClient(create_app(settings, build_catalog(settings))) as client:
        yield client


def body(model: str, choice: object = "auto", **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Weather in Ems?"}]
    limits = {"max_tokens": 500, "seed": 5, "tool_choice": choice, "parallel_tool_calls": False}
    return {"model": model, "messages": messages, "tools": [WEATHER, CLOCK], **limits, **more}


async def complete(client: AsyncTestClient, body: dict[str, Any]) -> ChatCompletion:
    reply = await client.post("/v1/chat/completions", json=body, timeout=120)
    assert reply.status_code == 200, reply.text
    return ChatCompletion.model_validate(reply.json())


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("model", MODELS)
async def test_required_calls_fit_their_schema(client: AsyncTestClient, model: str) -> None:
    completion = await complete(client, body(model, "required", n=6))
    for choice in completion.choices:
        assert choice.message.tool_calls is not None and len(choice.message.tool_calls) == 1
        (call,) = choice.message.tool_calls
        assert call.type == "function" and call.id.startswith("call_")
        msgspec.json.decode(call.function.arguments, type=ARGUMENTS[call.function.name])
        assert choice.finish_reason == "tool_calls"
    ids = [call.id for choice in completion.choices for call in choice.message.tool_calls or ()]
    assert len(set(ids)) == 6


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("model", MODELS)
async def test_a_named_function_is_called_and_ends_with_stop(client: AsyncTestClient, model: str) -> None:
    named = {"type": "function", "function": {"name": "get_weather"}}
    (choice,) = (await complete(client, body(model, named))).choices
    assert choice.message.tool_calls is not None
    (call,) = choice.message.tool_calls
    assert call.type == "function" and call.function.name == "get_weather"
    msgspec.json.decode(call.function.arguments, type=Weather)
    assert choice.finish_reason == "stop"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("model", MODELS)
async def test_a_stream_carries_the_same_calls(client: AsyncTestClient, model: str) -> None:
    whole = (await complete(client, body(model, "required"))).choices[0]
    assert whole.message.tool_calls is not None
    async with client.stream("POST", "/v1/chat/completions", json=body(model, "required", stream=True), timeout=120) as reply:
        lines = [line.removeprefix("data: ") async for line in reply.aiter_lines() if line.startswith("data: {")]
    chunks = [ChatCompletionChunk.model_validate_json(line) for line in lines]
    deltas = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    assert (deltas[0].id or "").startswith("call_") and deltas[0].type == "function" and deltas[0].index == 0
    first = deltas[0].function
    assert first is not None and first.name is not None and first.arguments == ""
    assert all(delta.id is None and delta.index == 0 for delta in deltas[1:])
    arguments = "".join(delta.function.arguments or "" for delta in deltas if delta.function)
    call = whole.message.tool_calls[0]
    assert call.type == "function"
    assert (first.name, arguments) == (call.function.name, call.function.arguments)
    assert len(deltas) > 3 or call.function.name == "clock"  # in pieces
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("model", MODELS)
async def test_what_may_be_called_need_not_be(client: AsyncTestClient, model: str) -> None:
    for choice in (await complete(client, body(model, "auto", n=4, max_tokens=60))).choices:
        assert choice.message.content or choice.message.tool_calls
        for call in choice.message.tool_calls or ():
            assert call.type == "function" and call.function.name in ARGUMENTS
    (choice,) = (await complete(client, body(model, "none", max_tokens=20))).choices
    assert choice.message.tool_calls is None


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("model", MODELS)
async def test_the_conversation_goes_on_with_results(client: AsyncTestClient, model: str) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Ems", "days": 1}'}}
    turns = [
        {"role": "user", "content": "Weather in Ems?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]
    (choice,) = (await complete(client, body(model, "auto", max_tokens=30) | {"messages": turns})).choices
    assert choice.message.content or choice.message.tool_calls


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("model", MODELS)
async def test_stop_strings_end_the_text_around_calls_and_no_call(client: AsyncTestClient, model: str) -> None:
    asked = body(model, "required", seed=11)
    (whole,) = (await complete(client, asked)).choices
    assert whole.message.tool_calls is not None and whole.message.tool_calls[0].type == "function"
    content = whole.message.content or ""  # a thought, in the format that has them
    stops = [stop for stop in ("\n", '"', "{", "call", "CALL", "Action", ": ", "_") if stop not in content]
    (stopped,) = (await complete(client, asked | {"stop": stops})).choices
    assert stopped.message.tool_calls is not None and stopped.message.tool_calls[0].type == "function"
    assert stopped.message.tool_calls[0].function == whole.message.tool_calls[0].function
    assert (stopped.message.content or "", stopped.finish_reason) == (content, "tool_calls")
    text = (await complete(client, body(model, "auto", max_tokens=40))).choices[0].message.content or ""
    stop = text[len(text) // 2 :][:2]
    (answer,) = (await complete(client, body(model, "auto", max_tokens=40, stop=[stop]))).choices
    assert answer.message.content == text[: text.index(stop)] and answer.finish_reason == "stop"


async def cut(client: AsyncTestClient, asked: dict[str, Any], limit: int, stream: bool) -> tuple[str, list[Any], str]:
    """Content, calls and finish reason of a reply of so many tokens."""
    asked = asked | {"max_tokens": limit, "stream": stream}
    if not stream:
        (choice,) = (await complete(client, asked)).choices
        calls = [call.function for call in choice.message.tool_calls or () if call.type == "function"]
        return choice.message.content or "", calls, choice.finish_reason
    reply = await client.post("/v1/chat/completions", json=asked, timeout=120)
    lines = [line.removeprefix("data: ") for line in reply.text.splitlines() if line.startswith("data: {")]
    deltas = [ChatCompletionChunk.model_validate_json(line).choices[0] for line in lines]
    calls = [call.function for delta in deltas for call in delta.delta.tool_calls or () if call.id]
    return "".join(delta.delta.content or "" for delta in deltas), calls, deltas[-1].finish_reason or ""


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("model", "stream"), [*((model, False) for model in MODELS), ("hermes", True)])
async def test_a_required_call_that_is_cut_is_part_of_a_call_or_nothing(client: AsyncTestClient, model: str, stream: bool) -> None:
    asked = body(model, "required", seed=11)
    content = (await complete(client, asked)).choices[0].message.content or ""
    for text, calls, reason in await asyncio.gather(*(cut(client, asked, limit, stream) for limit in (1, 3, 7, 12, 20, 30))):
        assert content.startswith(text)
        if reason == "length":
            assert len(calls) <= 1
        else:
            assert reason == "tool_calls" and calls


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("model", MODELS)
async def test_so_it_is_in_responses(client: AsyncTestClient, model: str) -> None:
    tools = [tool["function"] | {"type": "function"} for tool in (WEATHER, CLOCK)]
    asked = {"model": model, "input": "Weather in Ems?", "tools": tools, "tool_choice": "required", "store": False}
    for limit in (16, 22):
        reply = await client.post("/v1/responses", json=asked | {"max_output_tokens": limit}, timeout=60)
        response = Response.model_validate(reply.json())
        if response.status == "incomplete":
            assert response.incomplete_details is not None and response.incomplete_details.reason == "max_output_tokens"
        if model != "react":
            assert response.output_text == ""


@pytest.mark.asyncio(loop_scope="module")
async def test_log_probabilities_are_those_of_every_token(client: AsyncTestClient) -> None:
    completion = await complete(client, body("hermes", "required", logprobs=True))
    assert completion.usage is not None and completion.choices[0].logprobs is not None
    content = completion.choices[0].logprobs.content or []
    assert len(content) == completion.usage.completion_tokens - 1  # the end-of-sequence token
    assert "get_weather" in "".join(entry.token for entry in content) or "clock" in "".join(entry.token for entry in content)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_schema_that_cannot_be_compiled_is_named(client: AsyncTestClient) -> None:
    wrong = json.loads(json.dumps(WEATHER))
    wrong["function"]["name"] = "wrong"
    wrong["function"]["parameters"]["properties"]["city"] = {"type": "string", "pattern": "(?<=a)b"}
    wrong["function"]["strict"] = True
    reply = await client.post("/v1/chat/completions", json=body("hermes", "auto") | {"tools": [CLOCK, wrong]}, timeout=60)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "tools[1].function.parameters.properties.city.pattern"


PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "tags": {"type": "array", "uniqueItems": True, "items": {"type": "string", "maxLength": 2}, "minItems": 1, "maxItems": 2},
        "phone": {"type": "string", "format": "phone", "maxLength": 3},
    },
    "required": ["tags", "zz"],
}
"""Something that cannot be enforced, a format that nobody knows, and a name that is required alone."""


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("stream", [False, True])
async def test_what_of_a_schema_cannot_be_enforced_is_left_out_and_named(client: AsyncTestClient, stream: bool) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": PARAMETERS}}
    reply = await client.post("/v1/chat/completions", json=body("hermes", "required", stream=stream) | {"tools": [tool]}, timeout=60)
    assert reply.status_code == 200, reply.text
    assert reply.headers["x-mm-gateway-ignored"] == "tools[0].function.parameters.properties.tags.uniqueItems"
    if not stream:
        (call,) = reply.json()["choices"][0]["message"]["tool_calls"]
        arguments = json.loads(call["function"]["arguments"])
        assert "zz" in arguments and arguments["tags"] and arguments.keys() <= {"tags", "phone", "zz"}


@pytest.mark.asyncio(loop_scope="module")
async def test_a_schema_that_does_not_compile_still_gets_an_object(client: AsyncTestClient) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {"$ref": "#/nowhere"}}}}}
    reply = await client.post(
        "/v1/responses",
        json={
            "model": "hermes",
            "input": "Go",
            "tools": [tool["function"] | {"type": "function"}],
            "tool_choice": "required",
            "max_output_tokens": 20,
        },
        timeout=60,
    )
    assert reply.status_code == 200, reply.text
    assert reply.headers["x-mm-gateway-ignored"] == "tools[0].parameters"
    strict = {"type": "function", "function": tool["function"] | {"strict": True}}
    refused = await client.post("/v1/chat/completions", json=body("hermes", "auto") | {"tools": [CLOCK, strict]}, timeout=60)
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "tools[1].function.parameters"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("tools", [[], [CLOCK]])
async def test_a_response_format_that_cannot_be_enforced_is_refused_by_path(client: AsyncTestClient, tools: list[Any]) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "w", "schema": PARAMETERS}}
    more = {"tools": tools} if tools else {"tools": None, "tool_choice": None, "parallel_tool_calls": None}
    reply = await client.post("/v1/chat/completions", json=body("hermes") | more | {"response_format": form}, timeout=60)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "response_format.json_schema.schema.properties.tags.uniqueItems"


@pytest.mark.asyncio(loop_scope="module")
async def test_an_answer_without_calls_may_have_to_be_json(client: AsyncTestClient) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "w", "schema": WEATHER["function"]["parameters"]}}
    for choice in (await complete(client, body("hermes", "auto", n=4, response_format=form))).choices:
        if not choice.message.tool_calls:
            msgspec.json.decode(choice.message.content or "", type=Weather)
