"""A conversation that loses its oldest turns says so, and whoever wants the error instead gets it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from mm_gateway.api.app import create_app
from mm_gateway.catalog import build_catalog
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import Settings

LONG = "word " * 12
TURNS = [{"role": role, "content": LONG} for role in ("system", "user", "assistant", "user", "assistant", "user")]
BODIES = {"/v1/chat/completions": {"messages": TURNS, "max_tokens": 4}, "/v1/responses": {"input": TURNS, "max_output_tokens": 16}}
CHAT, RESPONSES = BODIES


@pytest.fixture(name="client", scope="module")
async def _client(llama_checkpoint: Path) -> AsyncIterator[AsyncTestClient[Any]]:
    models = {
        "mock": ModelConfig(model_name="mock", backend="mock", max_context_length=64),
        "local": ModelConfig(model_name=str(llama_checkpoint), device="cpu", max_context_length=256),
        "strict": ModelConfig(model_name=str(llama_checkpoint), device="cpu", max_context_length=256, truncate_history=False),
    }
    settings = Settings(models=models)
    async with AsyncTestClient(create_app(settings, build_catalog(settings))) as client:
        yield client


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("model", "fields"), [("local", {}), ("local", {"truncation": "auto"}), ("strict", {"truncation": "auto"})])
async def test_turns_that_are_left_out_are_named(client: AsyncTestClient[Any], model: str, fields: dict[str, Any], stream: bool) -> None:
    reply = await client.post(CHAT, json={"model": model, "stream": stream, **BODIES[CHAT], **fields})
    assert reply.status_code == 200, reply.text
    assert reply.headers["x-mm-gateway-ignored"] in ("messages[1:3]", "messages[1:5]")


@pytest.mark.parametrize("path", BODIES)
async def test_the_mock_names_them_too(client: AsyncTestClient[Any], path: str) -> None:
    reply = await client.post(path, json={"model": "mock", "truncation": "auto", **BODIES[path]})
    assert reply.status_code == 200, reply.text
    assert reply.headers["x-mm-gateway-ignored"] == ("input" if path == RESPONSES else "messages[1:3]")


@pytest.mark.parametrize(
    ("model", "path", "fields"),
    [
        ("local", CHAT, {"truncation": "disabled"}),
        ("strict", CHAT, {}),
        ("local", RESPONSES, {}),
        ("local", RESPONSES, {"truncation": "disabled"}),
    ],
)
async def test_the_error_is_there_for_those_who_want_it(
    client: AsyncTestClient[Any], model: str, path: str, fields: dict[str, Any]
) -> None:
    reply = await client.post(path, json={"model": model, **BODIES[path], **fields})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "context_length_exceeded")


async def test_a_conversation_that_fits_says_nothing(client: AsyncTestClient[Any]) -> None:
    reply = await client.post(CHAT, json={"model": "mock", "truncation": "auto", "messages": TURNS[:2], "max_tokens": 4})
    assert "x-mm-gateway-ignored" not in reply.headers
