"""Checkpoints in every published variant: loaded, they compute what an independent dequantization in numpy says that they stand for."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import GenerationConfig, TextDelta
from mm_gateway.runtime.checkpoints.memory_estimate import estimate
from mm_gateway.runtime.checkpoints.packed_linear import KernelLinear
from mm_gateway.runtime.checkpoints.quantized.formats import FORMATS, format_of
from mm_gateway.runtime.checkpoints.quantized.source import QuantizedSource
from mm_gateway.runtime.checkpoints.stored.stored_tensors import StoredTensors
from mm_gateway.runtime.inference_engine import InferenceEngine
from mm_gateway.runtime.kernels.blocks import Blocks
from mm_gateway.runtime.model_loader import LoadedModel, ModelLoader
from tests.support import checkpoints
from tests.support.quantized.rows import PROOFS, ROWS, Row

IDS = [(7 * place + 3) % 300 for place in range(40)]
LLAMA: dict[str, Any] = {
    "hidden_size": 288,  # three groups of 96, 2.25 blocks of 128
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 672,
    "initializer_range": 0.08,
}
MAKE: dict[str, Callable[[Path], Path]] = {
    "Llama": lambda folder: checkpoints.llama(folder, **LLAMA),
    "Llama, tied": lambda folder: checkpoints.llama(folder, **LLAMA, tie_word_embeddings=True),
    "GPT-2": lambda folder: checkpoints.gpt2(folder, n_embd=96, n_head=3, initializer_range=0.1),
}
BITS = {"int4": {4}, "int8": {8}, "int4, int8": {4, 8}, "16 bits": {16}}


@pytest.fixture(
    scope="module",
    params=[(row, family) for row in ROWS for family in row.families],
    ids=lambda case: f"{case[0].format}: {case[0].variant}; {case[1]}",
)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(row, folder, model in fp32 with the weights that are meant)."""
    row, family = request.param
    folder = tmp_path_factory.mktemp("published") / "checkpoint"
    MAKE[family](folder)
    reference: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    missing = reference.load_state_dict(row.write(folder), strict=False).missing_keys
    assert set(missing) <= {"lm_head.weight"}  # tied
    yield row, folder, reference.eval()
    shutil.rmtree(folder)


def load(folder: Path, **more: Any) -> LoadedModel:
    return ModelLoader().load(ModelConfig(model_name=str(folder), device="cpu", **more))


@torch.inference_mode()
def logits(model: PreTrainedModel) -> torch.Tensor:
    return model(torch.tensor([IDS])).logits[0]


def test_in_fp32_it_computes_and_writes_what_is_meant(case: tuple[Row, Path, Any]) -> None:
    _, folder, reference = case
    loaded, expected = load(folder, dtype="fp32"), logits(reference)
    assert (logits(loaded.model) - expected).abs().max() < 1e-4 * expected.std()
    engine = InferenceEngine.for_loaded_model(loaded, EngineSettings(max_running=2))
    greedy = GenerationConfig(max_new_tokens=16, temperature=0, ignore_eos=True, repetition_penalty=1.0)
    found = [token for event in engine.submit([IDS[:20]], greedy) if isinstance(event, TextDelta) for token in event.token_ids]
    engine.close()
    options = {"max_new_tokens": 16, "min_new_tokens": 16, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    with torch.inference_mode():
        assert found == reference.generate(torch.tensor([IDS[:20]]), **options)[0, 20:].tolist()


def test_by_default_it_is_held_as_it_is_stored_and_takes_the_memory_that_was_foreseen(case: tuple[Row, Path, Any]) -> None:
    row, folder, reference = case
    loaded, expected = load(folder), logits(reference)
    bits = {module.bits for name, module in loaded.model.named_modules() if isinstance(module, KernelLinear) and "lm_head" not in name}
    assert bits == BITS[row.held]
    # What is left is the rounding of activations to 8 bits, or of weights to 16.
    assert (logits(loaded.model) - expected).abs().max() < (0.02 if row.held == "16 bits" else 0.2) * expected.std()
    for dtype in ("auto", "fp32"):
        config = ModelConfig(model_name=str(folder), device="cpu", dtype=dtype)
        need = estimate(folder, config, EngineSettings(), device_type="cpu", budget_bytes=None)
        taken = loaded.weight_bytes if dtype == "auto" else load(folder, dtype=dtype).weight_bytes
        assert need.weight_bytes == pytest.approx(taken, rel=0.05)


def test_blocks_and_numbers_are_those_that_are_meant(case: tuple[Row, Path, Any]) -> None:
    row, folder, reference = case
    form, stored = format_of(folder, ModelConfig(model_name=str(folder))), StoredTensors(folder)
    layers = form.layers(stored)
    kept, unpacked = (QuantizedSource(stored, layers, keep_blocks=keep) for keep in (True, False))
    meant = dict(reference.state_dict())
    assert layers
    for name in layers:
        numbers, held = unpacked.read_layer(name, torch.float32), kept.read_layer(name, torch.float32)
        assert isinstance(numbers, torch.Tensor)
        assert isinstance(held, Blocks) is (row.held != "16 bits")
        expected = meant[name].T if numbers.shape != meant[name].shape or "transformer.h" in name else meant[name]
        torch.testing.assert_close(numbers, expected, rtol=1e-6, atol=1e-7)
        if isinstance(held, Blocks):
            torch.testing.assert_close(held.dequantize(), expected, rtol=1e-6, atol=1e-7)
        assert unpacked.read(name, torch.bfloat16).dtype == torch.bfloat16


def test_every_published_format_has_variants_and_each_of_them_its_tests() -> None:
    assert {row.format for row in ROWS} == {name for name, form in FORMATS.items() if form.published}
    for row in ROWS:
        assert row.families or row.proofs is not PROOFS  # those of this module run once for each family
        for proof in row.proofs:
            module, _, function = proof.rpartition(".")
            assert callable(getattr(importlib.import_module(module), function))
