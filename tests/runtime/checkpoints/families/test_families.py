"""Families of transformers: served exactly, or refused with a reason; never silently wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import GenerationConfig, TextDelta
from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.inference_engine import InferenceEngine
from mm_gateway.runtime.model_loader import ModelConfig, ModelLoader
from tests.support.families import REFUSED, SERVED, Family, make_family


@pytest.mark.parametrize("family", SERVED, ids=lambda family: family.name)
def test_served_families_are_exact(tmp_path: Path, family: Family) -> None:
    folder = make_family(tmp_path, family)
    reference: Any = AutoModelForCausalLM.from_pretrained(folder)
    loaded = ModelLoader().load(ModelConfig(model_name=str(folder), device="cpu", dtype="fp32"))
    engine = InferenceEngine.for_loaded_model(loaded, EngineSettings(max_running=4, max_step_tokens=16))
    prompts = [engine.encode(text) for text in ("Hello", "The quick brown fox jumps over the lazy dog. " * 2)]
    config = GenerationConfig(max_new_tokens=20, temperature=0, ignore_eos=True, repetition_penalty=1.0)
    generations = [engine.submit([prompt], config) for prompt in prompts]
    found = [[token for event in each if isinstance(event, TextDelta) for token in event.token_ids] for each in generations]
    engine.close()
    options = {"max_new_tokens": 20, "min_new_tokens": 20, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    with torch.inference_mode():
        expected = [reference.generate(torch.tensor([prompt]), **options)[0, len(prompt) :].tolist() for prompt in prompts]
    assert found == expected


@pytest.mark.parametrize("family", REFUSED, ids=lambda family: family.name)
def test_what_cannot_be_served_rightly_is_refused_with_its_reason(tmp_path: Path, family: Family) -> None:
    folder = make_family(tmp_path, family)
    with pytest.raises(ModelLoadError, match=r"cannot take over|can take over|cannot drive|cache cannot hold"):
        loaded = ModelLoader().load(ModelConfig(model_name=str(folder), device="cpu", dtype="fp32"))
        InferenceEngine.for_loaded_model(loaded, EngineSettings())
