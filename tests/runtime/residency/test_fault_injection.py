"""Every callback of the cache raises at every point of random interleavings: nobody waits for ever, no memory stays accounted,
and the next request works.

One thread plays all: what the manager would start on a thread waits in a list, and a seeded generator picks what runs next. Callbacks
of a running piece of work interleave with it: from within them the generator asks, cancels, pins and unloads as well.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from mm_gateway.chat_templates.found_formats import ChatFormats
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import Progress
from mm_gateway.errors import GatewayError, ModelLoadError, OutOfMemoryError, ShuttingDownError
from mm_gateway.runtime.checkpoints import host_tier
from mm_gateway.runtime.checkpoints.loaded_model import LoadedModel
from mm_gateway.runtime.checkpoints.memory_estimate import MemoryNeed
from mm_gateway.runtime.real_model_manager import RealModelManager
from mm_gateway.runtime.residency import alarm
from mm_gateway.runtime.residency.leases import Lease

BUDGETS = {"cpu": 30, "cuda:0": 30}


class FakeModel:
    """Weights and engine in one. An engine that has been closed or has failed serves nobody."""

    def __init__(self, world: World, weight_bytes: int) -> None:
        self.world = world
        self.weight_bytes = weight_bytes
        self.kv_cache_bytes = 1
        self.penalty_bytes = 0
        self.context_length = 128
        self.formats = ChatFormats()
        self.model = self
        self.device = "cuda:0"
        self.on_failure: Callable[[BaseException], None] | None = None

    def close(self) -> None:
        self.world.disturb("engine close")


@dataclass
class World:
    """Loader, engines, threads, clients and clock, all driven by one generator.

    faults: share of callbacks that raise. restless: something else may happen within each.
    """

    rng: random.Random
    faults: float
    now: float = 0.0
    threads: list[Callable[[], None]] = field(default_factory=list)
    futures: list[Future[Lease]] = field(default_factory=list)
    leases: list[Lease] = field(default_factory=list)
    engines: list[FakeModel] = field(default_factory=list)
    restless: bool = True
    depth: int = 0

    def __post_init__(self) -> None:
        rng = self.rng
        self.configs = [
            ModelConfig(
                model_name=f"m{index}", device=rng.choice(["cpu", "cuda"]), ttl_s=rng.choice([None, 1.0, 20.0]), pin=rng.random() < 0.1
            )
            for index in range(rng.randint(1, 4))
        ]
        self.sizes = {config.model_name: rng.randint(1, 25) for config in self.configs}
        self.manager = RealModelManager(
            rng.randint(1, 3),
            host_tier_bytes=rng.choice([0, 20, 60]),
            fallback_to_cpu=rng.random() < 0.5,
            ttl_s=rng.choice([None, 5.0]),
            loader=self,
            engine_factory=self.make_engine,
            budget_of=self.budget_of,
            clock=lambda: self.now,
            spawn=self.spawn,
        )

    def disturb(self, _: str) -> None:
        """A point where something else may happen first, and then a fault."""
        if self.restless and self.depth < 2 and self.rng.random() < 0.3:
            self.depth += 1
            self.act()
            self.depth -= 1
        if self.rng.random() < self.faults:
            raise self.rng.choice([RuntimeError("CUDA error: an illegal memory access"), MemoryError(), OSError("gone"), AssertionError()])

    # --- what the manager calls ---

    def spawn(self, name: str, work: Callable[[], None]) -> None:
        if self.rng.random() < self.faults:
            raise RuntimeError("can't start new thread")
        self.threads.append(work)

    def budget_of(self, device: str) -> int:
        self.disturb("budget")
        return BUDGETS[device]

    def prepare(self, config: ModelConfig, settings: EngineSettings, budget_of: Any, *, progress: Any = None) -> tuple[str, MemoryNeed]:
        progress(Progress("loading", "downloading", 0.5))
        self.disturb("prepare")
        return ("cpu" if config.device == "cpu" else "cuda:0"), MemoryNeed(self.sizes[config.model_name], 1, 0)

    def load(self, config: ModelConfig, *, progress: Any = None, should_stop: Any = None) -> LoadedModel:
        progress(Progress("loading", "reading", None))
        self.disturb("load")
        if should_stop():
            raise ModelLoadError("abandoned", retryable=True)
        if self.rng.random() < self.faults:
            raise OutOfMemoryError("too much")
        return cast(LoadedModel, FakeModel(self, self.sizes[config.model_name]))

    def make_engine(self, loaded: Any, settings: EngineSettings, kv_cache_bytes: int | None, *, on_failure: Any) -> Any:
        self.disturb("engine")
        loaded.on_failure = on_failure
        self.engines.append(loaded)
        return loaded

    def on_progress(self, progress: Progress) -> None:
        self.disturb("on_progress")

    # --- what happens ---

    def act(self) -> None:
        """One thing that a client, an administrator, the clock or a broken device does."""
        config = self.rng.choice(self.configs)
        match self.rng.randrange(14):
            case 0 | 1 | 2 | 3:
                self.ask(config)
            case 4 | 5 if self.leases:
                self.leases.pop(self.rng.randrange(len(self.leases))).release()
            case 6 if self.futures:
                self.rng.choice(self.futures).cancel()
            case 7:
                self.now += self.rng.choice([0.1, 3.0, 15.0])
                self.manager._cache._advance()
            case 8:
                self.manager.pin(config, self.rng.random() < 0.3)
            case 9 if (entry := self.manager._cache.entry(config)) is not None:
                self.manager._cache.unload([entry])
            case 10 if self.engines:
                engine = self.engines.pop(self.rng.randrange(len(self.engines)))
                if engine.on_failure is not None:
                    engine.on_failure(RuntimeError("the loop died"))
            case 11:
                self.manager.serve([config for config in self.configs if self.rng.random() < 0.7])
            case 12:
                self.manager.forget([config])
            case _:
                self.run_one()

    def ask(self, config: ModelConfig) -> Future[Lease]:
        future = self.manager.acquire(config, on_progress=self.on_progress, keep_alive=self.rng.choice([None, None, 0.0]))
        self.futures.append(future)
        future.add_done_callback(self.on_done)
        return future

    def on_done(self, future: Future[Lease]) -> None:
        if not future.cancelled() and future.exception() is None:
            self.leases.append(future.result())
        self.disturb("future callback")

    def run_one(self) -> None:
        if self.threads:
            self.threads.pop(self.rng.randrange(len(self.threads)))()

    def settle(self) -> None:
        """Everybody gives back what they hold, and everything that was begun ends."""
        for _ in range(10_000):
            if self.threads:
                self.run_one()
            elif self.leases:
                self.leases.pop().release()
            elif not all(future.done() for future in self.futures):
                before = self.now
                self.now += 11.0  # past everybody's patience
                self.manager._cache._advance()
                assert self.threads or self.leases or all(future.done() for future in self.futures) or before < 10_000, (
                    "somebody waits for ever"
                )
            else:
                return
        raise AssertionError("it never ends")


@pytest.fixture(autouse=True)
def fake_tier(monkeypatch: pytest.MonkeyPatch) -> list[World]:
    """Moving weights and giving memory back, with faults of the world that plays."""
    playing: list[World] = []

    class FakeTimer:
        """The world moves the clock itself."""

        daemon = True

        def __init__(self, wait_s: float, ring: Callable[[], None]) -> None: ...
        def cancel(self) -> None: ...
        def start(self) -> None:
            if playing[-1].rng.random() < playing[-1].faults:
                raise RuntimeError("can't start new thread")

    monkeypatch.setattr(alarm, "Timer", FakeTimer)
    monkeypatch.setattr(host_tier, "can_move", lambda loaded: loaded.device != "cpu")
    monkeypatch.setattr(host_tier, "to_host", lambda model: playing[-1].disturb("to host"))
    monkeypatch.setattr(host_tier, "to_device", lambda model, device: playing[-1].disturb("to device"))
    monkeypatch.setattr(host_tier, "reclaim", lambda: playing[-1].disturb("empty_cache"))
    return playing


def play(seed: int, playing: list[World]) -> None:
    rng = random.Random(seed)
    world = World(rng, faults=rng.choice([0.02, 0.1, 0.4]))
    playing[:] = [world]
    manager = world.manager
    for _ in range(rng.randint(5, 40)):
        world.act()
    world.settle()
    assert all(future.done() for future in world.futures)
    for future in world.futures:
        error = None if future.cancelled() else future.exception()
        assert error is None or isinstance(error, GatewayError), repr(error)
    # The next request works, for every model that fits at all.
    world.faults, world.restless = 0.0, False
    for config in world.configs:
        manager.pin(config, False)
    for config in world.configs:
        future = world.ask(config)
        world.settle()
        assert future.exception() is None, repr(future.exception())
    assert manager.stats().leases == 0
    # What is served no more is forgotten, whatever was done to it.
    manager.serve(world.configs[1:])
    manager.forget(world.configs)
    world.settle()
    forgotten = [entry for entry in manager._cache.entries(lambda entry: entry.forgotten)]
    assert not forgotten and {entry.name for entry in manager._cache.entries(lambda _: True)} <= {m.model_name for m in world.configs[1:]}
    assert set(manager._cache._state.models) == {entry.model.key for entry in manager._cache._entries}
    world.faults, world.restless = rng.choice([0.0, 0.4]), True
    if rng.random() < 0.5:
        future = world.ask(rng.choice(world.configs))  # still on its way as everything closes
    manager._cache.close()
    world.restless = False
    world.settle()
    stats = manager.stats()
    assert (stats.resident, stats.leases, sum(stats.memory.values())) == (0, 0, 0)
    assert all(future.done() for future in world.futures)
    with pytest.raises(ShuttingDownError):
        manager.acquire(world.configs[0])


def test_any_callback_may_raise_at_any_point(fuzz_cases: int, fake_tier: list[World], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL")
    for seed in range(fuzz_cases):
        try:
            play(seed, fake_tier)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
