"""Estimates from headers against what models really take, for every family and precision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.runtime.checkpoints import packed_linear
from mm_gateway.runtime.checkpoints.context_length import configured_length, trained_length
from mm_gateway.runtime.checkpoints.memory_estimate import estimate, kv_bytes_per_token
from mm_gateway.runtime.checkpoints.stored.tensor_headers import read_headers
from mm_gateway.runtime.inference_engine import InferenceEngine
from mm_gateway.runtime.model_loader import ModelLoader
from tests.support import checkpoints

PRECISIONS: list[dict[str, Any]] = [
    {"dtype": "fp32"},
    {"dtype": "fp16"},
    {"dtype": "bf16"},
    {"quantization": "8bit"},
    {"quantization": "4bit"},
    {},
]


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
def test_the_estimate_of_weights_is_what_they_take(checkpoint: Path, precision: dict[str, Any]) -> None:
    config = ModelConfig(model_name=str(checkpoint), device="cpu", **precision)
    need = estimate(checkpoint, config, EngineSettings(), device_type="cpu", budget_bytes=None)
    assert need.weight_bytes == pytest.approx(ModelLoader().load(config).weight_bytes, rel=0.1)


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
@pytest.mark.parametrize("compiled", [True, False], ids=["kernels", "no kernels"])
def test_tied_embeddings_are_counted_as_they_are_stored(
    tmp_path: Path, precision: dict[str, Any], compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(packed_linear, "library", lambda: None)
    folder = checkpoints.llama(tmp_path / "tied", tie_word_embeddings=True)
    config = ModelConfig(model_name=str(folder), device="cpu", **precision)
    need = estimate(folder, config, EngineSettings(), device_type="cpu", budget_bytes=None)
    assert need.weight_bytes == pytest.approx(ModelLoader().load(config).weight_bytes, rel=0.1)


def test_the_kv_cache_gets_what_its_sequences_can_use_within_its_share(llama_checkpoint: Path) -> None:
    settings = EngineSettings(max_running=4)
    config = ModelConfig(model_name=str(llama_checkpoint), device="cpu", dtype="fp32")
    per_token = kv_bytes_per_token(json.loads((llama_checkpoint / "config.json").read_text()), 4)
    assert per_token == 2 * 2 * 2 * 16 * 4  # keys and values, layers, KV heads, head size, bytes
    free = estimate(llama_checkpoint, config, settings, device_type="cpu", budget_bytes=None)
    assert free.kv_cache_bytes == 8 * 256 * per_token
    tight = estimate(llama_checkpoint, config, settings, device_type="cpu", budget_bytes=free.weight_bytes + 4 * 300 * per_token)
    assert tight.kv_cache_bytes == 300 * per_token
    tighter = estimate(llama_checkpoint, config, settings, device_type="cpu", budget_bytes=free.weight_bytes)
    assert tighter.kv_cache_bytes == 256 * per_token
    engine = InferenceEngine.for_loaded_model(ModelLoader().load(config), settings, free.kv_cache_bytes)
    assert engine.kv_cache_bytes == free.kv_cache_bytes
    engine.close()


def test_the_counts_that_penalties_need_are_part_of_the_need(checkpoint: Path) -> None:
    """On a vocabulary of 150,000 tokens and 32 sequences these are 14 MB, taken when the first request with penalties comes."""
    config = ModelConfig(model_name=str(checkpoint), device="cpu", dtype="fp32", max_running=7)
    need = estimate(checkpoint, config, EngineSettings(), device_type="cpu", budget_bytes=None)
    engine = InferenceEngine.for_loaded_model(ModelLoader().load(config), EngineSettings(), need.kv_cache_bytes)
    assert need.penalty_bytes == engine.penalty_bytes > 7 * 3 * 400
    assert need.total == need.weight_bytes + need.kv_cache_bytes + need.penalty_bytes
    engine.close()


def test_the_context_is_the_smallest_number_of_positions_that_a_checkpoint_names() -> None:
    assert trained_length({"max_position_embeddings": 32768, "seq_length": 8192}.get) == 8192
    assert trained_length({"n_positions": 1024, "max_position_embeddings": None}.get) == 1024
    assert trained_length({}.get) == 2048
    assert trained_length({"max_position_embeddings": 4096, "rope_scaling": {"type": "dynamic", "factor": 2.0}}.get) == 8192
    assert trained_length({"max_position_embeddings": 4096, "rope_parameters": {"rope_type": "yarn", "factor": 2.0}}.get) == 4096
    assert configured_length({"n_positions": 1024}.get, ModelConfig(model_name="x", max_context_length=4096)) == 1024
    assert configured_length({"n_positions": 1024}.get, ModelConfig(model_name="x", max_context_length=100)) == 100


def test_on_a_gpu_weights_count_in_their_own_precision(llama_checkpoint: Path) -> None:
    def weights(**more: Any) -> int:
        config = ModelConfig(model_name=str(llama_checkpoint), **more)
        return estimate(llama_checkpoint, config, EngineSettings(), device_type="cuda", budget_bytes=None).weight_bytes

    assert weights(dtype="fp32") == 2 * weights(dtype="bf16")
    assert weights(dtype="fp16", quantization="4bit") < weights(dtype="fp16", quantization="8bit") < weights(dtype="fp16")


def test_a_file_that_is_no_safetensors_says_so(tmp_path: Path) -> None:
    for content in (b"", b"\0" * 8, b"\x20" + b"\0" * 7 + b"{not json"):
        (tmp_path / "model.safetensors").write_bytes(content)
        with pytest.raises(ValueError, match="safetensors"):
            list(read_headers(tmp_path / "model.safetensors"))
