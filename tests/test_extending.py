"""Each thing that there may be more of is one file and one row of a table: a package that adds one of each is served with them."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from litestar.testing import AsyncTestClient
from safetensors.torch import load_file, save_file

from mm_gateway.api.app import create_app
from mm_gateway.api.endpoints import ENDPOINTS
from mm_gateway.catalog import build_catalog
from mm_gateway.chat_templates.templates import BUILT_IN, BuiltInTemplate, built_in_for
from mm_gateway.chat_templates.tool_formats.formats import TOOL_FORMATS
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.search_settings import SearchSettings
from mm_gateway.configuration.settings import Settings
from mm_gateway.core import (
    ChatInput,
    GenerationConfig,
    GenerationEvent,
    GenerationRequest,
    Message,
    TextDelta,
    TokenizingBackend,
    Tool,
    ToolCallDelta,
    ToolUse,
)
from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.checkpoints.families.families import FAMILIES
from mm_gateway.runtime.checkpoints.quantized.formats import FORMATS
from mm_gateway.runtime.model_loader import ModelLoader
from mm_gateway.search.providers import PROVIDERS
from mm_gateway.workflows.all_workflows import WORKFLOWS
from tests.support import checkpoints

TEMPLATE = "{% for message in messages %}Arr, {{ message.role }} says {{ message.content }}!\n{% endfor %}"

TOOL_FORMAT = """
import re
from mm_gateway.chat_templates.tool_formats.call_parser import CallParser
from mm_gateway.chat_templates.tool_formats.format import ToolFormat, call_rules, with_system

class Shout(ToolFormat):
    name, families, source = "shout", "Parrots", "this test"

    def flatten(self, messages, tools):
        return with_system(messages, "SHOUT: " + " ".join(tool.name for tool in tools)), ""

    def grammar(self, use, text, spell=None):
        rules, calls = call_rules(use, lambda tool: f"{tool.name}! ")
        return "\\n".join([f'start: "HEY " ({calls})', *rules])

    def calls(self, tools=()):
        return CallParser("HEY ", re.compile(r"HEY (?P<name>\\w+)! (?=\\{)"), re.compile(""))
"""

PROVIDER = """
from mm_gateway.search.results import SearchResult

class Oracle:
    async def search(self, query, max_results, language):
        return [SearchResult("Oracle", "https://oracle.example/", "It says so", text=f"The answer to {query} is 42.")]

    async def close(self):
        pass
"""

ENDPOINT = """
import msgspec
from litestar import get
from mm_gateway.api.description.endpoint import Endpoint

class Motto(msgspec.Struct):
    motto: str

@get("/v1/motto", sync_to_thread=False, summary="The motto")
def motto() -> Motto:
    return Motto("Many models, one address")

MOTTO = Endpoint(motto, "Operation", reply=Motto, answer={"motto": "One address"}, security="")
"""

WORKFLOW = """
from mm_gateway.core import TextDelta
from mm_gateway.workflows.parameters import Parameters
from mm_gateway.workflows.workflow import Workflow

class BackwardsParameters(Parameters, frozen=True, kw_only=True):
    text: str

class Backwards(Workflow[BackwardsParameters]):
    name = "backwards"
    description = "The text backwards"
    subject = "text"
    parameters = BackwardsParameters

    async def stages(self, run, parameters):
        yield run.begin("turn", "turning it")
        yield TextDelta(0, parameters.text[::-1])
        yield run.end()
"""

FAMILY = """
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from mm_gateway.runtime.checkpoints.families.family import Family

class AlpacaConfig(LlamaConfig):
    model_type = "alpaca"

class AlpacaForCausalLM(LlamaForCausalLM):
    config_class = AlpacaConfig

def register():
    AutoConfig.register("alpaca", AlpacaConfig, exist_ok=True)
    AutoModelForCausalLM.register(AlpacaConfig, AlpacaForCausalLM, exist_ok=True)

ALPACA = Family(
    name="Alpaca",
    architectures=("AlpacaForCausalLM",),
    recognises=lambda checkpoint: checkpoint.get("model_type") == "alpaca",
    register=register,
    tokenizer_file="alpaca.json",
    load_tokenizer=lambda folder: PreTrainedTokenizerFast(tokenizer_file=str(folder / "alpaca.json"), eos_token="</s>"),
)
"""

FORMAT = """
import json
from safetensors.torch import load_file
from mm_gateway.runtime.checkpoints.quantized.format import WeightFormat
from mm_gateway.runtime.checkpoints.quantized.layer import StoredLayer

class Half(StoredLayer):
    def numbers(self, parts, dtype):
        return (parts["stored"] / 2).to(dtype)

class Doubled(WeightFormat):
    name = "doubled"
    title = "doubling"
    published = True

    def recognises(self, folder):
        return "doubled" in json.loads((folder / "config.json").read_text())

    def layers(self, stored):
        return {name: Half(header.shape, {"stored": name}) for name, header in stored.headers.items()}
"""


MODULES = {
    "alpaca": FAMILY,
    "doubled": FORMAT,
    "shout": TOOL_FORMAT,
    "oracle": PROVIDER,
    "motto": ENDPOINT,
    "backwards": WORKFLOW,
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "an_extension"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "pirate.jinja").write_text(TEMPLATE)
    for name, source in MODULES.items():
        (folder / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    for name in [name for name in sys.modules if name.startswith("an_extension")]:
        del sys.modules[name]


def made(module: str, name: str) -> Any:
    return getattr(importlib.import_module(f"an_extension.{module}"), name)


async def answer(settings: Settings, model: str, text: str, tools: ToolUse | None = None) -> list[GenerationEvent]:
    """What a model of these settings says."""
    catalog = build_catalog(settings)
    asked = ChatInput((Message(role="user", content=text),), tools)
    request = GenerationRequest(request_id="r", model=model, input=asked, config=GenerationConfig(max_new_tokens=60, temperature=0.0))
    try:
        return [event async for event in catalog.resolve(model).generate(request)]
    finally:
        await catalog.close()


def mock(**sections: Any) -> Settings:
    return Settings(models={"mock": ModelConfig(model_name="mock", backend="mock")}, default_model="mock", **sections)


def change_config(folder: Path, **more: Any) -> None:
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | more))


@torch.inference_mode()
def logits_of(folder: Path, **more: Any) -> torch.Tensor:
    config = ModelConfig(model_name=str(folder), device="cpu", dtype="fp32", **more)
    return ModelLoader(pack=False).load(config).model(torch.arange(1, 9)[None]).logits


def test_a_family_is_a_file_and_a_row(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checkpoints.llama(tmp_path / "checkpoint")
    expected = logits_of(folder)
    change_config(folder, model_type="alpaca", architectures=["AlpacaForCausalLM"])
    (folder / "tokenizer.json").rename(folder / "alpaca.json")
    monkeypatch.setitem(FAMILIES, "alpaca", made("alpaca", "ALPACA"))
    assert torch.equal(logits_of(folder), expected)


def test_a_format_of_weights_is_a_file_and_a_row(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checkpoints.llama(tmp_path / "checkpoint")
    expected = logits_of(folder)
    change_config(folder, doubled=True)
    stored = load_file(folder / "model.safetensors")
    save_file({name: tensor * 2 for name, tensor in stored.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    row = made("doubled", "Doubled")()
    monkeypatch.setitem(FORMATS, row.name, row)
    assert torch.equal(logits_of(folder, quantization="doubled"), expected)
    assert torch.equal(logits_of(folder), expected)
    with pytest.raises(ModelLoadError, match="quantized with doubling already; set quantization: doubled, or leave it out"):
        logits_of(folder, quantization="8bit")


async def test_a_chat_template_and_a_tool_format_are_a_file_and_a_row_each(
    package: Path, llama_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TOOL_FORMATS, "shout", made("shout", "Shout")())
    row = BuiltInTemplate("pirate", tool_format="shout", architectures=("parrot",), folder=package)
    monkeypatch.setitem(BUILT_IN, row.name, row)
    assert built_in_for(None, "parrot") is row
    model = ModelConfig(model_name="m", path=str(llama_checkpoint), device="cpu", chat_template="pirate")
    settings = Settings(models={"m": model})
    catalog = build_catalog(settings)
    try:
        backend = catalog.resolve("m")
        assert isinstance(backend, TokenizingBackend)
        tokenized = await backend.tokenize(ChatInput((Message(role="user", content="Ahoy"),)))
        assert (await backend.detokenize(tokenized.ids)).strip().endswith("Arr, user says Ahoy!")
    finally:
        await catalog.close()
    tool = Tool("flag", "Hoists a flag", {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]})
    events = await answer(settings, "m", "Ahoy", ToolUse(tools=(tool,), required=True))
    calls = [event for event in events if isinstance(event, ToolCallDelta)]
    assert calls[0].name == "flag"
    assert set(json.loads("".join(call.arguments for call in calls))) == {"on"}


async def test_a_search_provider_is_a_file_and_a_row(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROVIDERS, "oracle", lambda search, storage: made("oracle", "Oracle")())  # type: ignore[misc]
    settings = mock(search=SearchSettings(provider="oracle"))  # type: ignore[arg-type]
    events = await answer(settings, "mm-orch/search-qa", "What is it?")
    assert "https://oracle.example/" in repr(events)


async def test_a_workflow_is_a_file_and_a_row(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WORKFLOWS, "backwards", made("backwards", "Backwards"))
    events = await answer(mock(), "mm-orch/backwards", "Hello")
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["olleH"]


async def test_an_endpoint_is_a_file_and_a_row(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = made("motto", "MOTTO")
    monkeypatch.setitem(ENDPOINTS, (row.method, row.path), row)
    settings = mock()
    async with AsyncTestClient(create_app(settings, build_catalog(settings))) as client:
        reply = await client.get("/v1/motto")
        assert (reply.status_code, reply.json()) == (200, {"motto": "Many models, one address"})
        assert reply.headers["x-request-id"]
        described = (await client.get("/schema/openapi.json")).json()["paths"]["/v1/motto"]["get"]
        assert described["summary"] == "The motto"
