"""How long a context a local model has is one number: in listings, for /tokenize, for workflows, and for prompts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from mm_gateway.api.app import create_app
from mm_gateway.backends.engine_backend import EngineBackend
from mm_gateway.catalog import build_catalog
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import EngineSettings, Settings
from mm_gateway.core import TokenizingBackend
from mm_gateway.runtime.checkpoints.memory_estimate import kv_bytes_per_token
from mm_gateway.runtime.inference_engine import InferenceEngine
from mm_gateway.runtime.model_loader import ModelLoader

TRAINED, HELD = 256, 100


@pytest.fixture
async def client(llama_checkpoint: Path) -> AsyncIterator[AsyncTestClient]:
    per_token = kv_bytes_per_token(json.loads((llama_checkpoint / "config.json").read_text()), 4)
    here: dict[str, Any] = {"path": str(llama_checkpoint), "device": "cpu", "dtype": "fp32", "model_type": "chatml"}
    models = {
        "tight": ModelConfig(model_name="tight", kv_cache_bytes=HELD * per_token, **here),
        "cut": ModelConfig(model_name="cut", max_context_length=77, **here),
        "missing": ModelConfig(model_name="missing", path="/nowhere/at/all"),
        "not-here": ModelConfig(model_name="nobody/has-this"),
        "mock": ModelConfig(model_name="mock", backend="mock", max_context_length=50),
    }
    settings = Settings(models=models)
    async with AsyncTestClient(create_app(settings, build_catalog(settings))) as client:
        yield client


async def lengths(client: AsyncTestClient) -> dict[str, int | None]:
    cards = (await client.get("/v1/models")).json()["data"]
    assert all(card["max_model_len"] == card["context_length"] for card in cards)
    return {card["id"]: card["context_length"] for card in cards if "/" not in card["id"]}


async def test_a_listing_says_what_the_files_say_and_after_the_load_what_the_memory_holds(client: AsyncTestClient) -> None:
    assert await lengths(client) == {"tight": TRAINED, "cut": 77, "missing": None, "not-here": None, "mock": 50}
    tokenized = {"model": "tight", "prompt": "Hello"}
    assert (await client.post("/tokenize", json=tokenized)).json()["max_model_len"] == TRAINED
    reply = await client.post("/v1/completions", json={"model": "tight", "prompt": "Hello", "max_tokens": 2}, timeout=60)
    assert reply.status_code == 200, reply.text
    assert await lengths(client) == {"tight": HELD, "cut": 77, "missing": None, "not-here": None, "mock": 50}
    assert (await client.post("/tokenize", json=tokenized)).json()["max_model_len"] == HELD
    refused = await client.post("/v1/completions", json={"model": "tight", "prompt": "Hello", "max_tokens": HELD}, timeout=60)
    assert f"maximum context length is {HELD} tokens" in refused.json()["error"]["message"]
    await client.app.state.catalog.unload("tight")
    assert (await lengths(client))["tight"] == HELD  # as it will be again


async def test_an_engine_of_the_callers_own_counts_and_spells_tokens_too(llama_checkpoint: Path) -> None:
    loaded = ModelLoader().load(ModelConfig(model_name=str(llama_checkpoint), device="cpu", dtype="fp32"))
    engine = InferenceEngine.for_loaded_model(loaded, EngineSettings())
    backend = EngineBackend(engine)
    assert isinstance(backend, TokenizingBackend)
    found = await backend.tokenize("The quick brown fox")
    assert found.context_length == backend.info().context_length == TRAINED
    assert await backend.detokenize(found.ids) == engine.decode(found.ids)
    assert await backend.count_tokens(["The quick brown fox", ""]) == (len(found.ids), 0)
    engine.close()
