"""The engine on a CUDA device: exact in fp32, close in 16 bits, the same with and without graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import GenerationConfig, TextDelta
from mm_gateway.errors import OutOfMemoryError
from mm_gateway.runtime.inference_engine import InferenceEngine
from mm_gateway.runtime.kv_cache.block_attention import choose_kernel
from mm_gateway.runtime.model_loader import ModelConfig, ModelLoader
from tests.support import checkpoints
from tests.support.gptq_checkpoint import quantize_checkpoint

pytestmark = pytest.mark.gpu

GREEDY = GenerationConfig(max_new_tokens=32, temperature=0, ignore_eos=True)
TEXTS = ["Hello", "The quick brown fox " * 6, "你好，世界！", "def main(argument: int) -> str:"]


@pytest.fixture
def make_engine() -> Iterator[Callable[..., InferenceEngine]]:
    engines: list[InferenceEngine] = []

    def make(folder: Path, *, dtype: Any = "fp32", quantization: Any = None, **settings: Any) -> InferenceEngine:
        config = ModelConfig(model_name=str(folder), device="cuda", dtype=dtype, quantization=quantization, flash_attention=True)
        engine = InferenceEngine.for_loaded_model(ModelLoader().load(config), EngineSettings(**settings))
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.close()


def wide(folder: Path) -> Path:
    """Heads as wide as flash kernels like them."""
    return checkpoints.llama(folder, hidden_size=256, num_attention_heads=4, num_key_value_heads=2, intermediate_size=256)


def tokens_of(engine: InferenceEngine, prompts: list[list[int]], config: GenerationConfig = GREEDY) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in prompts]
    for event in engine.submit(prompts, config):
        if isinstance(event, TextDelta):
            found[event.index] += event.token_ids
    return found


def reference(folder: Path, prompts: list[list[int]]) -> list[list[int]]:
    model: Any = AutoModelForCausalLM.from_pretrained(folder, device_map="cuda")
    with torch.inference_mode():
        options = {"max_new_tokens": 32, "min_new_tokens": 32, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
        return [model.generate(torch.tensor([ids], device="cuda"), **options)[0, len(ids) :].tolist() for ids in prompts]


def test_fp32_greedy_equals_generate(checkpoint: Path, make_engine: Callable[..., InferenceEngine]) -> None:
    engine = make_engine(checkpoint)
    prompts = [engine.encode(text) for text in TEXTS] * 4
    assert tokens_of(engine, prompts) == reference(checkpoint, prompts[:4]) * 4


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_graphs_change_nothing(tmp_path: Path, make_engine: Callable[..., InferenceEngine], dtype: str) -> None:
    folder = wide(tmp_path)
    engine = make_engine(folder, dtype=dtype, max_running=16)
    prompts = [engine.encode(text) for text in TEXTS]
    scored = GenerationConfig(max_new_tokens=16, temperature=0, ignore_eos=True, logprobs=1)
    together = [event for event in engine.submit(prompts, scored) if isinstance(event, TextDelta)]
    assert all(token.logprob is not None and token.logprob <= 0 for event in together for token in event.logprobs)
    # Batches of 1 and of 4 use other graphs and other kernels; equal texts are likely, not certain, so prefixes are compared.
    alone = [tokens_of(engine, [prompt])[0] for prompt in prompts]
    assert [tokens[:2] for tokens in tokens_of(engine, prompts)] == [tokens[:2] for tokens in alone]


def test_a_paged_flash_kernel_is_found_in_16_bits() -> None:
    shape: dict[str, Any] = {"device": torch.device("cuda"), "heads": 8, "kv_heads": 2, "head_dim": 64, "block_size": 256}
    assert choose_kernel(**shape, dtype=torch.bfloat16, flash_attention=True).graphs
    assert not choose_kernel(**shape, dtype=torch.float32, flash_attention=True).graphs


def test_prefixes_are_reused(tmp_path: Path, make_engine: Callable[..., InferenceEngine]) -> None:
    engine = make_engine(wide(tmp_path))
    shared = engine.encode("System: you are a helpful assistant. " * 4)
    first = tokens_of(engine, [shared + engine.encode(" one")])
    assert tokens_of(engine, [shared + engine.encode(" one")]) == first
    assert engine.stats().cached_tokens >= len(shared) - 16


def test_a_cache_without_room_is_refused_with_advice(llama_checkpoint: Path) -> None:
    config = ModelConfig(model_name=str(llama_checkpoint), device="cuda", kv_cache_bytes=1000)
    with pytest.raises(OutOfMemoryError, match="max_cached_models"):
        InferenceEngine.for_loaded_model(ModelLoader().load(config), EngineSettings())


@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
def test_bitsandbytes_models_answer(tmp_path: Path, make_engine: Callable[..., InferenceEngine], quantization: str) -> None:
    pytest.importorskip("bitsandbytes", reason="the extra bnb is not installed")
    engine = make_engine(wide(tmp_path), dtype="fp16", quantization=quantization)
    assert len(tokens_of(engine, [engine.encode("Hello")])[0]) == 32


def test_gptq_models_answer(tmp_path: Path, make_engine: Callable[..., InferenceEngine]) -> None:
    folder = wide(tmp_path)
    quantize_checkpoint(folder, group_size=128)
    engine = make_engine(folder, dtype="fp16", quantization="gptq")
    assert len(tokens_of(engine, [engine.encode("Hello")])[0]) == 32
