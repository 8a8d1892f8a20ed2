"""One machine: which models it holds is decided by the gateway's own `Residency`, what they compute by shares of its time."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from itertools import count
from typing import Protocol

from benchmarks.fleet.simulation.clock import Clock
from benchmarks.fleet.simulation.engine import Engine
from benchmarks.fleet.simulation.figures import ModelFigures
from benchmarks.fleet.simulation.workload import Turn
from mm_gateway.runtime.residency.model import Effect, Evict, Grant, Load, Model, Prepare, Refuse
from mm_gateway.runtime.residency.state_machine import Residency


class Listener(Protocol):
    """Whom a replica tells of its requests."""

    def began(self, turn: Turn) -> None: ...

    def done(self, turn: Turn) -> None: ...

    def failed(self, turn: Turn, why: str) -> None: ...


class Replica:
    """A machine with a memory for models.

    Args:
        models: by key. pinned: keys of those that stay. told: of what becomes of its requests.

    Attributes:
        speed: of its computing, 1.0 as its figures say. alive: it answers. loads, evictions: since `forget`. busy_s: in which it computed.
    """

    def __init__(
        self,
        name: str,
        clock: Clock,
        models: Sequence[ModelFigures],
        memory_bytes: float,
        told: Listener,
        pinned: frozenset[int] = frozenset(),
        speed: float = 1.0,
    ) -> None:
        self.name, self.speed, self.alive = name, speed, True
        self.loads = self.evictions = 0
        self.busy_s = 0.0
        self._clock, self._models, self._memory_bytes, self._told, self._pinned = clock, models, memory_bytes, told, pinned
        self._numbers = count().__next__
        self._start()

    def _start(self) -> None:
        self._residency = Residency[Turn | None](max_models=10_000, budget_of=lambda _: int(self._memory_bytes))
        self._engines: dict[int, Engine] = {}
        self._computed_until = self._clock.now
        self._disk_free_at = self._clock.now
        self._waiters = self.running = 0
        self._epoch = getattr(self, "_epoch", 0) + 1
        self._planned = 0
        self._alarm_at = float("inf")

    def holds(self, key: Hashable) -> bool:
        """Whether the model is in memory."""
        return key in self._engines

    @property
    def held(self) -> int:
        """Models in memory."""
        return len(self._engines)

    def warm(self, keys: Sequence[int]) -> None:
        """Hold these from the start on, those that fit."""
        for key in keys:
            model, figures = self._model(key), self._models[key]
            if not model.resident and self._residency.bytes_on("0") + figures.need_bytes <= self._memory_bytes:
                model.phase, model.device, model.need_bytes, model.load_s = "ready", "0", figures.need_bytes, figures.load_s
                self._engines[key] = Engine(figures, self._numbers)

    def submit(self, turn: Turn) -> None:
        if not self.alive:
            self._told.failed(turn, "refuses the connection")
            return
        self.running += 1
        turn.cold = not self.holds(turn.model)
        self._waiters += 1
        self._carry_out(self._residency.request(self._model(turn.model), turn, self._clock.now))

    def kill(self) -> None:
        """It dies, with all that it answers and holds."""
        self._compute()
        lost = [turn for engine in self._engines.values() for turn in engine.turns()]
        lost += [turn for model in self._residency.models.values() for turn, _ in model.waiters if turn is not None]
        self.alive = False
        self._start()
        for turn in lost:
            self._told.failed(turn, "breaks off")

    def change_speed(self, speed: float) -> None:
        self._compute()
        self.speed = speed
        self._plan()

    def _model(self, key: int) -> Model[Turn | None]:
        model = self._residency.models.get(key)
        if model is None:
            model = self._residency.models[key] = Model(key, pinned=key in self._pinned)
        return model

    def _carry_out(self, effects: Sequence[Effect[Turn | None]]) -> None:
        """What the state machine says is due, as the manager does."""
        left = deque(effects)
        now, residency = self._clock.now, self._residency
        while left:
            match left.popleft():
                case Prepare(model):
                    assert isinstance(model.key, int)
                    left += residency.prepared(model, "0", self._models[model.key].need_bytes, now)
                case Load(model):
                    self._load(model)
                case Evict(model):
                    assert isinstance(model.key, int)
                    self.evictions += 1
                    self._compute()
                    del self._engines[model.key]
                    left += residency.evicted(model, now)
                case Grant(model, turn):
                    self._waiters -= 1
                    assert turn is not None and isinstance(model.key, int)
                    self._compute()
                    engine = self._engines[model.key]
                    engine.waiting.append(turn)
                    engine.take()
                    self._plan()
                case Refuse(model, turn, error):
                    self._waiters -= 1
                    self.running -= 1
                    assert turn is not None
                    self._told.failed(turn, str(error))
                case _:
                    raise AssertionError("there is no host memory here")
        if self._waiters:
            self._set_alarm()

    def _set_alarm(self) -> None:
        """Patience and time-outs of those who wait for room."""
        at = self._residency.next_time(self._clock.now)
        if at is None or at >= self._alarm_at:
            return
        self._alarm_at, epoch = at, self._epoch

        def ring() -> None:
            if epoch == self._epoch:
                self._alarm_at = float("inf")
                self._carry_out(self._residency.advance(self._clock.now))

        self._clock.at(at, ring)

    def _load(self, model: Model[Turn | None]) -> None:
        """From a disk that serves one load after the other."""
        assert isinstance(model.key, int)
        figures, epoch = self._models[model.key], self._epoch
        self._disk_free_at = max(self._disk_free_at, self._clock.now) + figures.load_s
        self.loads += 1

        def loaded() -> None:
            if epoch != self._epoch:
                return
            self._engines[figures.key] = Engine(figures, self._numbers)
            self._carry_out(self._residency.loaded(model, figures.need_bytes, figures.load_s, self._clock.now))

        self._clock.at(self._disk_free_at, loaded)

    def _compute(self) -> None:
        """Bring all engines to now: those that have work share the time equally."""
        passed_s = self._clock.now - self._computed_until
        self._computed_until = self._clock.now
        if passed_s <= 0:
            return
        active = [engine for engine in self._engines.values() if engine.active]
        if active:
            self.busy_s += passed_s
            for engine in active:
                engine.compute(passed_s * self.speed / len(active))

    def _plan(self) -> None:
        """See to it that what comes next is seen when it comes."""
        active = [engine for engine in self._engines.values() if engine.active]
        if not active:
            return
        self._planned = plan = self._planned + 1
        epoch = self._epoch
        soonest = min(engine.next_s() for engine in active) * len(active) / self.speed

        def due() -> None:
            if plan == self._planned and epoch == self._epoch:
                self._settle()

        self._clock.after(soonest, due)

    def _settle(self) -> None:
        self._compute()
        done: list[Turn] = []
        begun: list[Turn] = []
        for engine in self._engines.values():
            if engine.active:
                done += engine.written_until()
                if (turn := engine.read_until()) is not None:
                    begun.append(turn)
                engine.take()
        self._plan()
        for turn in begun:
            self._told.began(turn)
        for turn in done:
            self.running -= 1
            self._carry_out(self._residency.released(self._model(turn.model), None, self._clock.now))
            self._told.done(turn)
