"""Prefixes that left the KV cache come back from memory or disk, and nothing of a text tells."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig

from mm_gateway.configuration.settings import EngineSettings, MemorySettings
from mm_gateway.core import GenerationConfig, TextDelta, Usage
from mm_gateway.runtime.engine.requests.generation import Generation
from mm_gateway.runtime.inference_engine import InferenceEngine
from mm_gateway.runtime.kernels.library import library
from mm_gateway.runtime.kv_cache.prefix_tiers.block_keys import BLOCK_TOKENS
from mm_gateway.runtime.kv_cache.prefix_tiers.block_store import PrefixStore, open_prefix_store
from mm_gateway.runtime.kv_cache.prefix_tiers.restored_tokens import RestoredTokens
from mm_gateway.runtime.model_loader import ModelConfig, ModelLoader
from mm_gateway.runtime.real_model_manager import RealModelManager
from tests.runtime.engine.forward.test_compiled_forward import SHAPE, save

pytestmark = pytest.mark.skipif(library() is None, reason="no C++ compiler")

TOKENS = 700
WHOLE = TOKENS // BLOCK_TOKENS * BLOCK_TOKENS
MEMORY = 64 * 2**20
CONFIGS = [
    GenerationConfig(max_new_tokens=6, temperature=0, ignore_eos=True, logprobs=2),
    GenerationConfig(max_new_tokens=6, temperature=2, seed=1, ignore_eos=True),
]

LONG: dict[str, Any] = SHAPE | {"max_position_embeddings": 1024}
MakeEngine = Callable[..., InferenceEngine]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("llama"), LlamaConfig(**LONG))[0]


@pytest.fixture
def make_engine(folder: Path) -> Iterator[MakeEngine]:
    """Engines with two slots over a store that is closed with them, which `engine.close()` does here as the end of a process would."""
    opened: list[tuple[InferenceEngine, PrefixStore | None]] = []

    def make(
        settings: EngineSettings | None = None, *, at: Path = folder, store: PrefixStore | None = None, paged: bool = False, **entry: Any
    ) -> InferenceEngine:
        settings = settings or EngineSettings(max_running=1)
        store = store or open_prefix_store(settings)
        held: dict[str, Any] = {"model_name": str(at), "device": "cpu"} | entry
        loaded = ModelLoader().load(ModelConfig(**held))
        engine = InferenceEngine.for_loaded_model(loaded, settings, prefixes=store, kv_layout="paged" if paged else None)
        opened.append((engine, store))
        return engine

    def close() -> None:
        for engine, store in opened:
            engine.close()
            if store is not None:
                store.close()
        opened.clear()

    make.close = close  # type: ignore[attr-defined]
    yield make
    close()


def kept(path: Path | None = None, *, memory: int = MEMORY, **settings: Any) -> EngineSettings:
    at = None if path is None else str(path)
    held: dict[str, Any] = {"max_running": 1, "prefix_cache_bytes": memory, "prefix_cache_folder": at} | settings
    return EngineSettings(**held)


def prompt(seed: int, tokens: int = TOKENS) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(3, SHAPE["vocab_size"]) for _ in range(tokens)]


def told(generation: Generation) -> tuple[list[object], int]:
    """Everything that is said, and how many tokens of the prompt were in the cache."""
    events = list(generation)
    usage = next(event for event in events if isinstance(event, Usage))
    return [(event.text, event.logprobs) for event in events if isinstance(event, TextDelta)], usage.cached_tokens


def turns(engine: InferenceEngine, seeds: list[int]) -> tuple[list[object], list[int]]:
    """Texts and cached tokens of prompts, one after the other, each by another of CONFIGS."""
    found = [told(engine.submit([prompt(seed)], CONFIGS[seed % 2])) for seed in seeds]
    return [text for text, _ in found], [cached for _, cached in found]


SEEDS = [1, 2, 3, 1, 2, 3]  # three conversations in two slots


@pytest.mark.parametrize("cells", ["fp32", "fp16", "int8"])
def test_texts_are_the_same_token_by_token_with_prefixes_out_of_memory(make_engine: MakeEngine, cells: str) -> None:
    plain, none = turns(make_engine(EngineSettings(max_running=1, prefix_cache=False), kv_cache_dtype=cells), SEEDS)
    engine = make_engine(kept(), kv_cache_dtype=cells)
    texts, cached = turns(engine, SEEDS)
    assert texts == plain
    assert none == [0] * 6
    assert cached == [0, 0, 0, WHOLE, WHOLE, WHOLE]
    assert engine.stats().restored == RestoredTokens(memory=3 * WHOLE)


def test_a_model_that_comes_again_and_a_restart_find_them(make_engine: MakeEngine, tmp_path: Path) -> None:
    settings = kept(tmp_path / "cache")
    plain, _ = turns(make_engine(), SEEDS)
    store = open_prefix_store(settings)
    first = make_engine(settings, store=store)
    assert turns(first, SEEDS[:3])[0] == plain[:3]
    first.close()
    texts, cached = turns(make_engine(settings, store=store), SEEDS[:3])
    assert (texts, cached) == (plain[:3], [WHOLE] * 3)
    make_engine.close()  # type: ignore[attr-defined]
    last = make_engine(settings)
    texts, cached = turns(last, SEEDS)
    assert (texts, cached) == (plain, [WHOLE] * 6)
    assert last.stats().restored.disk >= 3 * WHOLE


def test_a_prefix_goes_on_where_another_text_left_it(make_engine: MakeEngine) -> None:
    """What is dropped when a slot is continued in place is kept, too."""
    common = prompt(1, 2 * BLOCK_TOKENS)
    requests = [common + prompt(seed, 300) for seed in (2, 3, 4, 2, 3, 4)]
    plain, with_tier = make_engine(EngineSettings(max_running=1, prefix_cache=False)), make_engine(kept())
    for tokens in requests:
        assert told(with_tier.submit([tokens], CONFIGS[0]))[0] == told(plain.submit([tokens], CONFIGS[0]))[0]
    assert told(with_tier.submit([requests[0]], CONFIGS[0]))[1] >= 3 * BLOCK_TOKENS


def test_another_model_or_precision_never_meets_them(make_engine: MakeEngine, folder: Path, tmp_path: Path) -> None:
    settings = kept(tmp_path / "cache")
    turns(make_engine(settings), [1])
    make_engine.close()  # type: ignore[attr-defined]
    wider: dict[str, Any] = LONG | {"initializer_range": 0.1}
    other = save(tmp_path / "other", LlamaConfig(**wider))[0]
    for file in folder.iterdir():  # names, sizes and times of all files are those of the other
        if file.suffix == ".safetensors":
            assert (other / file.name).stat().st_size == file.stat().st_size
            os.utime(other / file.name, ns=(file.stat().st_mtime_ns, file.stat().st_mtime_ns))
            (other / "config.json").write_bytes((folder / "config.json").read_bytes())
    for entry in ({"at": other}, {"kv_cache_dtype": "int8"}, {"kv_cache_dtype": "fp16"}, {"quantization": "8bit"}, {"dtype": "bf16"}):
        assert turns(make_engine(settings, **entry), [1])[1] == [0], entry
    assert turns(make_engine(settings), [1])[1] == [WHOLE]


def test_damaged_files_change_nothing_but_the_time(make_engine: MakeEngine, tmp_path: Path) -> None:
    plain, _ = turns(make_engine(), [1, 2, 3])
    settings = kept(tmp_path)
    turns(make_engine(settings), [1, 2, 3])
    make_engine.close()  # type: ignore[attr-defined]
    rng = random.Random(0)
    files = sorted(tmp_path.iterdir())
    for file in files[::2]:
        data = bytearray(file.read_bytes())
        data[rng.randrange(len(data))] ^= 1
        file.write_bytes(data[: rng.choice([len(data), len(data) // 2])])
    texts, cached = turns(make_engine(settings), [1, 2, 3])
    assert texts == plain
    assert sum(cached) < 3 * WHOLE


class SlowStore(PrefixStore):
    """Gives nothing back before it may, as a slow disk."""

    def __init__(self) -> None:
        super().__init__(MEMORY)
        self.asked, self.may_answer = threading.Event(), threading.Event()

    def in_memory(self, key: bytes) -> memoryview | None:
        return None

    def get(self, key: bytes, buffer: memoryview) -> memoryview | None:
        self.asked.set()
        assert self.may_answer.wait(20)
        return super().in_memory(key)


def test_others_go_on_while_a_prefix_is_on_its_way(make_engine: MakeEngine) -> None:
    store = SlowStore()
    engine = make_engine(kept(max_running=2), store=store)
    plain, _ = turns(engine, [1, 2, 3, 4, 5])
    waiting = [engine.submit([prompt(1)], CONFIGS[1]) for _ in range(2)]
    assert store.asked.wait(20)
    assert turns(engine, [6, 7])[1] == [0, 0]
    assert engine.stats().waiting == 2
    cancelled = engine.submit([prompt(1)], CONFIGS[1])
    cancelled.cancel()
    store.may_answer.set()
    for generation in waiting:
        text, cached = told(generation)
        assert text == plain[0]
        assert cached >= WHOLE


def test_who_waits_alone_for_a_prefix_can_be_cancelled_and_the_engine_closed(make_engine: MakeEngine) -> None:
    store = SlowStore()
    engine = make_engine(kept(), store=store)
    turns(engine, [1, 2, 3])
    waiting = engine.submit([prompt(1)], CONFIGS[1])
    assert store.asked.wait(20)
    waiting.cancel()
    threading.Timer(0.3, store.may_answer.set).start()
    engine.close()


def test_memory_without_room_keeps_the_beginning(make_engine: MakeEngine) -> None:
    loaded_bytes = SHAPE["num_hidden_layers"] * 2 * SHAPE["num_key_value_heads"] * 16 * 4 * BLOCK_TOKENS
    texts, cached = turns(make_engine(kept(memory=loaded_bytes * 3 // 2)), [1, 2, 3, 1])
    assert texts[0] == texts[3]
    assert cached[3] == BLOCK_TOKENS


def test_pages_say_that_they_keep_nothing(make_engine: MakeEngine, caplog: pytest.LogCaptureFixture) -> None:
    assert turns(make_engine(kept(), paged=True), [1])[1] == [0]
    assert "prefix_cache_bytes is for models on a CPU" in caplog.text


def test_the_manager_unloads_and_restarts_without_losing_them_and_counts_their_memory(folder: Path, tmp_path: Path) -> None:
    config = ModelConfig(model_name=str(folder), device="cpu")
    memory = MemorySettings(budget_bytes=2**30)
    for expected in ([0, WHOLE], [WHOLE, WHOLE]):
        manager = RealModelManager.from_settings(memory, kept(tmp_path))
        cached: list[int] = []
        for _ in range(2):
            with manager.acquire(config).result() as lease:
                cached += turns(lease.engine, [1])[1]
            assert manager.stats().budgets == {"cpu": 2**30 - MEMORY}
            manager.unload_model(str(folder))
        manager.close()
        assert cached == expected
