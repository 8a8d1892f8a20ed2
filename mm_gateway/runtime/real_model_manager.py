"""Models in memory as a cache: loaded on first use, leased while in use, evicted when their room is needed.

This is the door: what callers ask by configuration or by name. `residency` decides and does it. Loads and evictions run on threads
of their own, so no model waits on another's. torch is imported when the first model loads.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING

import msgspec

from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import EngineSettings, MemorySettings
from mm_gateway.core import ProgressCallback
from mm_gateway.errors import ModelNotFoundError, ModelUnavailableError, ShuttingDownError
from mm_gateway.runtime.residency.factories import BudgetOf, DeviceBudgets, EngineFactory, Factories, Loader
from mm_gateway.runtime.residency.history import ModelEvent
from mm_gateway.runtime.residency.leases import Lease, ManagerStats, ModelStatus, Waiter, status_of
from mm_gateway.runtime.residency.model_cache import ModelCache
from mm_gateway.runtime.residency.model_entry import ModelEntry, Spawn, spawn_thread
from mm_gateway.runtime.residency.state_machine import Residency

if TYPE_CHECKING:
    from mm_gateway.runtime.checkpoints.loaded_model import LoadedModel
    from mm_gateway.runtime.engine.stats import EngineStats

logger = logging.getLogger(__name__)

UNLOAD_TIMEOUT_S = 600.0
"""For which an unload waits for requests that use the model; it leaves when they end in any case."""
CLOSE_TIMEOUT_S = 30.0
"""For which closing waits for engines to end; their threads do not keep the process."""


class RealModelManager:
    """Loads, leases and evicts models. Thread-safe; synchronous callers block on the futures, the gateway awaits them.

    Args:
        max_cached_models: models in memory at a time, >= 1.
        memory_threshold: (0, 1], share of a device's memory that models may take together.
        budget_bytes: instead of the share, bytes on each device.
        host_tier_bytes: host memory for the weights of models that had to leave a GPU, so that they come back without the disk.
        fallback_to_cpu: serve on the CPU what a GPU has no room for.
        ttl_s: idle seconds after which a model is unloaded where its entry sets none; None: never.
        engine_settings: of every model's engine.
        patience_s: how long requests for models in memory may overtake one that waits for room.
        room_timeout_s: how long a request waits for other models to make room. load_timeout_s: without any progress, after which a load
            or a download has failed.
        loader, engine_factory, budget_of, clock, spawn: for tests; by default ModelLoader, InferenceEngine, the devices' memory,
            time.monotonic, and threads.
    """

    def __init__(
        self,
        max_cached_models: int = 3,
        memory_threshold: float = 0.8,
        *,
        budget_bytes: int | None = None,
        host_tier_bytes: int = 0,
        fallback_to_cpu: bool = False,
        ttl_s: float | None = None,
        engine_settings: EngineSettings | None = None,
        patience_s: float = 10.0,
        room_timeout_s: float = 300.0,
        load_timeout_s: float = 1800.0,
        loader: Loader | None = None,
        engine_factory: EngineFactory | None = None,
        budget_of: BudgetOf | None = None,
        clock: Callable[[], float] = time.monotonic,
        spawn: Spawn = spawn_thread,
    ) -> None:
        if max_cached_models < 1:
            raise ValueError(f"max_cached_models must be at least 1, got {max_cached_models}")
        if not 0 < memory_threshold <= 1:
            raise ValueError(f"memory_threshold must be greater than 0 and at most 1, got {memory_threshold}")
        settings = engine_settings or EngineSettings()
        budgets: dict[str, int | None] = {}
        state: Residency[Waiter] = Residency(
            max_models=max_cached_models,
            budget_of=budgets.get,
            ttl_s=ttl_s,
            host_budget_bytes=host_tier_bytes,
            patience_s=patience_s,
            room_timeout_s=room_timeout_s,
            max_waiters=settings.max_waiting,
        )
        self._clock = clock
        self._ttl_s = ttl_s
        budget_of = budget_of or DeviceBudgets(memory_threshold, budget_bytes, settings.prefix_cache_bytes)
        self._factories = Factories(loader, engine_factory, settings, budget_of)
        self._cache = ModelCache(
            state,
            budgets,
            self._factories,
            fallback_to_cpu=fallback_to_cpu,
            load_timeout_s=load_timeout_s,
            clock=clock,
            spawn=spawn,
        )

    @classmethod
    def from_settings(cls, memory: MemorySettings, engine: EngineSettings) -> RealModelManager:
        """The manager that `gateway.yaml` describes."""
        return cls(
            memory.max_cached_models,
            memory.memory_threshold,
            budget_bytes=memory.budget_bytes,
            host_tier_bytes=memory.host_tier_bytes,
            fallback_to_cpu=memory.fallback_to_cpu,
            ttl_s=memory.ttl_s,
            engine_settings=engine,
            room_timeout_s=memory.room_timeout_s,
            load_timeout_s=memory.load_timeout_s,
        )

    def acquire(
        self, config: ModelConfig, *, keep_alive: float | None = None, on_progress: ProgressCallback | None = None
    ) -> Future[Lease]:
        """Ask for a model; the future gives a lease once it is in memory. Everybody who asks for one model joins one load.

        Args:
            keep_alive: idle seconds to keep it after this lease, 0: unload; None: as configured.
            on_progress: told how the load goes, from other threads.

        Returns:
            A future; cancelling it withdraws, and a load that nobody waits for any more is abandoned at its next stage (a
            download goes on). It fails with ModelLoadError, OutOfMemoryError, ModelUnavailableError (also where it waited for room for too
            long) or ShuttingDownError.
        """
        if self._cache.closing:
            raise ShuttingDownError("The gateway is shutting down")
        # Entries may share a model; each request goes by the TTL of its own.
        ttl_s = next((value for value in (keep_alive, config.ttl_s, self._ttl_s) if value is not None), math.inf)
        waiter = Waiter(config, Future(), on_progress, ttl_s)
        self._cache.request(waiter)
        waiter.future.add_done_callback(lambda future: self._cache.withdraw(waiter) if future.cancelled() else None)
        return waiter.future

    def load_model(self, config: ModelConfig) -> LoadedModel:
        """Load a model, or find it loaded; blocks. It stays until its room is needed.

        Raises:
            ModelLoadError, OutOfMemoryError, ModelUnavailableError: what failed and what to try.
        """
        with self.acquire(config).result() as lease:
            return lease.loaded

    def get_model(self, name: str) -> LoadedModel | None:
        """The loaded model of that name, or None where it is not in memory. Does not load."""
        return next((entry.instance.loaded for entry in self._named(name) if _is_ready(entry) and entry.instance is not None), None)

    def list_models(self) -> list[str]:
        """Names of the models in memory."""
        return [entry.name for entry in self._cache.entries(_is_ready)]

    def model_info(self, name: str) -> ModelStatus:
        """The status of the model of that name.

        Raises:
            ModelNotFoundError: it was never asked for.
        """
        entries = self._named(name)
        if not entries:
            raise ModelNotFoundError(name)
        return self.status(entries[0].config)

    def status(self, config: ModelConfig) -> ModelStatus:
        """How a model is now."""
        entry = self._cache.entry(config)
        if entry is None:
            return ModelStatus("cold")
        return status_of(entry.model, entry.progress, entry.context_length, entry.formats, entry.failure, self._clock())

    def pin(self, config: ModelConfig, pinned: bool = True) -> None:
        """Keep a model once it is in memory, whatever needs its room; or no longer, and then it goes by its TTL again."""
        self._cache.pin(config, pinned)

    def serve(self, configs: Iterable[ModelConfig]) -> None:
        """These are the configurations of a gateway from now on: pins, TTLs and names become theirs. What none of them means any more is
        pinned no longer; it stays in memory until its room is needed, or `forget`."""
        self._cache.serve(configs)

    def forget(self, configs: Iterable[ModelConfig]) -> None:
        """Of these, unload what nothing that is served means, as soon as nobody uses it, and keep nothing of it. Does not wait."""
        self._cache.forget(configs)

    def unload_model(self, name: str) -> bool:
        """Unload every form of the model of that name, pinned ones too; waits until nobody uses it. New requests wait, and load it again.

        Returns:
            False: none of that name was in memory.

        Raises:
            ModelUnavailableError: it is still in use after UNLOAD_TIMEOUT_S.
        """
        return self._unload([entry for entry in self._named(name) if entry.model.resident])

    def unload(self, config: ModelConfig) -> None:
        """Unload one model, where it is in memory or loads; as `unload_model`."""
        entry = self._cache.entry(config)
        self._unload([entry] if entry is not None and entry.model.resident else [])

    def clear_cache(self) -> None:
        """Unload every model that nobody uses, pinned ones too; returns when they are gone."""
        self._unload(self._cache.entries(lambda entry: _is_ready(entry) and not entry.model.leases))

    def switch_device(self, name: str, device: str) -> LoadedModel:
        """Have a model on another device: waits until nobody uses it, unloads it, and loads it there; errors as for `load_model`.

        One that is not in memory is loaded as it was the last time; one that never was, by its name.
        """
        entries = sorted(self._named(name), key=lambda entry: not _is_ready(entry))
        config = entries[0].config if entries else ModelConfig(model_name=name)
        self.unload_model(name)
        return self.load_model(msgspec.structs.replace(config, device=device))

    def stats(self) -> ManagerStats:
        """A glance at the cache."""
        return self._cache.stats()

    def events(self) -> tuple[ModelEvent, ...]:
        """Which models came, left and failed, and why; the newest first."""
        return self._cache.history.events

    def on_event(self, listener: Callable[[ModelConfig, ModelEvent], object]) -> None:
        """Tell of each from now on, with the configuration that the model was loaded by; from any thread, which must not be blocked."""
        self._cache.history.listeners.append(listener)

    def glance(self) -> list[tuple[ModelConfig, ModelStatus, EngineStats | None]]:
        """Every model that was ever asked for, as it is now, and what its engine does, where it has one."""
        found: list[tuple[ModelConfig, ModelStatus, EngineStats | None]] = []
        for entry in self._cache.entries(lambda _: True):
            instance = entry.instance
            engine = instance.engine if instance is not None else None
            status = status_of(entry.model, entry.progress, entry.context_length, entry.formats, entry.failure, self._clock())
            found.append((entry.config, status, engine.stats() if engine is not None else None))
        return found

    def begin_close(self) -> None:
        """What `close` does, without waiting for engines to end."""
        self._cache.close()

    def close(self) -> None:
        """Fail who waits, unload everything; returns when the engines have ended, or after CLOSE_TIMEOUT_S.

        Leases that are out end with ShuttingDownError.
        """
        self.begin_close()
        if not self._cache.wait_until(lambda: not self._cache.stats().resident, CLOSE_TIMEOUT_S):
            left = ", ".join(entry.name for entry in self._cache.entries(lambda entry: entry.model.resident))
            logger.error("closing without %s, which did not end within %g seconds", left, CLOSE_TIMEOUT_S)
        self._cache.drop_host_copies()
        self._factories.close()

    def _unload(self, entries: Sequence[ModelEntry]) -> bool:
        self._cache.unload(entries)
        if not self._cache.wait_until(lambda: not any(entry.model.unload_asked for entry in entries), UNLOAD_TIMEOUT_S):
            left = ", ".join(f"{entry.name} ({entry.model.leases} requests)" for entry in entries if entry.model.unload_asked)
            text = f"Still in use after {UNLOAD_TIMEOUT_S:g} seconds: {left}. It leaves when they end"
            raise ModelUnavailableError(text, retryable=True)
        return bool(entries)

    def _named(self, name: str) -> list[ModelEntry]:
        return self._cache.entries(lambda entry: entry.is_called(name))


def _is_ready(entry: ModelEntry) -> bool:
    return entry.model.phase == "ready"
