"""Rotary angles that depend on the length: a text is what `generate` makes of its prompt, whatever runs beside it and however it is cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, Phi3Config, PreTrainedConfig

from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.runtime.inference_engine import InferenceEngine
from mm_gateway.runtime.kernels.library import library
from mm_gateway.runtime.kv_cache.choosing import Layout
from mm_gateway.runtime.model_loader import ModelConfig, ModelLoader
from tests.runtime.engine.forward.test_compiled_forward import SHAPE, TOKENS, prompt, save, tokens_of

ORIGINAL = 64
LONG_FACTORS = [1.0 + 0.7 * index for index in range(8)]
LONGROPE = {"rope_type": "longrope", "long_factor": LONG_FACTORS, "short_factor": [1.0] * 8, "rope_theta": 10000.0}
DYNAMIC = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "longrope": lambda: Phi3Config(**SHAPE, sliding_window=None, original_max_position_embeddings=ORIGINAL, rope_parameters=LONGROPE),
    "dynamic": lambda: LlamaConfig(**{**SHAPE, "max_position_embeddings": ORIGINAL}, rope_parameters=DYNAMIC),
}
# Far below what models were trained for, a little below, so that the text grows beyond it, just at it, and beyond.
LENGTHS = [20, ORIGINAL - 5, ORIGINAL, ORIGINAL + 1, 150]


@pytest.mark.parametrize("layout", ["slots, compiled", "slots, modules", "paged"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_a_text_is_what_generate_makes_of_its_prompt(kind: str, layout: str, tmp_path: Path) -> None:
    if layout == "slots, compiled" and library() is None:
        pytest.skip("no C++ compiler")
    config = CONFIGS[kind]()
    folder, model = save(tmp_path, config)
    # The end of one is the beginning of the next, too: what is kept of it has other angles.
    prompts = [prompt(length) for length in LENGTHS] + [prompt(length, 2) for length in LENGTHS]
    expected: list[list[int]] = []
    for each in prompts:
        rotary: Any = model.base_model.rotary_emb
        if kind == "dynamic":  # it goes on with the angles of the longest one before
            rotary.max_seq_len_cached = ORIGINAL
            rotary.register_buffer("inv_freq", rotary.original_inv_freq, persistent=False)
        found = model.generate(torch.tensor([each]), max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False)  # type: ignore[operator]
        expected.append(found[0, len(each) :].tolist())
    loaded = ModelLoader().load(ModelConfig(model_name=str(folder), device="cpu", dtype="fp32"))
    settings = EngineSettings(max_step_tokens=48, compiled_forward=layout == "slots, compiled")
    kv_layout: Layout = "paged" if layout == "paged" else "slots"
    engine = InferenceEngine.for_loaded_model(loaded, settings, kv_layout=kv_layout)
    try:
        assert tokens_of(engine, prompts) == expected
        for each, text in zip(prompts, expected, strict=True):
            assert tokens_of(engine, [each]) == [text]
    finally:
        engine.close()
