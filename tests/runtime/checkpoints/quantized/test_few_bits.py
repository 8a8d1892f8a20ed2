"""`quantization: 8bit` and `4bit` on a CPU: from any checkpoint, without a package, served as the model itself computes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import GenerationConfig
from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.checkpoints.packed_linear import KernelLinear
from mm_gateway.runtime.checkpoints.quantized.formats import FORMATS
from mm_gateway.runtime.inference_engine import InferenceEngine
from mm_gateway.runtime.model_loader import ModelLoader

PRECISIONS = [("dtype", "fp32"), ("dtype", "fp16"), ("quantization", "8bit"), ("quantization", "4bit")]
GREEDY = GenerationConfig(max_new_tokens=6, temperature=0, ignore_eos=True)


def config_of(folder: Path, **more: Any) -> ModelConfig:
    return ModelConfig(model_name=str(folder), device="cpu", **more)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_4bit_on_a_cpu_needs_no_package(family: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # importing it is an error
    folder: Path = request.getfixturevalue(f"{family}_checkpoint")
    loaded = ModelLoader().load(config_of(folder, quantization="4bit"))
    assert loaded.weight_bytes < 0.7 * ModelLoader().load(config_of(folder, quantization=None)).weight_bytes
    engine = InferenceEngine.for_loaded_model(loaded, EngineSettings(max_running=2))
    first = engine.generate("Hello", GREEDY)
    assert first.completion_tokens == 6
    assert engine.generate("Hello", GREEDY).text == first.text
    engine.close()


def test_the_output_layer_keeps_8_bits(llama_checkpoint: Path) -> None:
    model = ModelLoader().load(config_of(llama_checkpoint, quantization="4bit")).model
    bits = {name: module.bits for name, module in model.named_modules() if isinstance(module, KernelLinear)}
    assert bits.pop("lm_head") == 8
    assert set(bits.values()) == {4}


@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
def test_a_text_does_not_depend_on_those_beside_it(llama_checkpoint: Path, quantization: Any) -> None:
    loaded = ModelLoader().load(config_of(llama_checkpoint, quantization=quantization))
    engine = InferenceEngine.for_loaded_model(loaded, EngineSettings(max_running=8, prefix_cache=False))
    prompts = [engine.encode("Hello " * count) for count in range(1, 9)]
    config = GenerationConfig(max_new_tokens=12, temperature=1.0, seed=7, ignore_eos=True)

    def tokens(generation: Any) -> list[int]:
        return [token for event in generation if hasattr(event, "token_ids") for token in event.token_ids]

    alone = [tokens(engine.submit([prompt], config)) for prompt in prompts]
    together = [tokens(each) for each in [engine.submit([prompt], config) for prompt in prompts]]
    assert together == alone
    engine.close()


def test_the_check_at_load_measures_what_the_precision_explains_and_says_what_differed(llama_checkpoint: Path) -> None:
    loaded = {precision: ModelLoader().load(config_of(llama_checkpoint, **dict([precision]))) for precision in PRECISIONS}
    assert [each.rounding for each in loaded.values()] == [0.02, 0.02, 0.02, 0.02]
    eight = loaded["quantization", "8bit"]
    decoder: Any = eight.model.get_decoder()
    handle = decoder.layers[0].self_attn.register_forward_hook(
        lambda module, inputs, output: (output[0] * 1.5, *output[1:]) if inputs or output[0].shape[1] != 8 else None
    )
    with pytest.raises(ModelLoadError, match=r"logit of token \d+ is .* in place of .* this precision explains 0\.\d+"):
        InferenceEngine.for_loaded_model(eight, EngineSettings(max_running=2, compiled_forward=False))
    handle.remove()


@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
def test_on_a_gpu_the_missing_package_is_named_with_its_extra(quantization: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    config = ModelConfig(model_name="m", quantization=quantization)
    with pytest.raises(ModelLoadError, match=r"bitsandbytes: pip install 'mm-gateway\[bnb\]'"):
        FORMATS[quantization].quantizer(config, torch.device("cuda"), torch.float16)
