"""Weights that move out and back are the same; the whole way through a GPU runs where there is one."""

from __future__ import annotations

import weakref
from pathlib import Path

import pytest
import torch

from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.core import GenerationConfig
from mm_gateway.runtime.checkpoints.host_tier import can_move, reclaim, to_device, to_host
from mm_gateway.runtime.model_loader import ModelLoader
from mm_gateway.runtime.real_model_manager import RealModelManager

CPU = torch.device("cpu")


@torch.inference_mode()
def test_weights_come_back_as_they_went(llama_checkpoint: Path) -> None:
    model = ModelLoader(pack=False).load(ModelConfig(model_name=str(llama_checkpoint), device="cpu", dtype="bf16")).model
    ids = torch.arange(1, 9)[None]
    before = model(ids).logits
    to_host(model)
    to_device(model, CPU)
    assert torch.equal(model(ids).logits, before)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_packed_weights_of_a_cpu_stay_where_they_are(llama_checkpoint: Path) -> None:
    assert not can_move(ModelLoader().load(ModelConfig(model_name=str(llama_checkpoint), device="cpu")))


def test_memory_of_a_model_that_is_gone_is_given_back(llama_checkpoint: Path) -> None:
    loaded = [ModelLoader().load(ModelConfig(model_name=str(llama_checkpoint), device="cpu"))]
    watched = weakref.ref(loaded[0].model)
    loaded.clear()
    reclaim()
    assert watched() is None


@pytest.mark.gpu
def test_a_model_that_left_the_gpu_comes_back_without_the_disk(llama_checkpoint: Path, gpt2_checkpoint: Path) -> None:
    manager = RealModelManager(max_cached_models=1, host_tier_bytes=2**30)
    first = ModelConfig(model_name=str(llama_checkpoint), device="cuda", kv_cache_bytes=2**24)
    second = ModelConfig(model_name=str(gpt2_checkpoint), device="cuda", kv_cache_bytes=2**24)
    greedy = GenerationConfig(max_new_tokens=8, temperature=0, ignore_eos=True)
    texts = []
    for config in (first, second, first):
        with manager.acquire(config).result() as lease:
            texts.append(lease.engine.generate("Hello", greedy).text)
    assert texts[0] == texts[2]
    assert manager.stats().loads_from_host == 1
    manager.close()
