"""The state machine under one lock: what happens goes in, and the effects that it decides on are handed to who carries them out.

The lock is never held across a load, an eviction or a callback. What an effect needs (the instance that it works on, a copy in
host memory) is taken under the lock, together with the decision, so that no later decision comes between. `ModelEntry.instance`
says who may speak for a model: a report of any other instance is late, and changes nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.core import Progress
from mm_gateway.errors import GatewayError, OutOfMemoryError, ShuttingDownError
from mm_gateway.runtime.residency.alarm import Alarm
from mm_gateway.runtime.residency.factories import Factories
from mm_gateway.runtime.residency.history import History
from mm_gateway.runtime.residency.instance_threads import InstanceThreads
from mm_gateway.runtime.residency.leases import Counts, Lease, ManagerStats, Waiter, queued_progress
from mm_gateway.runtime.residency.model import DropFromHost, Effect, Evict, Grant, Load, Prepare, Refuse
from mm_gateway.runtime.residency.model_entries import ModelEntries
from mm_gateway.runtime.residency.model_entry import ModelEntry, Spawn, on_cpu, spawn_thread
from mm_gateway.runtime.residency.model_instance import ModelInstance, Preparation
from mm_gateway.runtime.residency.state_machine import Residency

if TYPE_CHECKING:
    from mm_gateway.runtime.checkpoints.loaded_model import LoadedModel

logger = logging.getLogger(__name__)


class ModelCache:
    """Thread-safe.

    Args:
        state: decides. budgets: those that it decides by, filled in as devices become known. factories: make what it decides.
        fallback_to_cpu: serve on the CPU what a GPU has no room for.
        load_timeout_s: without any progress, after which a load or a download has failed.
        clock: of the state machine. spawn: starts threads.
    """

    def __init__(
        self,
        state: Residency[Waiter],
        budgets: dict[str, int | None],
        factories: Factories,
        *,
        fallback_to_cpu: bool,
        load_timeout_s: float,
        clock: Callable[[], float],
        spawn: Spawn = spawn_thread,
    ) -> None:
        self._state = state
        self._budgets = budgets
        self._factories = factories
        self._fallback_to_cpu = fallback_to_cpu
        self._threads = InstanceThreads(self, spawn, load_timeout_s=load_timeout_s, clock=clock)
        self._clock = clock
        self._changed = threading.Condition()
        self._entries = ModelEntries(state.models, fallback_to_cpu=fallback_to_cpu)
        self._alarm = Alarm(self._advance, clock)
        self._counts = Counts()
        self.history = History()
        self.closing = False

    # --- asking ---

    def entries(self, accept: Callable[[ModelEntry], bool]) -> list[ModelEntry]:
        """Models that were ever asked for, of those that are accepted."""
        with self._changed:
            return [entry for entry in self._entries if accept(entry)]

    def entry(self, config: ModelConfig) -> ModelEntry | None:
        """The model that a configuration means; None where it was never asked for."""
        return self._entries.find(config)

    def stats(self) -> ManagerStats:
        """A glance at the cache."""
        with self._changed:
            models = list(self._state.models.values())
            devices = sorted({model.device for model in models if model.device is not None and model.resident})
            return ManagerStats(
                **asdict(self._counts),
                resident=sum(model.resident for model in models),
                leases=sum(model.leases for model in models),
                memory={device: self._state.bytes_on(device) for device in devices},
                budgets={device: self._budgets.get(device) for device in devices},
            )

    def wait_until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait for something to become so, which is looked at after each change; False: it did not within that time."""
        with self._changed:
            return self._changed.wait_for(condition, timeout_s)

    # --- what happens: decided under the lock, carried out after it ---

    def request(self, waiter: Waiter) -> None:
        """Somebody wants a model; its future says the rest."""
        with self._deciding() as effects:
            if waiter.future.cancelled():
                return
            model = self._entries.ensure(waiter.config).model
            self._counts.hits += model.phase == "ready"
            effects += self._state.request(model, waiter, self._clock())
            queued = model.phase == "waiting"
        if queued:
            waiter.tell(queued_progress(waiter.config))

    def withdraw(self, waiter: Waiter) -> None:
        """A waiter cancelled its future."""
        with self._deciding() as effects:
            effects += self._state.withdraw(self._entries.ensure(waiter.config).model, waiter, self._clock())

    def pin(self, config: ModelConfig, pinned: bool) -> None:
        """Keep a model once it is in memory, also where it had to go to the CPU; or no longer."""
        with self._deciding() as effects:
            self._entries.pin(config, pinned)
            effects += self._state.advance(self._clock())

    def unload(self, entries: Sequence[ModelEntry]) -> None:
        """Models leave as soon as nobody uses them; does not wait for it."""
        with self._deciding() as effects:
            for entry in entries:
                effects += self._state.unload(entry.model, self._clock())

    def serve(self, configs: Iterable[ModelConfig]) -> None:
        """These are what is served from now on. Names, TTLs and pins become theirs; what none of them means is pinned no more."""
        with self._deciding() as effects:
            self._entries.serve(configs)
            effects += self._state.advance(self._clock())

    def forget(self, configs: Iterable[ModelConfig]) -> None:
        """Of these, unload what nothing that is served means, as soon as nobody uses it, and keep nothing of it."""
        with self._deciding():
            self._entries.forget(configs)

    def close(self) -> None:
        """Refuse who waits, and let every model leave; does not wait for it."""
        with self._deciding() as effects:
            self.closing = True
            self._alarm.cancel()
            effects += self._state.close(ShuttingDownError("The gateway is shutting down"), self._clock())

    def drop_host_copies(self) -> None:
        with self._changed:
            self._entries.drop_host_copies()

    def _advance(self) -> None:
        with self._deciding() as effects:
            effects += self._state.advance(self._clock())

    def _release(self, entry: ModelEntry, instance: ModelInstance, keep_alive: float) -> None:
        with self._deciding() as effects:
            if entry.instance is instance and entry.model.phase == "ready":  # else the lease was void before
                effects += self._state.released(entry.model, keep_alive, self._clock())

    @contextmanager
    def _deciding(self) -> Generator[list[Effect[Waiter]]]:
        """Collects effects under the lock, and carries them out after it. One that raises does not take the next ones with it."""
        effects: list[Effect[Waiter]] = []
        with self._changed:
            yield effects
            for model in self._entries.forgotten():
                if model.resident and not model.unload_asked:
                    effects += self._state.unload(model, self._clock())
            jobs = [self._job(effect) for effect in effects]
            self._entries.drop_forgotten()
            if not self.closing:
                self._alarm.set(self._state.next_time(self._clock()))
            self._changed.notify_all()
        for job in jobs:
            try:
                job()
            except Exception:
                logger.exception("an effect of the model cache failed")

    def _job(self, effect: Effect[Waiter]) -> Callable[[], None]:
        """What carries an effect out, with everything that it needs."""
        entry = self._entries.of(effect.model)
        match effect:
            case Prepare():
                instance = entry.instance = ModelInstance(entry.config, self._factories)
                return partial(self._threads.prepare, entry, instance)
            case Load(from_host=from_host):
                host_copy = entry.host_copy if from_host else None
                entry.host_copy = None
                instance = entry.instance = ModelInstance(entry.config, self._factories, host_copy)
                return partial(self._threads.load, entry, instance)
            case Evict(to_host=to_host):
                assert entry.instance is not None
                room_for = self._entries.of(effect.room_for) if effect.room_for is not None else None
                self.history.evicted(entry, effect, room_for)
                return partial(self._threads.evict, entry, entry.instance, to_host=to_host)
            case DropFromHost():
                host_copy, entry.host_copy = entry.host_copy, None
                return partial(_drop, host_copy)  # freeing gigabytes is not for the lock
            case Grant(waiter=waiter):
                assert entry.instance is not None
                return partial(self._grant, entry, entry.instance, waiter)
            case Refuse(waiter=waiter, error=error, no_room=no_room):
                return partial(self._refuse, waiter, error, no_room)

    def _grant(self, entry: ModelEntry, instance: ModelInstance, waiter: Waiter) -> None:
        loaded, engine = instance.loaded, instance.engine
        if loaded is None or engine is None or instance.failure is not None:
            self.request(waiter)  # its engine died before the lease came
            return
        lease = Lease(loaded, engine, partial(self._release, entry, instance, waiter.keep_alive))
        if not waiter.grant(lease):
            lease.release()

    def _refuse(self, waiter: Waiter, error: GatewayError, no_room: bool) -> None:
        if not (no_room and self._fallback_to_cpu) or waiter.fell_back or waiter.config.device == "cpu":
            waiter.refuse(error)
            return
        text = f"{waiter.config.model_name}: loading on the CPU instead, because {error}"
        logger.warning("%s", text)
        waiter.tell(Progress("loading", text))
        waiter.fell_back = True
        with self._changed:
            pinned = self._entries.ensure(waiter.config).model.pinned
        waiter.config = msgspec.structs.replace(on_cpu(waiter.config), pin=pinned)
        self.request(waiter)

    # --- what came of it: `instance_threads.Reports` ---

    def prepared(self, entry: ModelEntry, instance: ModelInstance, preparation: Preparation) -> None:
        with self._deciding() as effects:
            if entry.instance is not instance:
                return
            entry.instance, entry.kv_cache_bytes = None, preparation.kv_cache_bytes
            self._budgets[preparation.device] = preparation.budget_bytes
            effects += self._state.prepared(entry.model, preparation.device, preparation.need_bytes, self._clock())
            queued = [waiter for waiter, _ in entry.model.waiters] if entry.model.phase == "waiting" else []
            if queued:
                entry.progress = queued_progress(entry.config)
        for waiter in queued:
            waiter.tell(queued_progress(entry.config))

    def loaded(self, entry: ModelEntry, instance: ModelInstance, footprint_bytes: int, load_s: float, *, from_host: bool) -> bool:
        with self._deciding() as effects:
            if entry.instance is not instance or instance.failure is not None:
                return False
            entry.progress, entry.context_length, entry.formats = None, instance.context_length, instance.formats
            entry.failure = None
            self._counts.loads += 1
            self._counts.loads_from_host += from_host
            self.history.loaded(entry, footprint_bytes, load_s, from_host=from_host)
            effects += self._state.loaded(entry.model, footprint_bytes, load_s, self._clock())
        return True

    def evicted(self, entry: ModelEntry, instance: ModelInstance, kept: LoadedModel | None) -> None:
        with self._deciding() as effects:
            if entry.instance is not instance:
                return
            entry.instance, entry.host_copy = None, kept
            self._counts.evictions += 1
            effects += self._state.evicted(entry.model, self._clock(), in_host=kept is not None)

    def failed(self, entry: ModelEntry, instance: ModelInstance, error: GatewayError, *, stopped: bool = False) -> None:
        with self._deciding() as effects:
            if entry.instance is not instance:
                return
            entry.instance = entry.progress = None
            if stopped:
                effects += self._state.stopped(entry.model, self._clock())
            else:
                self.history.failed(entry, error)
                entry.failure = str(error), self._clock()
                out_of_memory = isinstance(error, OutOfMemoryError)
                effects += self._state.failed(entry.model, error, self._clock(), out_of_memory=out_of_memory)

    def engine_failed(self, entry: ModelEntry, instance: ModelInstance, error: BaseException) -> None:
        with self._deciding() as effects:
            instance.failure = error
            if entry.instance is instance and entry.model.phase == "ready":
                entry.failure = str(error), self._clock()
                effects += self._state.expel(entry.model, "failed", self._clock())

    def wanted(self, entry: ModelEntry, instance: ModelInstance) -> bool:
        with self._changed:
            return bool(entry.model.waiters) and entry.instance is instance and not self.closing

    def progressed(self, entry: ModelEntry, instance: ModelInstance, progress: Progress) -> bool:
        with self._changed:
            if entry.instance is not instance:
                return False
            entry.progress = progress
            waiters = [waiter for waiter, _ in entry.model.waiters]
        for waiter in waiters:
            waiter.tell(progress)
        return True


def _drop(_: object) -> None:
    """What was held goes with the argument."""
