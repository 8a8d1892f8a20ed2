"""`/v1/responses` over a real engine with random weights: tools, schemas, conversations that go on, and contexts that overflow."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from litestar.testing import AsyncTestClient
from openai.types.responses import Response

from mm_gateway.api.app import create_app
from mm_gateway.catalog import build_catalog
from mm_gateway.configuration.model_config import ModelConfig, ModelType
from mm_gateway.configuration.settings import Settings, StorageSettings
from tests.support import checkpoints

MODELS: dict[str, ModelType] = {"chatml": "chatml", "react": "qwen-chat"}
CONTEXT = 2048


class Weather(msgspec.Struct, forbid_unknown_fields=True):
    """What SCHEMA describes."""

    city: str
    days: int


SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 8}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
WEATHER = {"type": "function", "name": "get_weather", "description": "Weather of a city.", "parameters": SCHEMA, "strict": True}


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncTestClient]:
    folder: Path = checkpoints.llama(tmp_path_factory.mktemp("llama"), max_position_embeddings=CONTEXT)
    models = {
        name: ModelConfig(model_name=name, path=str(folder), model_type=model_type, device="cpu", dtype="fp32")
        for name, model_type in MODELS.items()
    }
    settings = Settings(models=models, storage=StorageSettings(folder=str(tmp_path_factory.mktemp("storage"))))
    async with AsyncTestClient(create_app(settings, build_catalog(settings))) as client:
        yield client


async def create(client: AsyncTestClient, **fields: Any) -> Response:
    body = {"model": "chatml", "input": "Weather in Ems?", "max_output_tokens": 500, "seed": 5} | fields
    reply = await client.post("/v1/responses", json=body, timeout=120)
    assert reply.status_code == 200, reply.text
    return Response.model_validate(reply.json())


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "get_weather"}], ids=["required", "named"])
async def test_a_call_that_has_to_come_fits_its_schema_and_its_result_goes_on(client: AsyncTestClient, model: str, choice: Any) -> None:
    called = await create(client, model=model, tools=[WEATHER], tool_choice=choice, parallel_tool_calls=False)
    call = called.output[-1]
    assert call.type == "function_call" and call.name == "get_weather" and called.status == "completed"
    msgspec.json.decode(call.arguments, type=Weather)
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    told = await create(client, model=model, tools=[WEATHER], previous_response_id=called.id, input=[result], max_output_tokens=30)
    assert told.output


@pytest.mark.asyncio(loop_scope="module")
async def test_a_schema_is_kept_to_and_a_wrong_one_is_named(client: AsyncTestClient) -> None:
    form = {"type": "json_schema", "name": "weather", "schema": SCHEMA, "strict": True}
    told = await create(client, text={"format": form})
    msgspec.json.decode(told.output_text, type=Weather)
    form["schema"] = {"type": "string", "pattern": "(?<=a)b"}
    for fields, param in (
        ({"text": {"format": form}}, "text.format.schema.pattern"),
        ({"tools": [WEATHER | {"parameters": {"properties": {"a": form["schema"]}}}]}, "tools[0].parameters.properties.a.pattern"),
    ):
        reply = await client.post("/v1/responses", json={"model": "chatml", "input": "Hi"} | fields, timeout=60)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("choice", ["none", "required"])
async def test_a_stream_ends_with_the_response_that_a_whole_reply_is(client: AsyncTestClient, choice: str) -> None:
    fields = {"tools": [WEATHER], "tool_choice": choice, "include": ["message.output_text.logprobs"], "max_output_tokens": 100}
    whole = await create(client, **fields)
    body = {"model": "chatml", "input": "Weather in Ems?", "seed": 5, "stream": True} | fields
    async with client.stream("POST", "/v1/responses", json=body, timeout=120) as reply:
        lines = [line.removeprefix("data: ") async for line in reply.aiter_lines() if line.startswith("data: ")]
    last = Response.model_validate(json.loads(lines[-1])["response"])
    assert last.status == whole.status
    assert last.output_text == whole.output_text
    assert [item.type for item in last.output] == [item.type for item in whole.output]
    deltas = "".join(event["delta"] for line in lines if (event := json.loads(line))["type"] == "response.output_text.delta")
    assert deltas == whole.output_text
    if choice == "none":
        assert last.output[0].type == "message" and last.output[0].content[0].type == "output_text"
        logprobs = last.output[0].content[0].logprobs or []
        assert b"".join(bytes(entry.bytes) for entry in logprobs).decode(errors="replace") == whole.output_text


@pytest.mark.asyncio(loop_scope="module")
async def test_a_conversation_that_goes_on_reuses_what_was_computed(client: AsyncTestClient) -> None:
    first = await create(client, input="Tell me of Ems. " * 10, max_output_tokens=8, temperature=0)
    assert first.status == "incomplete" and first.incomplete_details is not None
    assert first.incomplete_details.reason == "max_output_tokens"
    second = await create(client, previous_response_id=first.id, input="And then?", max_output_tokens=8, temperature=0)
    assert first.usage is not None and second.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens
    assert second.usage.input_tokens_details.cached_tokens > first.usage.input_tokens - 32


@pytest.mark.asyncio(loop_scope="module")
async def test_an_input_beyond_the_context_is_refused_or_truncated_as_asked(client: AsyncTestClient) -> None:
    turns: list[Any] = [{"role": "user", "content": "word " * 300}, {"role": "assistant", "content": "Yes."}] * 8
    turns.append({"role": "user", "content": "And?"})
    body = {"model": "chatml", "input": turns, "max_output_tokens": 4}
    for truncation in (None, "disabled"):
        reply = await client.post("/v1/responses", json=body | {"truncation": truncation}, timeout=60)
        error = reply.json()["error"]
        assert (reply.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", "input")
    told = await create(client, input=turns, max_output_tokens=4, truncation="auto")
    assert told.usage is not None and told.usage.input_tokens <= CONTEXT - 4


@pytest.mark.asyncio(loop_scope="module")
async def test_a_stream_of_messages_begins_with_the_tokens_of_its_prompt(client: AsyncTestClient) -> None:
    body = {"model": "chatml", "max_tokens": 4, "messages": [{"role": "user", "content": "Hi"}]}
    counted = (await client.post("/v1/messages/count_tokens", json={"model": "chatml", "messages": body["messages"]})).json()
    reply = await client.post("/v1/messages", json=body | {"stream": True}, timeout=120)
    events = [json.loads(line[6:]) for line in reply.text.splitlines() if line.startswith("data: ")]
    assert events[0]["type"] == "message_start" and events[0]["message"]["usage"]["input_tokens"] == counted["input_tokens"] > 0
    end = next(event["usage"] for event in events if event["type"] == "message_delta")
    assert end["input_tokens"] + end["cache_read_input_tokens"] == counted["input_tokens"]
