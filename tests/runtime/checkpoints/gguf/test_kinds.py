"""Every kind of blocks that docs/models.md says is read from GGUF files, in whole models too."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from gguf import GGMLQuantizationType as Kind
from gguf.quants import _type_traits  # pyright: ignore[reportPrivateUsage] - which kinds the package unpacks

from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.runtime.checkpoints.context_length import read_checkpoint_config
from mm_gateway.runtime.checkpoints.files import checkpoint_folder
from mm_gateway.runtime.checkpoints.gguf.kept_blocks import KEPT
from mm_gateway.runtime.checkpoints.memory_estimate import weight_bytes
from mm_gateway.runtime.checkpoints.packed_linear import KernelLinear
from mm_gateway.runtime.model_loader import LoadedModel, ModelLoader
from tests.support.checkpoints import make_tokenizer
from tests.support.gguf_checkpoint import rewrite_gguf, write_gguf
from tests.support.gguf_rows import KINDS, SHAPE, configurations, proofs_of_architecture, proofs_of_kind, random_blocks

IDS = torch.arange(3, 60)[None]
# Rows of whole blocks of 256.
WIDTHS: dict[str, Any] = {"hidden_size": 256, "num_attention_heads": 8, "num_key_value_heads": 2, "num_hidden_layers": 2}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama in fp32, whose matrices are replaced."""
    tokenizer = make_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], eos_token="<|im_end|>")
    torch.manual_seed(1)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=len(tokenizer), **SHAPE | WIDTHS))
    return write_gguf(tmp_path_factory.mktemp("numbers") / "m.gguf", model, tokenizer)


@pytest.fixture
def pair(request: pytest.FixtureRequest, numbers: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The model in blocks of a kind, and in the numbers that they stand for."""
    kind: Kind = request.param
    meant: dict[str, np.ndarray] = {}

    def encode(name: str, data: np.ndarray) -> tuple[np.ndarray, Kind]:
        if data.ndim != 2:
            return data, Kind.F32
        stored, meant[name] = random_blocks(kind, *data.shape)
        return stored, kind

    file = rewrite_gguf(numbers, tmp_path / "blocks.gguf", encode)
    return file, rewrite_gguf(numbers, tmp_path / "numbers.gguf", lambda name, data: (meant.get(name, data), Kind.F32))


def load(file: Path, **more: str) -> LoadedModel:
    return ModelLoader().load(ModelConfig(model_name="m", path=str(file), device="cpu", **more))  # pyright: ignore[reportArgumentType]


@torch.inference_mode()
def difference(loaded: LoadedModel, other: LoadedModel) -> float:
    """Of logits, in standard deviations."""
    found, expected = loaded.model(IDS).logits, other.model(IDS).logits
    return float((found - expected).abs().max() / expected.std())


@pytest.mark.parametrize("pair", KINDS, ids=lambda kind: kind.name, indirect=True)
def test_a_model_computes_what_its_blocks_stand_for(pair: tuple[Path, Path]) -> None:
    blocks, numbers = pair
    expected = load(numbers)
    assert difference(load(blocks, dtype="fp32"), expected) < 1e-4
    assert difference(load(blocks), expected) < 0.3  # activations are rounded to 8 bits beside blocks, numbers to 16


@pytest.mark.parametrize("pair", KINDS, ids=lambda kind: kind.name, indirect=True)
def test_it_is_held_as_it_is_said_and_takes_the_memory_that_was_foreseen(pair: tuple[Path, Path], request: pytest.FixtureRequest) -> None:
    kind: Kind = request.node.callspec.params["pair"]
    for dtype, bits in (("auto", KEPT[kind].bits if kind in KEPT else 32 if kind == Kind.F32 else 16), ("fp32", 32)):
        loaded = load(pair[0], dtype=dtype)
        assert {module.bits for module in loaded.model.modules() if isinstance(module, KernelLinear)} == {bits}
        folder = checkpoint_folder(loaded.config, lambda _: None)
        foreseen = weight_bytes(folder, loaded.config, read_checkpoint_config(folder), device_type="cpu")
        assert foreseen == pytest.approx(loaded.weight_bytes, rel=0.05)


def test_every_kind_that_the_package_unpacks_is_listed_and_each_claim_has_its_test() -> None:
    # NVFP4 has a scale for each tensor beside its blocks, which no weight of transformers' classes has a place for.
    assert set(KINDS) == {*_type_traits, Kind.F32, Kind.F16} - {Kind.NVFP4}
    claims = [proofs_of_kind(kind) for kind in KINDS] + [proofs_of_architecture(name) for name in configurations(480)]
    for proof in {proof for proofs in claims for proof in proofs}:
        module, _, function = proof.rpartition(".")
        assert callable(getattr(importlib.import_module(module), function))
