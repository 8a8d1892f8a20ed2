"""The manager over real checkpoints: the guide's methods, and many threads over more models than fit."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import GenerationConfig
from mm_gateway.runtime.real_model_manager import RealModelManager


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
