"""With which values a GGUF file is sampled: its own, else llama.cpp's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from mm_gateway.configuration.model_config import ModelConfig, SamplingDefaults
from mm_gateway.core import GenerationConfig
from mm_gateway.runtime.checkpoints.loaded_model import GenerationDefaults
from mm_gateway.runtime.model_loader import ModelLoader
from tests.support.checkpoints import make_tokenizer
from tests.support.gguf_checkpoint import write_gguf

LLAMA_CPPS = GenerationDefaults(temperature=0.8, top_p=0.95, top_k=40, min_p=0.05, repetition_penalty=1.0)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer(["<|endoftext|>"], bos_token="<|endoftext|>", eos_token="<|endoftext|>")


def defaults_of(tokenizer: PreTrainedTokenizerFast, folder: Path, said: dict[str, float], **entry: Any) -> GenerationDefaults:
    shape: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }
    model = AutoModelForCausalLM.from_config(transformers.LlamaConfig(vocab_size=len(tokenizer), **shape))
    file = write_gguf(folder / "model.gguf", model, tokenizer, sampling=said)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        return ModelLoader().load(ModelConfig(model_name="m", path=str(file), device="cpu", **entry)).generation_defaults


def test_a_file_that_says_nothing_is_sampled_as_llama_cpp_does(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    assert defaults_of(tokenizer, tmp_path, {}) == LLAMA_CPPS


def test_what_the_file_says_counts_also_where_it_is_zero(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    said = {"temp": 0.0, "top_k": 0, "top_p": 0.5, "min_p": 0.25, "penalty_repeat": 1.5}
    found = defaults_of(tokenizer, tmp_path, said)
    assert found == GenerationDefaults(temperature=0, top_k=0, top_p=0.5, min_p=0.25, repetition_penalty=1.5)
    config = found.complete(GenerationConfig(temperature=1.0))
    assert (config.temperature, config.top_k, config.top_p, config.min_p, config.repetition_penalty) == (1, 0, 0.5, 0.25, 1.5)


def test_the_entry_wins(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    found = defaults_of(tokenizer, tmp_path, {"temp": 0.5}, sampling=SamplingDefaults(temperature=0.25, min_p=0))
    assert (found.temperature, found.min_p, found.top_k) == (0.25, 0, 40)


def test_a_sampler_that_is_not_there_is_named(tokenizer: PreTrainedTokenizerFast, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert defaults_of(tokenizer, tmp_path, {"mirostat": 2, "xtc_probability": 0.0}) == LLAMA_CPPS
    assert "model.gguf: general.sampling.mirostat is not read" in caplog.text
    assert "xtc_probability" not in caplog.text
