"""GPTQ checkpoints that the test quantizes itself: loaded, they compute what their integers, scales and zero points stand for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import GenerationConfig, TextDelta
from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.checkpoints.memory_estimate import estimate
from mm_gateway.runtime.checkpoints.quantized.gptq import read_format
from mm_gateway.runtime.inference_engine import InferenceEngine
from mm_gateway.runtime.model_loader import ModelLoader
from tests.support import checkpoints
from tests.support.gptq_checkpoint import quantize_checkpoint
from tests.support.qwen_v1_checkpoint import make_qwen_v1, reference_logits

IDS = [(5 * place + 3) % 300 for place in range(24)]


def config_of(folder: Path, **more: Any) -> ModelConfig:
    fields: dict[str, Any] = {"dtype": "fp32", "quantization": "gptq"} | more
    return ModelConfig(model_name=str(folder), device="cpu", **fields)


def logits_of(folder: Path, **more: Any) -> torch.Tensor:
    model = ModelLoader(pack=False).load(config_of(folder, **more)).model
    with torch.inference_mode():
        return model(torch.tensor([IDS])).logits[0]


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"desc_act": True},
        {"sym": False},
        {"sym": False, "v2": True},
        {"v2": True, "desc_act": True},
        {"bits": 8},
        {"bits": 2},
        {"bits": 3, "sym": False},
        {"group_size": -1},
        {"g_idx": False},
    ],
    ids=str,
)
def test_weights_are_exactly_what_the_integers_stand_for(tmp_path: Path, form: dict[str, Any]) -> None:
    folder = checkpoints.llama(tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(folder)
    meant = quantize_checkpoint(folder, **form)
    plain.load_state_dict(meant)
    with torch.inference_mode():
        torch.testing.assert_close(logits_of(folder), plain(torch.tensor([IDS])).logits[0])


@pytest.mark.parametrize("old_names", [False, True])
def test_qwen_v1_int4_with_its_fused_attention_and_zero_biases(tmp_path: Path, old_names: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    make_qwen_v1(tmp_path, old_names=old_names)
    meant = quantize_checkpoint(tmp_path, zero_biases=True)
    torch.testing.assert_close(logits_of(tmp_path, trust_remote_code=True), reference_logits(meant, IDS), rtol=1e-5, atol=1e-4)
    loaded = ModelLoader().load(config_of(tmp_path))
    assert loaded.generation_defaults.top_p == 0.8
    assert len(loaded.stop_token_ids) == 3


def test_packed_for_the_cpu_it_answers(tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path)
    quantize_checkpoint(folder)
    loaded = ModelLoader().load(config_of(folder, dtype="fp16"))
    need = estimate(folder, config_of(folder, dtype="fp16"), EngineSettings(), device_type="cpu", budget_bytes=None)
    assert need.weight_bytes == pytest.approx(loaded.weight_bytes, rel=0.1)
    engine = InferenceEngine.for_loaded_model(loaded, EngineSettings(max_running=2))
    config = GenerationConfig(max_new_tokens=8, temperature=0, ignore_eos=True)
    tokens = [token for event in engine.submit([IDS], config) if isinstance(event, TextDelta) for token in event.token_ids]
    engine.close()
    assert len(tokens) == 8


def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path)
    with pytest.raises(ModelLoadError, match="not quantized with GPTQ"):
        ModelLoader().load(config_of(folder))
    quantize_checkpoint(folder)
    for wrong in ("8bit", "awq"):
        with pytest.raises(ModelLoadError, match="quantized with GPTQ already; set quantization: gptq, or leave it out"):
            ModelLoader().load(config_of(folder, quantization=wrong))
    ModelLoader().load(config_of(folder, quantization=None))
    stored = load_file(folder / "model.safetensors")
    save_file({name: t for name, t in stored.items() if "layers.0.mlp.up_proj.scales" not in name}, folder / "model.safetensors")
    with pytest.raises(ModelLoadError, match="up_proj lacks scales"):
        ModelLoader().load(config_of(folder))
    stored["model.layers.0.mlp.up_proj.bias"] = torch.ones(128)
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match="no place for"):
        ModelLoader().load(config_of(folder))
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["bits"] = 5
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelLoadError, match="5 bits"):
        read_format(folder)
