"""Published checkpoints on a CUDA device compute what they stand for, packed by transformers and unpacked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGMLQuantizationType
from transformers import AutoModelForCausalLM, AutoTokenizer

from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import GenerationConfig
from mm_gateway.runtime.checkpoints.quantized.formats import format_of, is_unpacked
from mm_gateway.runtime.inference_engine import InferenceEngine
from mm_gateway.runtime.model_loader import ModelLoader
from tests.support import checkpoints
from tests.support.gguf_checkpoint import write_gguf
from tests.support.quantized.rows import ROWS, Row

pytestmark = pytest.mark.gpu

# Widths of whole groups of 96 and of 128, as kernels of GPUs want them.
SHAPE: dict[str, Any] = {"hidden_size": 768, "num_attention_heads": 12, "num_key_value_heads": 4, "intermediate_size": 1536}
IDS = torch.tensor([[(7 * place + 3) % 300 for place in range(40)]])


@torch.inference_mode()
def logits(model: Any) -> torch.Tensor:
    return model(IDS.to(model.device)).logits[0].float().cpu()


def assert_served_as_meant(config: ModelConfig, expected: torch.Tensor) -> None:
    loaded = ModelLoader().load(config)
    assert (logits(loaded.model) - expected).abs().max() < 0.3 * expected.std()  # activations of some have 8 bits
    engine = InferenceEngine.for_loaded_model(loaded, EngineSettings(max_running=2))
    try:
        generation = GenerationConfig(max_new_tokens=8, temperature=0, ignore_eos=True)
        assert engine.generate("Hello", generation).completion_tokens == 8
    finally:
        engine.close()


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "unpacked"])
@pytest.mark.parametrize("row", [row for row in ROWS if row.families], ids=lambda row: f"{row.format}: {row.variant}")
def test_published_checkpoints_compute_what_they_stand_for(row: Row, packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checkpoints.llama(tmp_path, **SHAPE)
    reference: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    reference.load_state_dict(row.write(folder))
    config = ModelConfig(model_name=str(folder), device="cuda", dtype="bf16")
    monkeypatch.setenv("USE_HUB_KERNELS", str(int(packed)))
    if not packed:
        monkeypatch.setattr("mm_gateway.runtime.checkpoints.quantized.format.find_spec", lambda name: None)
    elif is_unpacked(folder, format_of(folder, config), "cuda"):
        pytest.skip("its packages are not installed, or transformers does not read it")
    assert is_unpacked(folder, format_of(folder, config), "cuda") is not packed
    assert_served_as_meant(config, logits(reference))


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "BF16"])
def test_gguf_files_are_unpacked(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = checkpoints.llama(tmp_path / "checkpoint", **SHAPE)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    file = write_gguf(tmp_path / "m.gguf", model, tokenizer, GGMLQuantizationType[kind])
    whole = ModelLoader().load(ModelConfig(model_name="m", path=str(file), device="cpu", dtype="fp32"))
    assert_served_as_meant(ModelConfig(model_name="m", path=str(file), device="cuda"), logits(whole.model))
