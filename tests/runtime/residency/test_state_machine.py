"""The cache's state machine, driven through thousands of random interleavings in simulated time, and its rules one by one."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from mm_gateway.errors import ModelLoadError, ModelUnavailableError, OutOfMemoryError, RateLimitError
from mm_gateway.runtime.residency.eviction import Candidate, choose_victims
from mm_gateway.runtime.residency.model import DropFromHost, Effect, Evict, Grant, Load, Model, Prepare, Refuse
from mm_gateway.runtime.residency.state_machine import Residency

PATIENCE_S = 10.0
HOLD_S, LOAD_S, EVICT_S = 5.0, 2.0, 0.5


@dataclass(eq=False)
class Client:
    """Somebody who asks for a model. outcome: granted, refused, withdrawn; None while it waits."""

    model: Model[Client]
    asked_at: float
    outcome: str | None = None
    waited_s: float = 0.0
    holding: bool = False
    refusal: Refuse[Client] | None = None


@dataclass
class Simulation:
    """Carries effects out in simulated time, and checks after each event what must always hold."""

    rng: random.Random
    max_models: int
    budgets: dict[str, int]
    sizes: list[tuple[str, int, bool]]  # device, bytes, pinned
    failures: float = 0.1
    host_budget: int = 0
    now: float = 0.0
    clients: list[Client] = field(default_factory=list)
    loads: int = 0
    _events: list[tuple[float, int, Callable[[], list[Effect[Client]]]]] = field(default_factory=list)
    _count: int = 0

    def __post_init__(self) -> None:
        self.state: Residency[Client] = Residency(
            max_models=self.max_models,
            budget_of=self.budgets.get,
            ttl_s=self.rng.choice([None, 3.0, 30.0]),
            host_budget_bytes=self.host_budget,
            patience_s=PATIENCE_S,
        )
        for key, (_, _, pinned) in enumerate(self.sizes):
            self.state.models[key] = Model(key, pinned=pinned)

    def after(self, seconds: float, event: Callable[[], list[Effect[Client]]]) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.now + seconds, self._count, event))

    def request(self, key: int, hold_s: float | None = None) -> None:
        def ask() -> list[Effect[Client]]:
            client = Client(self.state.models[key], self.now)
            self.clients.append(client)
            if self.rng.random() < 0.15:
                self.after(self.rng.uniform(0, 3 * LOAD_S), lambda: self.withdraw(client))
            return self.state.request(client.model, client, self.now)

        self.after(0.0 if hold_s is None else hold_s, ask)

    def withdraw(self, client: Client) -> list[Effect[Client]]:
        if client.outcome is not None:
            return []
        client.outcome = "withdrawn"
        return self.state.withdraw(client.model, client, self.now)

    def run(self) -> None:
        while self._events or self.state.next_time(self.now) is not None:
            timer = self.state.next_time(self.now)
            if timer is not None and (not self._events or timer < self._events[0][0]):
                self.now = timer
                effects = self.state.advance(self.now)
            else:
                self.now, _, event = heapq.heappop(self._events)
                effects = event()
            for effect in effects:
                self.carry_out(effect)
            self.check()

    def carry_out(self, effect: Effect[Client]) -> None:
        rng = self.rng
        match effect:
            case Prepare(model):
                device, size, _ = self.sizes[model.key]  # type: ignore[index]
                if rng.random() < self.failures:
                    self.after(rng.uniform(0, 1), lambda: self.state.failed(model, ModelLoadError("no files"), self.now))
                else:
                    self.after(rng.uniform(0, 1), lambda: self.state.prepared(model, device, size, self.now))
            case Load(model):
                self.loads += 1
                assert model.phase == "loading"
                size = self.sizes[model.key][1]  # type: ignore[index]
                took = rng.uniform(0.1, LOAD_S)
                outcome = rng.random()
                if outcome < self.failures:
                    self.after(took, lambda: self.state.failed(model, OutOfMemoryError("oom"), self.now, out_of_memory=True))
                elif outcome < 2 * self.failures:
                    self.after(took, lambda: self.state.failed(model, ModelLoadError("broken"), self.now))
                else:
                    self.after(took, lambda: self.state.loaded(model, size, took, self.now))
            case Evict(model, to_host=to_host):
                assert model.phase == "evicting" and model.leases == 0, "evicted while in use"
                assert not model.pinned
                self.after(rng.uniform(0, EVICT_S), lambda: self.state.evicted(model, self.now, in_host=to_host))
            case DropFromHost(model):
                assert not model.in_host
            case Grant(model, client):
                assert model.phase == "ready"
                if client.outcome is None:
                    client.outcome, client.waited_s, client.holding = "granted", self.now - client.asked_at, True
                    self.after(rng.uniform(0, HOLD_S), lambda: self.release(client))
                else:  # withdrawn at the same moment
                    self.after(0.0, lambda: self.state.released(model, None, self.now))
            case Refuse(_, client, _, _):
                client.outcome = client.outcome or "refused"
                client.refusal = effect

    def release(self, client: Client) -> list[Effect[Client]]:
        client.holding = False
        return self.state.released(client.model, self.rng.choice([None, None, 0.0, 1.0]), self.now)

    def check(self) -> None:
        resident = [model for model in self.state.models.values() if model.resident]
        assert len(resident) <= self.max_models
        for device, budget in self.budgets.items():
            assert self.state.bytes_on(device) <= budget
        for model in self.state.models.values():
            assert model.leases >= 0
            assert model.phase == "ready" or model.leases == 0
            assert model.leases >= sum(client.holding for client in self.clients if client.model is model)
        assert sum(model.need_bytes or 0 for model in resident if model.in_host) <= sum(self.budgets.values())
        assert sum(model.host_bytes for model in self.state.models.values()) <= self.host_budget
        assert all(model.host_bytes and not model.resident for model in self.state.models.values() if model.in_host)


def random_simulation(seed: int) -> Simulation:
    rng = random.Random(seed)
    budgets = {"cpu": rng.randint(5, 30), "cuda:0": rng.randint(5, 30)}
    sizes = [(rng.choice(list(budgets)), rng.randint(1, 20), rng.random() < 0.08) for _ in range(rng.randint(2, 6))]
    return Simulation(rng, rng.randint(1, 4), budgets, sizes, failures=rng.choice([0.0, 0.1]), host_budget=rng.choice([0, 25]))


@pytest.mark.parametrize("block", range(10))
def test_ten_thousand_random_interleavings(block: int) -> None:
    """Nothing leased, loading or pinned is evicted; budgets hold; every request ends; nobody starves; no lease is left."""
    for seed in range(block * 1000, block * 1000 + 1000):
        simulation = random_simulation(seed)
        rng = simulation.rng
        for _ in range(rng.randint(1, 30)):
            simulation.request(rng.randrange(len(simulation.sizes)), rng.uniform(0, 20))
        simulation.run()
        assert all(client.outcome is not None for client in simulation.clients), seed
        assert all(model.leases == 0 and not model.waiters for model in simulation.state.models.values()), seed
        # Each model ahead may keep its place for its patience, its last leases, and the swap.
        bound_s = (len(simulation.sizes) + 1) * (PATIENCE_S + HOLD_S + 3 * LOAD_S + EVICT_S)
        assert max((client.waited_s for client in simulation.clients), default=0) <= bound_s, seed


def test_a_steady_stream_for_one_model_does_not_starve_another() -> None:
    simulation = Simulation(random.Random(1), 1, {"cpu": 10}, [("cpu", 5, False), ("cpu", 5, False)], failures=0.0)
    for step in range(600):
        simulation.request(0, step * 0.1)
    simulation.request(1, 3.05)
    simulation.run()
    other = next(client for client in simulation.clients if client.model.key == 1)
    assert other.outcome in ("granted", "withdrawn")
    assert other.waited_s <= PATIENCE_S + HOLD_S + LOAD_S + EVICT_S


def effects_of(state: Residency[str], effects: list[Effect[str]], kind: type) -> list[Effect[str]]:
    return [effect for effect in effects if isinstance(effect, kind)]


def machine(*needs: int, max_models: int = 3, budget: int = 100, pinned: tuple[int, ...] = ()) -> tuple[Residency[str], list[Model[str]]]:
    """Models of known needs on one device, all cold."""
    state: Residency[str] = Residency(max_models=max_models, budget_of=lambda _: budget)
    models = [Model[str](key, device="cpu", need_bytes=need, pinned=key in pinned) for key, need in enumerate(needs)]
    state.models.update({model.key: model for model in models})
    return state, models


def bring_in(state: Residency[str], model: Model[str], now: float = 0.0) -> None:
    """Loaded, used and idle again."""
    state.request(model, "w", now)
    state.loaded(model, model.need_bytes or 0, 1.0, now)
    state.released(model, None, now)


def test_a_model_that_can_never_fit_is_refused_before_anything_is_evicted() -> None:
    state, (small, huge) = machine(10, 101)
    bring_in(state, small)
    (refusal,) = state.request(huge, "w", 1.0)
    assert isinstance(refusal, Refuse) and refusal.no_room
    assert isinstance(refusal.error, ModelUnavailableError) and not refusal.error.retryable
    assert "needs" in str(refusal.error) and "max_cached_models" in str(refusal.error)
    assert small.phase == "ready"


def test_pinned_models_count_as_room_that_never_comes_free() -> None:
    state, (pinned, other) = machine(60, 50, pinned=(0,))
    bring_in(state, pinned)
    (refusal,) = state.request(other, "w", 1.0)
    assert isinstance(refusal, Refuse) and "pinned models hold" in str(refusal.error)
    state, (pinned, other) = machine(1, 1, max_models=1, pinned=(0,))
    bring_in(state, pinned)
    (refusal,) = state.request(other, "w", 1.0)
    assert isinstance(refusal, Refuse) and "pinned" in str(refusal.error)


def test_the_measured_footprint_replaces_the_estimate() -> None:
    state, (first, second) = machine(50, 60)
    state.request(first, "w", 0.0)
    state.loaded(first, 20, 1.0, 0.0)
    assert effects_of(state, state.request(second, "w", 0.0), Load)  # 20 + 60 fit, 50 + 60 would not have


def test_requests_that_wait_for_one_model_are_bounded_and_told_when_its_load_will_be_done() -> None:
    state: Residency[str] = Residency(max_models=2, budget_of=lambda _: 100, max_waiters=2)
    model, other = (Model[str](key, device="cpu", need_bytes=10) for key in range(2))
    state.models.update({0: model, 1: other})
    state.request(model, "a", 0.0)
    state.loaded(model, 10, 30.0, 30.0)  # it took half a minute
    state.released(model, 0.0, 30.0)
    state.evicted(model, 31.0)
    state.request(model, "b", 100.0)
    state.request(model, "c", 101.0)
    for now, left_s in ((110.0, 20.0), (129.5, 1.0), (500.0, 1.0)):
        (refusal,) = state.request(model, "d", now)
        assert isinstance(refusal, Refuse) and isinstance(refusal.error, RateLimitError)
        assert refusal.error.retry_after_s == left_s
    assert len(model.waiters) == 2
    assert isinstance(state.request(other, "e", 110.0)[0], Load)  # each model has its own bound
    state.withdraw(model, "b", 111.0)
    assert not state.request(model, "f", 112.0)


def test_out_of_memory_evicts_others_and_tries_once_more() -> None:
    state, (idle, wanted) = machine(30, 30)
    bring_in(state, idle)
    state.request(wanted, "w", 1.0)
    (evict,) = state.failed(wanted, OutOfMemoryError("oom"), 2.0, out_of_memory=True)
    assert isinstance(evict, Evict) and evict.model is idle
    (load,) = state.evicted(idle, 3.0)
    assert isinstance(load, Load) and load.model is wanted
    (refusal,) = state.failed(wanted, OutOfMemoryError("oom"), 4.0, out_of_memory=True)
    assert isinstance(refusal, Refuse)
    assert wanted.phase == "cold"


def test_what_left_a_gpu_is_kept_in_host_memory_within_its_budget() -> None:
    state: Residency[str] = Residency(max_models=1, budget_of=lambda _: 100, host_budget_bytes=50)
    first, second, third = (Model[str](key, device="cuda:0", need_bytes=30) for key in range(3))
    state.models.update({0: first, 1: second, 2: third})
    bring_in(state, first, 0.0)
    (evict,) = state.request(second, "w", 1.0)
    assert isinstance(evict, Evict) and evict.to_host
    state.evicted(first, 1.0, in_host=True)
    state.loaded(second, 30, 1.0, 2.0)
    state.released(second, None, 2.0)
    drop, evict = state.request(third, "w", 3.0)
    assert isinstance(drop, DropFromHost) and drop.model is first
    assert isinstance(evict, Evict) and evict.to_host


def candidate(key: str, **more: Any) -> Candidate:
    usual = {"bytes": 10, "in_use": False, "pinned": False, "asked_for": False, "idle_s": 1.0, "expired_s": None, "reload_s": 1.0}
    fields: dict[str, Any] = usual | more
    return Candidate(key=key, **fields)


@pytest.mark.parametrize(
    ("candidates", "free_bytes", "free_places", "expected"),
    [
        ([candidate("a", pinned=True), candidate("b")], 10, 0, ["b"]),  # 1
        ([candidate("a", in_use=True), candidate("b")], 10, 0, ["b"]),  # 2
        ([candidate("a", asked_for=True), candidate("b")], 10, 0, ["b"]),  # 3
        ([candidate("a", idle_s=99.0), candidate("b", expired_s=0.1)], 10, 0, ["b"]),  # 4
        ([candidate("a", idle_s=5.0), candidate("b", idle_s=9.0)], 10, 0, ["b"]),  # 5
        ([candidate("a", idle_s=5.0), candidate("b", idle_s=9.0, reload_s=10.0)], 10, 0, ["a"]),  # 5
        ([candidate("a", idle_s=9.0, bytes=3), candidate("b")], 10, 0, ["b"]),  # 6
        ([candidate("a"), candidate("b", idle_s=2.0)], 20, 0, ["b", "a"]),
        ([candidate("a", bytes=0), candidate("b", bytes=0, idle_s=3.0)], 0, 1, ["b"]),
        ([candidate("a")], 11, 0, None),
        ([], 0, 0, []),
    ],
)
def test_the_policy(candidates: list[Candidate], free_bytes: int, free_places: int, expected: list[str] | None) -> None:
    assert choose_victims(candidates, free_bytes=free_bytes, free_places=free_places) == expected


def test_a_copy_on_its_way_to_host_memory_is_not_dropped_for_another() -> None:
    state: Residency[str] = Residency(max_models=3, budget_of=lambda _: 60, host_budget_bytes=30)
    first, second, large = (Model[str](key, device="cuda:0", need_bytes=need) for key, need in enumerate((30, 30, 60)))
    state.models.update({0: first, 1: second, 2: large})
    bring_in(state, first, 0.0)
    bring_in(state, second, 1.0)
    effects = state.request(large, "w", 2.0)  # both leave in one go, and one fits the host tier
    assert not effects_of(state, effects, DropFromHost)
    assert sorted(effect.to_host for effect in effects if isinstance(effect, Evict)) == [False, True]
    kept = next(effect.model for effect in effects if isinstance(effect, Evict) and effect.to_host)
    state.evicted(kept, 3.0, in_host=True)
    (load,) = state.evicted(first if kept is second else second, 3.0)
    assert isinstance(load, Load) and load.model is large and kept.in_host


def test_a_copy_that_is_being_loaded_is_not_dropped() -> None:
    state: Residency[str] = Residency(max_models=1, budget_of=lambda _: 60, host_budget_bytes=30)
    first, second = (Model[str](key, device="cuda:0", need_bytes=30) for key in range(2))
    state.models.update({0: first, 1: second})
    bring_in(state, first, 0.0)
    state.request(second, "w", 1.0)
    state.evicted(first, 1.0, in_host=True)
    state.loaded(second, 30, 1.0, 2.0)
    state.request(first, "w", 2.0)
    drop, evict = state.released(second, None, 3.0)
    assert isinstance(drop, DropFromHost) and isinstance(evict, Evict)  # it waits, so nobody works on its copy
    state.evicted(second, 4.0, in_host=True)
    assert first.phase == "loading" and first.host_bytes == 0


@pytest.mark.parametrize("keep_alive", [None, 0.0])
def test_a_pin_holds_the_ttl_back_and_does_not_end_it(keep_alive: float | None) -> None:
    state: Residency[str] = Residency(max_models=3, budget_of=lambda _: 60, ttl_s=60.0)
    model = Model[str](0, device="cpu", need_bytes=30)
    state.models[0] = model
    bring_in(state, model, 0.0)
    model.pinned = True
    state.request(model, "w", 10.0)
    state.released(model, keep_alive, 20.0)
    assert state.advance(500.0) == [] and state.next_time(20.0) is None
    model.pinned = False
    ends_at = 80.0 if keep_alive is None else 20.0
    assert state.next_time(19.0) == ends_at
    (evict,) = state.advance(ends_at)
    assert isinstance(evict, Evict)


def test_whoever_asks_as_an_unwanted_load_is_given_up_waits_for_another() -> None:
    state, (model,) = machine(10)
    state.request(model, "a", 0.0)
    state.withdraw(model, "a", 1.0)
    state.request(model, "b", 2.0)
    (load,) = state.stopped(model, 3.0)
    assert isinstance(load, Load) and [waiter for waiter, _ in model.waiters] == ["b"]


def waiting_machine() -> tuple[Residency[str], Model[str], Model[str]]:
    """One place, and a model in it that two requests use since 0.0."""
    state: Residency[str] = Residency(max_models=1, budget_of=lambda _: 100, patience_s=PATIENCE_S, room_timeout_s=60.0)
    used, wanted = (Model[str](key, device="cpu", need_bytes=10) for key in range(2))
    state.models.update({0: used, 1: wanted})
    state.request(used, "a", 0.0)
    state.request(used, "b", 0.0)
    state.loaded(used, 10, 1.0, 0.0)
    return state, used, wanted


def test_a_request_waits_for_room_for_a_bounded_time_and_is_told_for_what() -> None:
    state, used, wanted = waiting_machine()
    assert state.request(wanted, "w", 1.0) == []
    assert state.request(wanted, "later", 21.0) == []  # the first one's patience is over
    assert state.request(used, "c", 22.0) == []  # its model takes no new requests
    assert state.next_time(22.0) == 61.0
    (refusal,) = state.advance(61.0)
    assert isinstance(refusal, Refuse) and refusal.waiter == "w" and isinstance(refusal.error, ModelUnavailableError)
    assert refusal.error.retryable and refusal.error.retry_after_s == PATIENCE_S
    assert "waited for room for 60 seconds" in str(refusal.error) and "1 in use by 2 requests" in str(refusal.error)
    refusal, grant = state.advance(81.0)  # nobody waits for its room any more
    assert isinstance(refusal, Refuse) and refusal.waiter == "later" and wanted.phase == "cold"
    assert isinstance(grant, Grant) and grant.waiter == "c"


def test_a_request_for_a_model_that_is_to_leave_waits_for_a_bounded_time() -> None:
    state, used, _ = waiting_machine()
    state.unload(used, 1.0)
    assert state.request(used, "c", 2.0) == []
    (refusal,) = state.advance(62.0)
    assert isinstance(refusal, Refuse) and "about to leave memory, which 2 requests still use" in str(refusal.error)
    assert used.phase == "ready" and used.leases == 2


def test_downloads_and_loads_do_not_count_as_waiting_for_room() -> None:
    state, used, wanted = waiting_machine()
    wanted.need_bytes = None
    (prepare,) = state.request(wanted, "w", 1.0)
    assert isinstance(prepare, Prepare) and state.advance(500.0) == []
    assert state.prepared(wanted, "cpu", 10, 500.0) == []
    assert state.advance(559.0) == [] and state.next_time(559.0) == 560.0
    state.released(used, None, 559.5)
    (evict,) = state.released(used, None, 559.5)
    (load,) = state.evicted(used, 559.6)
    assert isinstance(evict, Evict) and isinstance(load, Load)
    assert state.advance(900.0) == [] and wanted.phase == "loading"
