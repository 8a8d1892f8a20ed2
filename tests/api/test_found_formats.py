"""`/v1/models` says how a model writes its thoughts and calls, loaded or not."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from mm_gateway.api.app import create_app
from mm_gateway.catalog import build_catalog
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import Settings
from tests.support import checkpoints, thinking_templates
from tests.support.thinking_checkpoint import thinking
from tests.support.tool_templates import FAMILIES

KIMI = FAMILIES["Kimi K2"].template
STRANGE = "{{ tools }}{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}@{{ c.function.name }}{% endfor %}{% endfor %}"
FOUND: dict[str, dict[str, Any]] = {
    "qwen3": {"reasoning": {"format": "think", "controls": ["enable_thinking"], "history": True}, "tool_format": "hermes"},
    "kimi": {"reasoning": None, "tool_format": "kimi"},
    "strange": {"reasoning": None, "tool_format": None},
    "said": {"reasoning": {"format": "seed", "controls": [], "history": False}, "tool_format": "glm"},
    "built-in": {"reasoning": None, "tool_format": "react"},
    "none": {"reasoning": None, "tool_format": None},
}


def templates_of(folder: Path) -> None:
    """Several templates in tokenizer_config.json, as older repositories have them."""
    (folder / "chat_template.jinja").unlink()
    file = folder / "tokenizer_config.json"
    named = [{"name": "default", "template": KIMI}, {"name": "other", "template": "{{ messages }}"}]
    file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": named}))


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncTestClient]:
    paths = {
        name: thinking(tmp_path_factory.mktemp(name), template)
        for name, template in {"qwen3": thinking_templates.QWEN3, "kimi": KIMI, "strange": STRANGE}.items()
    }
    templates_of(paths["kimi"])
    paths["said"] = paths["strange"]
    paths["built-in"] = paths["qwen3"]
    paths["none"] = checkpoints.mistral(tmp_path_factory.mktemp("none"))
    more: dict[str, Any] = {
        "said": {"reasoning_format": "seed", "tool_format": "glm"},
        "built-in": {"chat_template": "qwen-chat"},
    }
    models = {
        name: ModelConfig(model_name=name, path=str(path), device="cpu", dtype="fp32", **more.get(name, {})) for name, path in paths.items()
    }
    models["missing"] = ModelConfig(model_name="missing", path="/nowhere")
    settings = Settings(models=models)
    async with AsyncTestClient(create_app(settings, build_catalog(settings))) as client:
        yield client


def formats(card: dict[str, Any]) -> dict[str, Any]:
    return {key: card["details"][key] for key in ("reasoning", "tool_format") if key in card["details"]}


@pytest.mark.parametrize("name", FOUND)
async def test_the_formats_are_told_before_and_after_the_load(client: AsyncTestClient, name: str) -> None:
    cold = (await client.get(f"/v1/models/{name}")).json()
    assert (cold["state"], formats(cold)) == ("cold", FOUND[name])
    reply = await client.post("/v1/completions", json={"model": name, "prompt": "Hi", "max_tokens": 1})
    assert reply.status_code == 200, reply.text
    loaded = (await client.get(f"/v1/models/{name}")).json()
    assert (loaded["state"], formats(loaded)) == ("ready", FOUND[name])


async def test_of_files_that_are_not_here_nothing_is_said(client: AsyncTestClient) -> None:
    cards = {card["id"]: card for card in (await client.get("/v1/models")).json()["data"]}
    assert formats(cards["missing"]) == {}
    assert formats(cards["kimi"]) == FOUND["kimi"]
