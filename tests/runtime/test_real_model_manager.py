"""The manager: joined loads, leases that hold, least recently used first, clear failures, and the guide's methods over real models."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from typing import Any, cast

import pytest

from mm_gateway.chat_templates.found_formats import ChatFormats
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import Progress
from mm_gateway.errors import ModelLoadError, ModelUnavailableError, OutOfMemoryError, ShuttingDownError
from mm_gateway.runtime.checkpoints.loaded_model import LoadedModel
from mm_gateway.runtime.checkpoints.memory_estimate import MemoryNeed
from mm_gateway.runtime.real_model_manager import RealModelManager
from mm_gateway.runtime.residency.leases import Lease

MakeManager = Callable[..., RealModelManager]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class FakeModel:
    """What the manager looks at of a loaded model and of its engine."""

    weight_bytes = 1000
    kv_cache_bytes = 100
    penalty_bytes = 0
    context_length = 128
    formats = ChatFormats()

    def __init__(self, name: str) -> None:
        self.name = name
        self.closed = False

    def close(self) -> None:
        self.closed = True


class FakeLoader:
    """Loads at once, or when the test opens the gate. loaded: names in order of their loads."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.failures: dict[str, Exception] = {}
        self.gate: threading.Event | None = None
        self.needs: dict[str, int] = {}
        self.models: dict[str, FakeModel] = {}

    def prepare(
        self,
        config: ModelConfig,
        settings: EngineSettings,
        budget_of: Callable[[str], int | None],
        *,
        progress: Callable[[Progress], object] | None = None,
    ) -> tuple[str, MemoryNeed]:
        return "cuda:0" if config.device == "cuda" else "cpu", MemoryNeed(self.needs.get(config.model_name, 1000), 100, 0)

    def load(
        self,
        config: ModelConfig,
        *,
        progress: Callable[[Progress], object] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> LoadedModel:
        assert progress is not None and should_stop is not None
        progress(Progress("loading", f"{config.model_name}: half", 0.5))
        while self.gate is not None and not self.gate.wait(0.005):
            if should_stop():
                raise ModelLoadError("abandoned", retryable=True)
        if config.model_name in self.failures:
            raise self.failures[config.model_name]
        self.loaded.append(config.model_name)
        model = self.models[config.model_name] = FakeModel(config.model_name)
        return cast(LoadedModel, model)


def config(name: str, **more: Any) -> ModelConfig:
    return ModelConfig(model_name=name, **more)


@pytest.fixture
def loader() -> FakeLoader:
    return FakeLoader()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(loader: FakeLoader, clock: Clock) -> Iterator[MakeManager]:
    managers: list[RealModelManager] = []

    def build(max_cached_models: int = 2, **more: Any) -> RealModelManager:
        manager = RealModelManager(
            max_cached_models,
            loader=loader,
            engine_factory=lambda loaded, settings, kv_cache_bytes, *, on_failure: cast(Any, loaded),
            clock=clock,
            **more,
        )
        managers.append(manager)
        return manager

    yield build
    for manager in managers:
        manager.close()


def use(manager: RealModelManager, clock: Clock, name: str, **more: Any) -> None:
    clock.now += 1
    manager.acquire(config(name), **more).result(5).release()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_model_loads_once_and_stays(make: MakeManager, loader: FakeLoader, clock: Clock) -> None:
    manager = make()
    for _ in range(3):
        use(manager, clock, "a")
    assert loader.loaded == ["a"]
    assert (manager.stats().loads, manager.stats().hits, manager.stats().leases) == (1, 2, 0)


def test_all_who_ask_during_a_load_join_it(make: MakeManager, loader: FakeLoader) -> None:
    manager = make()
    loader.gate = threading.Event()
    seen: list[Progress] = []
    futures = [manager.acquire(config("a"), on_progress=seen.append) for _ in range(20)]
    until(lambda: manager.status(config("a")).progress is not None)
    status = manager.status(config("a"))
    assert (status.state, status.progress, status.waiting) == ("loading", Progress("loading", "a: half", 0.5), 20)
    loader.gate.set()
    leases = [future.result(5) for future in futures]
    assert loader.loaded == ["a"]
    status = manager.status(config("a"))
    assert (status.state, status.leases, status.footprint_bytes, status.device) == ("busy", 20, 1100, "cpu")
    for lease in leases:
        lease.release()
        lease.release()  # idempotent
    assert manager.status(config("a")).state == "ready"


def test_the_least_recently_used_goes_first(make: MakeManager, loader: FakeLoader, clock: Clock) -> None:
    manager = make(2)
    for name in ("a", "b", "a", "c"):
        use(manager, clock, name)
    assert sorted(manager.list_models()) == ["a", "c"]
    assert loader.models["b"].closed


def test_what_came_and_left_is_told_with_its_reason(make: MakeManager, loader: FakeLoader, clock: Clock) -> None:
    manager = make(max_cached_models=1, ttl_s=10.0)
    use(manager, clock, "a")
    use(manager, clock, "b")
    manager.unload_model("b")
    use(manager, clock, "c", keep_alive=0)
    assert manager._cache.wait_until(lambda: not manager.stats().resident, 5)
    loader.failures["d"] = ModelLoadError("no such file")
    with pytest.raises(ModelLoadError):
        manager.load_model(ModelConfig(model_name="d"))
    told = [(event.kind, event.model, event.reason, event.room_for, event.error) for event in reversed(manager.events())]
    assert told == [
        ("loaded", "a", None, None, None),
        ("evicted", "a", "room", "b", None),
        ("loaded", "b", None, None, None),
        ("evicted", "b", "asked", None, None),
        ("loaded", "c", None, None, None),
        ("evicted", "c", "idle", None, None),
        ("failed", "d", None, None, "no such file"),
    ]
    assert all(event.bytes for event in manager.events() if event.kind != "failed")


def test_what_is_leased_is_never_evicted_and_the_waiter_gets_the_room_afterwards(make: MakeManager, loader: FakeLoader) -> None:
    manager = make(1)
    lease = manager.acquire(config("a")).result(5)
    waiting = manager.acquire(config("b"))
    time.sleep(0.05)
    assert not waiting.done()
    assert not loader.models["a"].closed
    lease.release()
    waiting.result(5).release()
    assert loader.models["a"].closed


def test_those_who_wait_for_room_are_told(make: MakeManager, clock: Clock) -> None:
    manager = make(1)
    use(manager, clock, "b")  # what it needs is known from now on
    lease = manager.acquire(config("a")).result(5)
    seen: list[Progress] = []
    waiting = manager.acquire(config("b"), on_progress=seen.append)
    assert seen == [Progress("queued", "b: waiting until other models make room")]
    lease.release()
    waiting.result(5).release()


def test_any_number_of_models_share_one_place_without_deadlock(make: MakeManager) -> None:
    manager = make(1)
    futures: list[Future[Lease]] = [manager.acquire(config(f"m{index % 8}")) for index in range(64)]

    def finish(future: Future[Lease]) -> None:
        future.result(20).release()

    threads = [threading.Thread(target=finish, args=(future,)) for future in futures]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert manager.stats().leases == 0
    # requests of one model are served together, so each was loaded about once
    assert manager.stats().loads <= 16


def test_requests_for_a_resident_model_overtake_within_a_bound(make: MakeManager, clock: Clock) -> None:
    manager = make(1)
    first = manager.acquire(config("a")).result(5)
    waiting = manager.acquire(config("b"))
    until(lambda: manager.status(config("b")).progress is not None)  # its files are there, it waits for room
    second = manager.acquire(config("a")).result(5)  # overtakes
    clock.now += 60
    late = manager.acquire(config("a"))  # no longer
    assert not late.done()
    first.release()
    second.release()
    waiting.result(5).release()
    late.result(5).release()


def test_a_resident_model_does_not_wait_for_another_ones_load(make: MakeManager, loader: FakeLoader, clock: Clock) -> None:
    manager = make(2)
    use(manager, clock, "a")
    loader.gate = threading.Event()
    slow = manager.acquire(config("b"))
    manager.acquire(config("a")).result(0.5).release()
    loader.gate.set()
    slow.result(5).release()


def test_a_failed_load_fails_all_who_wait_and_the_next_one_tries_again(make: MakeManager, loader: FakeLoader) -> None:
    manager = make()
    loader.gate = threading.Event()
    loader.failures["a"] = OSError("disk on fire")
    futures = [manager.acquire(config("a")) for _ in range(3)]
    loader.gate.set()
    for future in futures:
        with pytest.raises(ModelLoadError, match="Failed to load a: disk on fire"):
            future.result(5)
    assert manager.status(config("a")).state == "cold"
    del loader.failures["a"]
    manager.acquire(config("a")).result(5).release()


def test_typed_failures_keep_their_type(make: MakeManager, loader: FakeLoader) -> None:
    loader.failures["a"] = OutOfMemoryError("too big")
    with pytest.raises(OutOfMemoryError, match="too big"):
        make().acquire(config("a")).result(5)


def test_a_load_that_nobody_waits_for_is_abandoned(make: MakeManager, loader: FakeLoader) -> None:
    manager = make()
    loader.gate = threading.Event()
    futures = [manager.acquire(config("a")) for _ in range(2)]
    until(lambda: manager.status(config("a")).progress is not None)
    assert all(future.cancel() for future in futures)
    until(lambda: manager.status(config("a")).state == "cold")
    assert loader.loaded == []
    with pytest.raises(CancelledError):
        futures[0].result(1)


def test_pinned_models_stay(make: MakeManager, loader: FakeLoader, clock: Clock) -> None:
    manager = make(2)
    manager.acquire(config("a", pin=True)).result(5).release()
    for name in ("b", "c", "d"):
        use(manager, clock, name)
    assert "a" in manager.list_models()


def test_idle_models_expire(make: MakeManager, loader: FakeLoader, clock: Clock) -> None:
    manager = make(3)
    manager.acquire(config("a", ttl_s=10)).result(5).release()
    manager.acquire(config("b")).result(5).release()
    clock.now += 11
    use(manager, clock, "c")  # whatever happens next notices it
    until(lambda: sorted(manager.list_models()) == ["b", "c"])


def test_keep_alive_of_zero_unloads_after_the_lease(make: MakeManager, loader: FakeLoader, clock: Clock) -> None:
    manager = make()
    use(manager, clock, "a", keep_alive=0)
    until(lambda: loader.models["a"].closed)
    assert manager.list_models() == []


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("keep_alive", [float("inf"), 1e300, 1e12])
def test_a_model_may_be_kept_for_longer_than_a_thread_can_wait(
    make: MakeManager, loader: FakeLoader, clock: Clock, keep_alive: float
) -> None:
    manager = make(2)
    use(manager, clock, "a", keep_alive=keep_alive)
    time.sleep(0.02)  # so that a timer that cannot be set would have failed by now
    use(manager, clock, "b", keep_alive=0)
    until(lambda: manager.list_models() == ["a"])


def test_closing_fails_those_who_wait_and_unloads_the_rest(make: MakeManager, loader: FakeLoader) -> None:
    manager = make(1)
    manager.acquire(config("a")).result(5)
    waiting = manager.acquire(config("b"))
    manager.close()
    with pytest.raises(ShuttingDownError):
        waiting.result(5)
    with pytest.raises(ShuttingDownError):
        manager.acquire(config("a"))
    assert loader.models["a"].closed
    manager.close()


def test_two_forms_of_a_model_are_two_models(make: MakeManager, loader: FakeLoader) -> None:
    manager = make(3)
    for form in (config("a"), config("a", dtype="fp16"), config("a", revision="r"), config("a", aliases=("x",), pin=True)):
        manager.acquire(form).result(5).release()
    assert loader.loaded == ["a", "a", "a"]  # names and pins make no difference


def test_models_share_a_budget_of_bytes(make: MakeManager, loader: FakeLoader, clock: Clock) -> None:
    manager = make(10, budget_of=lambda _: 3300)
    for name in ("a", "b", "c", "a", "d"):
        use(manager, clock, name)
    assert sorted(manager.list_models()) == ["a", "c", "d"]
    assert manager.stats().memory == {"cpu": 3300}


def test_a_model_that_can_never_fit_is_refused_and_nothing_is_evicted(make: MakeManager, loader: FakeLoader, clock: Clock) -> None:
    manager = make(10, budget_bytes=3300)
    use(manager, clock, "a")
    loader.needs["huge"] = 5000
    with pytest.raises(ModelUnavailableError, match="needs") as caught:
        manager.acquire(config("huge")).result(5)
    assert not caught.value.retryable
    assert manager.list_models() == ["a"]


def test_out_of_memory_in_a_load_evicts_others_and_tries_again(make: MakeManager, loader: FakeLoader, clock: Clock) -> None:
    manager = make(10, budget_bytes=100_000)
    use(manager, clock, "a")
    failures = iter([OutOfMemoryError("too much")])
    plain_load = loader.load

    def load(config: ModelConfig, **more: Any) -> LoadedModel:
        if config.model_name == "b" and (failure := next(failures, None)) is not None:
            raise failure
        return plain_load(config, **more)

    loader.load = load
    manager.acquire(config("b")).result(5).release()
    assert manager.list_models() == ["b"]


def test_what_a_gpu_has_no_room_for_falls_back_to_the_cpu_where_that_is_configured(make: MakeManager, loader: FakeLoader) -> None:
    budgets = {"cuda:0": 500, "cpu": 10_000}
    with pytest.raises(ModelUnavailableError):
        make(2, budget_of=budgets.get).acquire(config("a", device="cuda")).result(5)
    manager = make(2, budget_of=budgets.get, fallback_to_cpu=True)
    seen: list[Progress] = []
    manager.acquire(config("a", device="cuda"), on_progress=seen.append).result(5).release()
    assert manager.status(config("a", device="cpu")).device == "cpu"
    assert any("on the CPU instead" in progress.detail for progress in seen)


def test_unloading_waits_for_leases_and_those_who_ask_meanwhile_get_it_again(make: MakeManager, loader: FakeLoader) -> None:
    manager = make()
    lease = manager.acquire(config("a")).result(5)
    unloading = threading.Thread(target=manager.unload_model, args=("a",))
    unloading.start()
    time.sleep(0.02)
    late = manager.acquire(config("a"))
    assert unloading.is_alive() and not late.done() and not loader.models["a"].closed
    lease.release()
    unloading.join(5)
    late.result(5).release()
    assert loader.loaded.count("a") == 2


def test_models_without_number_are_refused() -> None:
    with pytest.raises(ValueError, match="max_cached_models"):
        RealModelManager(max_cached_models=0)


def test_an_engine_that_died_is_replaced_on_the_next_request(loader: FakeLoader) -> None:
    failures: list[Callable[[BaseException], None]] = []

    def engine(loaded: Any, settings: EngineSettings, kv_cache_bytes: int | None, *, on_failure: Callable[[BaseException], None]) -> Any:
        failures.append(on_failure)
        return loaded

    manager = RealModelManager(2, loader=loader, engine_factory=engine, budget_of=lambda _: None)
    stale = manager.acquire(config("a")).result(5)
    failures[0](RuntimeError("the loop died"))
    fresh = manager.acquire(config("a")).result(5)
    assert fresh.engine is not stale.engine and cast(Any, stale.engine).closed
    stale.release()  # void: the new stay goes on
    assert manager.status(config("a")).leases == 1
    fresh.release()
    manager.close()


def test_a_load_without_progress_fails_and_the_next_one_works(
    make: MakeManager, loader: FakeLoader, caplog: pytest.LogCaptureFixture
) -> None:
    hanging = threading.Event()
    plain_load, calls = loader.load, iter([True])

    def load(config: ModelConfig, **more: Any) -> LoadedModel:
        if next(calls, False):
            hanging.wait(30)
        return plain_load(config, **more)

    loader.load = load
    manager = make(load_timeout_s=0.2)
    with pytest.raises(ModelLoadError, match=r"no progress for 0\.2 seconds") as caught:
        manager.acquire(config("a")).result(20)
    assert caught.value.retryable
    assert "hanging.wait(30)" in caplog.text  # the stack of the thread that hangs
    manager.acquire(config("a")).result(5).release()
    hanging.set()
    until(lambda: len(loader.loaded) == 2)  # the late one gives its memory back, and changes nothing
    assert manager.stats().resident == 1


def test_an_engine_that_does_not_end_holds_up_nobody(make: MakeManager, loader: FakeLoader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mm_gateway.runtime.residency.instance_threads.EVICTION_TIMEOUT_S", 0.2)
    manager, ended = make(1), threading.Event()
    manager.acquire(config("a")).result(5).release()
    loader.models["a"].close = lambda: ended.wait(30) and None  # type: ignore[method-assign]
    manager.acquire(config("b")).result(20).release()
    assert manager.list_models() == ["b"]
    ended.set()


def test_closing_ends_within_its_bound(make: MakeManager, loader: FakeLoader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mm_gateway.runtime.real_model_manager.CLOSE_TIMEOUT_S", 0.1)
    manager, ended = make(1), threading.Event()
    manager.acquire(config("a")).result(5).release()
    loader.models["a"].close = lambda: ended.wait(30) and None  # type: ignore[method-assign]
    manager.close()
    ended.set()


def test_an_engine_that_raises_as_it_closes_is_gone_all_the_same(make: MakeManager, loader: FakeLoader) -> None:
    def close() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    manager = make(1)
    manager.acquire(config("a")).result(5).release()
    loader.models["a"].close = close
    manager.acquire(config("b")).result(5).release()
    manager.close()
    assert manager.stats().resident == 0


def test_an_unload_of_a_model_in_use_ends_with_a_typed_error(
    make: MakeManager, loader: FakeLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mm_gateway.runtime.real_model_manager.UNLOAD_TIMEOUT_S", 0.05)
    manager = make()
    lease = manager.acquire(config("a")).result(5)
    with pytest.raises(ModelUnavailableError, match=r"in use after 0.05 seconds: a \(1 requests\)"):
        manager.unload_model("a")
    lease.release()
    until(lambda: loader.models["a"].closed)


def test_entries_that_share_a_model_keep_their_own_pins_and_names(make: MakeManager, loader: FakeLoader, clock: Clock) -> None:
    manager = make(1)
    use(manager, clock, "a")
    manager.acquire(config("a", aliases=("x",), pin=True)).result(5).release()
    assert manager.status(config("a")).pinned
    assert manager.get_model("x") is manager.get_model("a") is not None


def test_whoever_waits_for_room_too_long_is_refused_though_nothing_else_happens(make: MakeManager, clock: Clock) -> None:
    manager = make(1, room_timeout_s=0.05)
    with manager.acquire(config("a")).result(5):
        waiting = manager.acquire(config("b"))
        until(lambda: manager.status(config("b")).footprint_bytes is not None)  # from here on it waits for room
        clock.now += 1.0
        with pytest.raises(ModelUnavailableError, match=r"waited for room for 0\.05 seconds.*1 in use by 1 request") as caught:
            waiting.result(5)
        assert caught.value.retryable
    manager.acquire(config("b")).result(5).release()
