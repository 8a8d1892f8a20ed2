"""The manager over real checkpoints: the guide's methods, and many threads over more models than fit."""

from __future__ import annotations

import gc
import random
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import GenerationConfig
from mm_gateway.runtime.kernels.library import library
from mm_gateway.runtime.real_model_manager import RealModelManager
from tests.support.checkpoints import padded_tokenizer
from tests.support.compiled_families import with_changes


def test_the_guides_methods_over_a_real_model(gpt2_checkpoint: Path) -> None:
    manager = RealModelManager(max_cached_models=1, memory_threshold=0.8, engine_settings=EngineSettings(max_running=4))
    name = str(gpt2_checkpoint)
    loaded = manager.load_model(ModelConfig(model_name=name, model_type="gpt2", device="cpu", dtype="fp32", aliases=("small",)))
    assert manager.get_model(name) is loaded
    assert manager.get_model("small") is loaded
    assert manager.list_models() == [name]
    with manager.acquire(ModelConfig(model_name=name, model_type="gpt2", device="cpu", dtype="fp32")).result() as lease:
        result = lease.engine.generate("Hello", config=GenerationConfig(max_new_tokens=3, temperature=0, ignore_eos=True))
        assert result.completion_tokens == 3
    moved = manager.switch_device("small", "cpu")
    assert moved is not loaded
    assert manager.unload_model(name)
    assert manager.get_model(name) is None
    assert not manager.unload_model(name)
    assert manager.switch_device(name, "cpu").dtype == moved.dtype
    afresh = RealModelManager(max_cached_models=1, engine_settings=EngineSettings(max_running=4))
    assert not afresh.unload_model(name)
    assert afresh.switch_device(name, "cpu") is afresh.get_model(name)
    afresh.close()
    manager.load_model(ModelConfig(model_name=name, device="cpu"))
    manager.clear_cache()
    assert manager.list_models() == []
    manager.close()


def test_threads_over_three_real_models_with_room_for_one(gpt2_checkpoint: Path, llama_checkpoint: Path, qwen2_checkpoint: Path) -> None:
    manager = RealModelManager(max_cached_models=1, engine_settings=EngineSettings(max_running=4))
    folders = (gpt2_checkpoint, llama_checkpoint, qwen2_checkpoint)
    configs = [ModelConfig(model_name=str(path), device="cpu", dtype="fp32") for path in folders]
    greedy = GenerationConfig(max_new_tokens=8, temperature=0, ignore_eos=True)

    def ask(index: int) -> str:
        with manager.acquire(configs[index]).result(60) as lease:
            return lease.engine.generate("Hello", greedy).text

    expected = [ask(index) for index in range(3)]
    order = [index % 3 for index in range(30)]
    random.Random(1).shuffle(order)
    with ThreadPoolExecutor(30) as pool:
        assert list(pool.map(ask, order)) == [expected[index] for index in order]
    assert manager.stats().leases == 0
    assert manager.stats().loads <= 3 + 12
    manager.close()
    assert manager.stats().resident == 0


@pytest.mark.skipif(library() is None, reason="no C++ compiler")
def test_a_draft_counts_to_its_model_comes_with_it_and_leaves_with_it(tmp_path: Path) -> None:
    names = ("one", "two", "small")
    for index, name in enumerate(names):
        torch.manual_seed(index)
        shape = with_changes(num_hidden_layers=1 if name == "small" else 3)
        AutoModelForCausalLM.from_config(LlamaConfig(**shape)).save_pretrained(tmp_path / name)
        padded_tokenizer().save_pretrained(tmp_path / name)
    small = ModelConfig(model_name="small", path=str(tmp_path / "small"), device="cpu", dtype="fp32")
    alone = {name: msgspec.structs.replace(small, model_name=name, path=str(tmp_path / name)) for name in names}
    # A number of guesses: by itself a draft as dear as its model stops guessing.
    paired = {name: msgspec.structs.replace(alone[name], speculative_model=small, speculative_tokens=2) for name in ("one", "two")}
    greedy = GenerationConfig(max_new_tokens=24, temperature=0, ignore_eos=True)
    settings = EngineSettings(max_running=4, prompt_lookup=False)

    def ask(manager: RealModelManager, config: ModelConfig) -> tuple[str, int]:
        with manager.acquire(config).result(60) as lease:
            before = lease.engine.stats().draft_model.tokens
            text = lease.engine.generate("Hello", greedy).text
            return text, lease.engine.stats().draft_model.tokens - before

    def footprint(manager: RealModelManager, config: ModelConfig) -> int:
        return manager.status(config).footprint_bytes or 0

    roomy = RealModelManager(max_cached_models=6, budget_bytes=2**30, engine_settings=settings)
    said = {name: ask(roomy, alone[name])[0] for name in names}
    for name, config in paired.items():
        text, guessed = ask(roomy, config)
        assert text == said[name] and guessed
    # Each has the draft for itself, with its weights and a KV cache of as many tokens.
    for name, config in paired.items():
        assert footprint(roomy, config) == pytest.approx(footprint(roomy, alone[name]) + footprint(roomy, alone["small"]), rel=0.05)
    with roomy.acquire(paired["one"]).result() as lease:
        assert lease.loaded.draft is not None
        drafts = weakref.ref(lease.loaded.draft.model)
    pair = footprint(roomy, paired["one"])
    del lease
    roomy.unload(paired["one"])
    gc.collect()
    assert drafts() is None
    assert ask(roomy, paired["two"])[1], "the other one guesses on"
    roomy.close()

    scarce = RealModelManager(max_cached_models=6, budget_bytes=pair * 3 // 2, engine_settings=settings)
    for name in ("one", "two", "one"):
        assert ask(scarce, paired[name])[0] == said[name]
        assert scarce.stats().resident == 1, "two pairs are more than there is room for"
    scarce.close()
