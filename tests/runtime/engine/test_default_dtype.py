"""torch's default type is one of the whole process, and transformers changes it while it builds a model: nothing here may depend on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import GenerationConfig, PromptTokens, TextDelta
from mm_gateway.runtime.inference_engine import InferenceEngine
from mm_gateway.runtime.model_loader import ModelLoader

PROMPTS = ["Hello", "The quick brown fox " * 4, "Once upon a time there was"]
CONFIGS = [
    GenerationConfig(max_new_tokens=12, temperature=0, ignore_eos=True, logprobs=3, prompt_logprobs=2),
    GenerationConfig(max_new_tokens=12, temperature=1.3, seed=5, top_p=0.9, top_k=40, min_p=0.01, ignore_eos=True, n=2, logprobs=1),
    GenerationConfig(
        max_new_tokens=12, temperature=1, seed=6, presence_penalty=1.1, frequency_penalty=0.7, repetition_penalty=1.2, logit_bias={5: 2.5}
    ),
]


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def answers(engine: InferenceEngine) -> list[Any]:
    found: list[Any] = []
    for config in CONFIGS:
        for prompt in PROMPTS:
            events = engine.submit([engine.encode(prompt)], config)
            found += [event for event in events if isinstance(event, TextDelta | PromptTokens)]
    return found


@pytest.mark.parametrize("layout", ["slots", "paged"])
@pytest.mark.parametrize("precision", [{"dtype": "fp32"}, {"dtype": "fp16"}, {"quantization": "8bit"}, {"quantization": "4bit"}])
def test_an_engine_computes_the_same_whatever_the_process_takes_for_its_default(
    checkpoint: Path, precision: dict[str, Any], layout: Any
) -> None:
    loaded = ModelLoader().load(ModelConfig(model_name=str(checkpoint), device="cpu", **precision))
    engine = InferenceEngine.for_loaded_model(loaded, EngineSettings(prefix_cache=False), None, kv_layout=layout, kv_block_size=16)
    try:
        expected = answers(engine)
        for dtype in (torch.float16, torch.float64):
            with default_dtype(dtype):
                assert answers(engine) == expected
    finally:
        engine.close()


@pytest.mark.parametrize("precision", [{"dtype": "fp16"}, {"dtype": "bf16"}, {"quantization": "8bit"}])
def test_a_load_does_not_change_it(checkpoint: Path, precision: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines that run meanwhile made half the memory that a kernel then wrote to."""
    changed: list[torch.dtype] = []
    original = torch.set_default_dtype

    def recorded(dtype: torch.dtype) -> None:
        changed.append(dtype)
        original(dtype)

    monkeypatch.setattr(torch, "set_default_dtype", recorded)
    loaded = ModelLoader().load(ModelConfig(model_name=str(checkpoint), device="cpu", **precision))
    assert set(changed) <= {torch.float32}
    assert loaded.model.config.dtype == ({"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision.get("dtype", ""), torch.float32))
