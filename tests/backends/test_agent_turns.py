"""Turns of an agent over a real engine: each reads the work of the one before, whoever asked meanwhile, through every API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from mm_gateway.api.app import create_app
from mm_gateway.catalog import build_catalog
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import Settings, StorageSettings
from tests.support import checkpoints

SYSTEM = "You work on files. " + " ".join(f"Rule {number} is to be kept." for number in range(60))
SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"], "additionalProperties": False}
FUNCTIONS = [{"name": f"tool_{number}", "description": "Reads a file.", "parameters": SCHEMA} for number in range(8)]


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncTestClient]:
    folder: Path = checkpoints.llama(tmp_path_factory.mktemp("llama"), max_position_embeddings=16384)
    model = ModelConfig(model_name="m", path=str(folder), model_type="chatml", device="cpu", dtype="fp32")
    settings = Settings(models={"m": model}, storage=StorageSettings(folder=str(tmp_path_factory.mktemp("storage"))))
    async with AsyncTestClient(create_app(settings, build_catalog(settings))) as client:
        yield client


async def posted(client: AsyncTestClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    reply = await client.post(path, json={"model": "m", **body}, timeout=300)
    assert reply.status_code == 200, reply.text
    return reply.json()["usage"]


async def ask_something_else(client: AsyncTestClient) -> None:
    for text in ("What is the time?", "Who are you?"):
        await posted(client, "/v1/chat/completions", {"messages": [{"role": "user", "content": text}], "max_tokens": 4})


@pytest.mark.asyncio(loop_scope="module")
async def test_a_turn_by_chat_computes_nothing_of_the_one_before_again(client: AsyncTestClient) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "tool_1", "arguments": '{"path": "a"}'}}
    messages: list[dict[str, Any]] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "Read a."}]
    body = {"tools": [{"type": "function", "function": function} for function in FUNCTIONS], "tool_choice": "auto", "max_tokens": 4}
    first = await posted(client, "/v1/chat/completions", {"messages": messages, **body})
    await ask_something_else(client)
    messages += [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c1", "content": "one"}]
    second = await posted(client, "/v1/chat/completions", {"messages": messages, **body})
    assert first["prompt_tokens"] > 1000
    assert second["prompt_tokens_details"]["cached_tokens"] >= first["prompt_tokens"]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_turn_by_responses_computes_nothing_of_the_one_before_again(client: AsyncTestClient) -> None:
    items: list[dict[str, Any]] = [{"role": "user", "content": "Read b."}]
    tools = [{"type": "function", **function, "strict": False} for function in FUNCTIONS]
    grammar = {"type": "grammar", "syntax": "regex", "definition": "[a-z]+"}
    tools.append({"type": "namespace", "name": "notes", "tools": [{"type": "custom", "name": "add", "format": grammar}]})
    body = {"instructions": f"Of responses. {SYSTEM}", "tools": tools, "store": False, "max_output_tokens": 4}
    first = await posted(client, "/v1/responses", {"input": items, **body})
    await ask_something_else(client)
    items += [{"type": "custom_tool_call", "call_id": "c1", "name": "add", "namespace": "notes", "input": "abc"}]
    items += [{"type": "custom_tool_call_output", "call_id": "c1", "output": "one"}]
    second = await posted(client, "/v1/responses", {"input": items, **body})
    assert second["input_tokens_details"]["cached_tokens"] >= first["input_tokens"] > 1000
    summary = await posted(client, "/v1/responses", {"input": [*items, {"type": "compaction_trigger"}], **body})
    assert summary["input_tokens_details"]["cached_tokens"] >= second["input_tokens"] - 8  # but for the opening of an answer


@pytest.mark.asyncio(loop_scope="module")
async def test_a_turn_by_messages_computes_nothing_of_the_one_before_again(client: AsyncTestClient) -> None:
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Read c."}]
    tools = [{"name": tool["name"], "description": tool["description"], "input_schema": SCHEMA} for tool in FUNCTIONS]
    body = {"system": [{"type": "text", "text": f"Of messages. {SYSTEM}", "cache_control": {"type": "ephemeral"}}], "tools": tools}
    first = await posted(client, "/v1/messages", {"messages": messages, "max_tokens": 4, **body})
    await ask_something_else(client)
    messages += [{"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "tool_1", "input": {"path": "a"}}]}]
    messages += [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "one"}]}]
    second = await posted(client, "/v1/messages", {"messages": messages, "max_tokens": 4, **body})
    assert second["cache_read_input_tokens"] >= first["input_tokens"] + first["cache_read_input_tokens"] > 1000
