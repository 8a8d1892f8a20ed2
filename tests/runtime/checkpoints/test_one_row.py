"""A model family and a format of weights are one file and one row: a package that adds one of each is served."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file, save_file

from mm_gateway.configuration.settings import Quantization
from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.checkpoints.families.families import FAMILIES
from mm_gateway.runtime.checkpoints.quantized.formats import FORMATS
from mm_gateway.runtime.model_loader import ModelConfig, ModelLoader
from tests.support import checkpoints

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

class Doubled(WeightFormat):
    name = "doubled"
    title = "doubling"
    published = True

    def recognises(self, folder):
        return "doubled" in json.loads((folder / "config.json").read_text())

    def read(self, folder, config, device, dtype, *, converts_weights):
        return {name: (tensor / 2).to(dtype) for name, tensor in load_file(folder / "model.safetensors").items()}
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "an_extension"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "alpaca.py").write_text(FAMILY)
    (folder / "doubled.py").write_text(FORMAT)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    for name in [name for name in sys.modules if name.startswith("an_extension")]:
        del sys.modules[name]


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
    monkeypatch.setitem(FAMILIES, "alpaca", importlib.import_module("an_extension.alpaca").ALPACA)
    assert torch.equal(logits_of(folder), expected)


def test_a_format_of_weights_is_a_file_and_a_row(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checkpoints.llama(tmp_path / "checkpoint")
    expected = logits_of(folder)
    change_config(folder, doubled=True)
    stored = load_file(folder / "model.safetensors")
    save_file({name: tensor * 2 for name, tensor in stored.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    row = importlib.import_module("an_extension.doubled").Doubled()
    monkeypatch.setitem(FORMATS, row.name, row)
    assert torch.equal(logits_of(folder, quantization="doubled"), expected)
    with pytest.raises(ModelLoadError, match="set quantization: doubled"):
        logits_of(folder)


def test_the_settings_name_every_format() -> None:
    assert {name for name in FORMATS if name is not None} == set(get_args(Quantization))
