"""A conversation that is summed up: asked for as Codex does and as OpenAI's client does, and gone on with."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from litestar.testing import AsyncTestClient
from openai import AsyncOpenAI
from openai.types.responses import ResponseCompactionItem

from mm_gateway.api.app import GatewayApp, create_app
from mm_gateway.api.responses.compaction import ASKED
from mm_gateway.api.responses.conversation import SUMMED_UP
from mm_gateway.backends.mock.backend import MockBackend
from mm_gateway.catalog import Catalog
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.server_settings import ServerSettings
from mm_gateway.configuration.settings import Settings, StorageSettings
from mm_gateway.core import ChatInput, ChoiceFinished, Message, ReasoningDelta, TextDelta, ToolUse, Usage
from tests.api.responses.test_streams import EVENT
from tests.support.scripted_backend import ScriptedBackend, Step
from tests.support.served import served

SUMMARY = "They said hi."
SUMMED: list[Step] = [ReasoningDelta(0, "Hm"), TextDelta(0, "They "), TextDelta(0, "said hi."), ChoiceFinished(0, "stop"), Usage(9, 4)]
F = {"type": "function", "name": "f"}
NOTES = {"internal_chat_message_metadata_passthrough": {"turn_id": "1"}}
TURN: list[Any] = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": "Hi", **NOTES},
    {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}", **NOTES},
    {"type": "function_call_output", "call_id": "c1", "output": "1", **NOTES},
    {"role": "assistant", "content": "Hello."},
]
TRIGGER = {"type": "compaction_trigger"}


@pytest.fixture
def backend() -> ScriptedBackend:
    return ScriptedBackend(SUMMED)


@pytest.fixture
async def client(backend: ScriptedBackend, tmp_path: Path) -> AsyncIterator[AsyncTestClient[GatewayApp]]:
    settings = Settings(storage=StorageSettings(folder=str(tmp_path)), server=ServerSettings(api_keys=("ann", "bob")))
    mock = MockBackend("mock", ModelConfig(model_name="mock", backend="mock"), created=0)
    async with AsyncTestClient(create_app(settings, Catalog({"scripted": backend, "mock": mock}))) as client:
        client.headers["authorization"] = "Bearer ann"
        yield client


async def asked(client: AsyncTestClient[GatewayApp], path: str = "", status: int = 200, **fields: Any) -> httpx.Response:
    body = {"model": "scripted", "tools": [F]} | fields
    reply = await client.post(f"/v1/responses{path}", json=body)
    assert reply.status_code == status, reply.text
    return reply


def given_to(backend: ScriptedBackend) -> tuple[tuple[Message, ...], ToolUse | None]:
    input = backend.requests[-1].input
    assert isinstance(input, ChatInput)
    return input.messages, input.tools


async def test_a_trigger_makes_an_item_of_which_only_the_gateway_reads_the_summary(
    client: AsyncTestClient[GatewayApp], backend: ScriptedBackend
) -> None:
    reply = await asked(
        client, input=[*TURN, TRIGGER], store=False, tool_choice="auto", text={"format": {"type": "json_object"}, "verbosity": "low"}
    )
    (item,) = reply.json()["output"]
    assert item["type"] == "compaction" and item["id"].startswith("cmp_") and SUMMARY not in reply.text
    assert reply.headers["x-mm-gateway-ignored"] == "text.format, text.verbosity"
    messages, use = given_to(backend)
    assert messages[-1] == ASKED and [message.role for message in messages[:-1]] == ["developer", "user", "assistant", "tool", "assistant"]
    assert use is not None and use.shown_only and [tool.name for tool in use.tools] == ["f"]
    await asked(client, input=[{"role": "user", "content": "Hi"}, item, {"role": "user", "content": "And?"}])
    assert given_to(backend)[0] == (Message("user", "Hi"), Message("user", SUMMED_UP + SUMMARY), Message("user", "And?"))


async def test_a_compaction_is_streamed_as_one_item(client: AsyncTestClient[GatewayApp]) -> None:
    reply = await asked(client, input=[*TURN, TRIGGER], store=False, stream=True)
    events = [json.loads(block.split("data: ")[1]) for block in reply.text.strip().split("\n\n")]
    for event in events:
        EVENT.validate_python(event)
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "compaction.compacting",
        "output_item.done",
        "completed",
    ]
    assert events[2]["item"]["encrypted_content"] == "" and events[4]["item"] == events[5]["response"]["output"][0]


async def test_a_stored_compaction_takes_the_place_of_what_was_before_it(
    client: AsyncTestClient[GatewayApp], backend: ScriptedBackend
) -> None:
    first = (await asked(client, input=[*TURN, TRIGGER])).json()["id"]
    backend.script = [TextDelta(0, "Yes."), ChoiceFinished(0, "stop"), Usage(1, 1)]
    second = (await asked(client, input="And?", previous_response_id=first)).json()["id"]
    await asked(client, input="Then?", previous_response_id=second)
    assert given_to(backend)[0] == (
        Message("developer", "Be brief."),
        Message("user", "Hi"),
        Message("user", SUMMED_UP + SUMMARY),
        Message("user", "And?"),
        Message("assistant", "Yes."),
        Message("user", "Then?"),
    )


async def test_openais_client_compacts_and_goes_on(backend: ScriptedBackend, tmp_path: Path) -> None:
    settings = Settings(storage=StorageSettings(folder=str(tmp_path)))
    with served(create_app(settings, Catalog({"scripted": backend}))) as port:
        async with AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0) as client:
            compacted = await client.responses.compact(model="scripted", input=TURN, instructions="Be kind.")
            output: list[Any] = [item.to_dict() for item in compacted.output]
            await client.responses.create(model="scripted", input=[*output, {"role": "user", "content": "And?"}])
    assert compacted.object == "response.compaction" and isinstance(compacted.output[-1], ResponseCompactionItem)
    assert compacted.usage.output_tokens == 4
    messages, _ = given_to(backend)
    assert [message.content for message in messages] == ["Be brief.", "Hi", SUMMED_UP + SUMMARY, "And?"]
    first = backend.requests[0].input
    assert isinstance(first, ChatInput) and first.messages[0] == Message("system", "Be kind.") and first.messages[-1] == ASKED


async def test_a_summary_is_for_its_owner_alone(client: AsyncTestClient[GatewayApp]) -> None:
    (item,) = (await asked(client, input=[{"role": "user", "content": "Hi"}, TRIGGER])).json()["output"]
    client.headers["authorization"] = "Bearer bob"
    for sealed in (item["encrypted_content"], "AQ==", "no base64", ""):
        error = (await asked(client, status=400, input=[item | {"encrypted_content": sealed}])).json()["error"]
        assert (error["param"], error["code"]) == ("input[0].encrypted_content", "invalid_encrypted_content")


@pytest.mark.parametrize("path", ["", "/compact"])
async def test_a_model_that_sums_up_nothing_is_an_error(client: AsyncTestClient[GatewayApp], backend: ScriptedBackend, path: str) -> None:
    backend.script = [TextDelta(0, " \n"), ChoiceFinished(0, "stop"), Usage(1, 1)]
    reply = await asked(client, path, status=500, input=[*TURN, *([TRIGGER] if not path else [])])
    assert "wrote nothing" in reply.json()["error"]["message"]


async def test_a_summary_that_is_cut_says_so(client: AsyncTestClient[GatewayApp], backend: ScriptedBackend) -> None:
    backend.script = [TextDelta(0, "They"), ChoiceFinished(0, "length"), Usage(1, 1)]
    assert (await asked(client, input=[*TURN, TRIGGER], store=False)).json()["status"] == "incomplete"
    assert (await asked(client, "/compact", status=400, input=TURN)).json()["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize(
    ("fields", "path", "param"),
    [
        ({"input": [TRIGGER, *TURN]}, "", "input[0]"),
        ({"input": [TRIGGER]}, "", "input"),
        ({"input": [*TURN, TRIGGER], "stream": True}, "/compact", "stream"),
        ({"input": TURN, "background": True}, "/compact", "background"),
        ({}, "/compact", "input"),
        ({"input": [{"type": "compaction"}]}, "", "input[0].encrypted_content"),
    ],
)
async def test_what_is_wrong_is_named(client: AsyncTestClient[GatewayApp], fields: dict[str, Any], path: str, param: str) -> None:
    assert (await asked(client, path, status=400, **fields)).json()["error"]["param"] == param


async def test_the_mock_sums_up_without_calling(client: AsyncTestClient[GatewayApp]) -> None:
    """As a model does: the tools are shown, so that the prompt begins as in other turns, and none is called."""
    (item,) = (await asked(client, model="mock", input=[*TURN, TRIGGER])).json()["output"]
    assert item["type"] == "compaction"
