"""What vLLM's tests import from their own `tests.utils` and `tests.conftest`: a server under test, which here is this gateway."""

from __future__ import annotations

import json
import os
import tempfile
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

import openai
import pytest

from compat_tests.support.gateways import free_port, start_gateway, stop_gateway

VLLM_PATH = Path(os.environ.get("VLLM_SUITE_FOLDER", "."))
ROCM_EXTRA_ARGS: list[str] = []
ROCM_ENV_OVERRIDES: dict[str, str] = {}
CHECKPOINTS: dict[str, str] = json.loads(os.environ.get("VLLM_SUITE_CHECKPOINTS", "{}"))

# Which checkpoint stands in for a model: by the file that asks, else by the model's name, else the default.
STAND_INS = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": "smollm2",
    "intfloat/multilingual-e5-small": "embeddings",
    "tests/entrypoints/openai/test_chunked_prompt.py": "long",
    "tests/entrypoints/serve/instrumentator/test_basic.py": "long",
}
DEFAULT = "tiny-chat"

# What a tool call parser of vLLM's is called here, where a template does not show how calls are written.
TOOL_FORMATS = {"pythonic": "python"}


def checkpoint_of(model: str) -> str:
    file = os.environ.get("PYTEST_CURRENT_TEST", "").split("::")[0]
    return CHECKPOINTS[STAND_INS.get(file) or STAND_INS.get(model) or DEFAULT]


def tokenizer_of(model: str) -> Any:
    from transformers import AutoTokenizer

    path = checkpoint_of(model)
    if path.endswith(".gguf"):
        return AutoTokenizer.from_pretrained(str(Path(path).parent), gguf_file=Path(path).name)
    return AutoTokenizer.from_pretrained(path)


def _options(args: list[str]) -> dict[str, str]:
    """`--name value`, `--name=value` and `--flag`, without their dashes; `_` in a name is as good as `-`."""
    found: dict[str, str] = {}
    words = [word for arg in args for word in (arg.split("=", 1) if arg.startswith("--") else [arg])]
    for place, word in enumerate(words):
        if word.startswith("--"):
            value = words[place + 1] if place + 1 < len(words) else ""
            found[word.removeprefix("--").replace("_", "-")] = "" if value.startswith("--") else value
    return found


class RemoteOpenAIServer:
    """A gateway that serves one model by the name that the test asks for. Of vLLM's options those are followed that mean something here."""

    DUMMY_API_KEY = "token-abc123"

    def __init__(self, model: str, vllm_serve_args: list[str], *, env_dict: dict[str, str] | None = None, **_: object) -> None:
        options = _options(vllm_serve_args)
        entry: dict[str, object] = {"model_name": str(model), "path": checkpoint_of(model), "device": "cpu"}
        if entry["path"].endswith(".gguf"):  # type: ignore[attr-defined]
            entry["dtype"] = "fp32"
        if "max-model-len" in options:
            entry["max_context_length"] = int(options["max-model-len"])
        if template := options.get("chat-template"):
            if not Path(template).is_file():
                file = tempfile.NamedTemporaryFile("w", suffix=".jinja", delete=False)  # noqa: SIM115 - the gateway reads it
                file.write(template)
                file.close()
                template = file.name
            entry["chat_template"] = template
        if parser := TOOL_FORMATS.get(options.get("tool-call-parser", "")):
            entry["tool_format"] = parser
        self.name = options.get("served-model-name") or model
        key = options.get("api-key") or (env_dict or {}).get("VLLM_API_KEY")
        keys = {"MM_GATEWAY_API_KEYS": key} if key else {}
        self.folder = tempfile.TemporaryDirectory()
        self.port = free_port()
        self.host = "127.0.0.1"
        self._gateway = start_gateway(
            Path(self.folder.name),
            {self.name: entry},
            self.port,
            default_model=self.name,  # vLLM takes a missing name for its own model's
            MM_GATEWAY_STORAGE_FOLDER=self.folder.name,
            **keys,
        )
        self._load(key)

    def _load(self, key: str | None) -> None:
        """vLLM's server has loaded its model before it answers anything, and some tests give the first request no time for it."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        body = json.dumps({"model": self.name, "prompt": "a", "max_tokens": 1}).encode()
        urllib.request.urlopen(urllib.request.Request(self.url_for("v1/completions"), body, headers), timeout=120).close()

    @property
    def url_root(self) -> str:
        return f"http://{self.host}:{self.port}"

    def url_for(self, *parts: str) -> str:
        return f"{self.url_root}/" + "/".join(part.strip("/") for part in parts if part)

    def get_client(self, **options: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url_for("v1"), api_key=self.DUMMY_API_KEY, max_retries=0, **{"timeout": 300, **options})

    def get_async_client(self, **options: Any) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=self.url_for("v1"), api_key=self.DUMMY_API_KEY, max_retries=0, **{"timeout": 300, **options})

    def __enter__(self) -> RemoteOpenAIServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        stop_gateway(self._gateway)
        self.folder.cleanup()


class HfRunner:
    """The checkpoint in transformers alone: the mean of its last hidden states, of length 1."""

    def __init__(self, model: str, **_: object) -> None:
        from transformers import AutoModel

        self._tokenizer = tokenizer_of(model)
        self._model = AutoModel.from_pretrained(checkpoint_of(model)).eval()

    def encode(self, prompts: list[str]) -> list[list[float]]:
        import torch

        vectors: list[list[float]] = []
        with torch.no_grad():
            for prompt in prompts:
                states = self._model(**self._tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)).last_hidden_state[0]
                vectors.append(torch.nn.functional.normalize(states.mean(0), dim=0).tolist())
        return vectors

    def __enter__(self) -> HfRunner:
        return self

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture(scope="session")
def hf_runner() -> type[HfRunner]:
    return HfRunner


def _unmarked(*args: Any, **_: object) -> Any:
    return args[0] if args and callable(args[0]) else lambda test: test


multi_gpu_only = requires_fp8 = large_gpu_test = multi_gpu_test = _unmarked
