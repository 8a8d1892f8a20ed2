"""Resident models as a cache: loaded on first use, leased while in use, evicted when their room is needed; owns which are in memory.

What happens is decided by `Residency`, under one lock that is never held across a load, an eviction or a callback.
Loads and evictions run on threads of their own, so no model waits on another's. torch is imported when the first model loads.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from mm_gateway.configuration.settings import EngineSettings, MemorySettings, ModelConfig
from mm_gateway.core import Progress, ProgressCallback
from mm_gateway.errors import GatewayError, ModelNotFoundError, OutOfMemoryError, ShuttingDownError
from mm_gateway.runtime.residency.held_model import BudgetOf, DeviceBudgets, EngineFactory, HeldModel, Loader, Parts
from mm_gateway.runtime.residency.leases import Lease, ManagerStats, ModelStatus, Waiter, queued_progress, status_of
from mm_gateway.runtime.residency.state_machine import DropFromHost, Effect, Evict, Grant, Load, Model, Prepare, Refuse, Residency

if TYPE_CHECKING:
    from mm_gateway.runtime.checkpoints.loaded_model import LoadedModel

logger = logging.getLogger(__name__)


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
        loader, engine_factory, budget_of, clock: for tests; by default ModelLoader, InferenceEngine, the devices' memory, time.monotonic.
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
        loader: Loader | None = None,
        engine_factory: EngineFactory | None = None,
        budget_of: BudgetOf | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if max_cached_models < 1:
            raise ValueError(f"max_cached_models must be at least 1, got {max_cached_models}")
        if not 0 < memory_threshold <= 1:
            raise ValueError(f"memory_threshold must be greater than 0 and at most 1, got {memory_threshold}")
        self._budget_of = budget_of or DeviceBudgets(memory_threshold, budget_bytes)
        self._fallback_to_cpu = fallback_to_cpu
        self._parts = Parts(loader, engine_factory, engine_settings or EngineSettings())
        self._clock = clock
        self._changed = threading.Condition()
        self._state: Residency[Waiter] = Residency(
            max_models=max_cached_models,
            budget_of=self._budget_of,
            ttl_s=ttl_s,
            host_budget_bytes=host_tier_bytes,
            patience_s=patience_s,
            max_waiters=self._parts.settings.max_waiting,
        )
        self._held: dict[Hashable, HeldModel] = {}
        self._timer: threading.Timer | None = None
        self._timer_at: float | None = None
        self._closing = False
        self._loads = self._loads_from_host = self._evictions = self._hits = 0

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
            download goes on). It fails with ModelLoadError, OutOfMemoryError, ModelUnavailableError or ShuttingDownError.
        """
        waiter = Waiter(config, Future(), on_progress, keep_alive)
        self._request(waiter)
        waiter.future.add_done_callback(lambda future: self._withdraw(waiter) if future.cancelled() else None)
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
        with self._changed:
            return next((held.loaded for model, held in self._named(name) if model.phase == "ready"), None)

    def list_models(self) -> list[str]:
        """Names of the models in memory."""
        with self._changed:
            return [held.config.model_name for key, held in self._held.items() if self._state.models[key].phase == "ready"]

    def model_info(self, name: str) -> ModelStatus:
        """The status of the model of that name.

        Raises:
            ModelNotFoundError: it was never asked for.
        """
        with self._changed:
            config = next((held.config for _, held in self._named(name)), None)
        if config is None:
            raise ModelNotFoundError(name)
        return self.status(config)

    def status(self, config: ModelConfig) -> ModelStatus:
        """How a model is now."""
        with self._changed:
            model, held = self._state.models.get(_key(config)), self._held.get(_key(config))
            if model is None or held is None:
                return ModelStatus("cold")
            return status_of(model, held.progress, self._clock())

    def pin(self, config: ModelConfig, pinned: bool = True) -> None:
        """Keep a model once it is in memory, whatever needs its room; or no longer."""
        with self._deciding() as effects:
            model = self._model_of(config)
            model.pinned = pinned
            effects += self._state.advance(self._clock())

    def unload_model(self, name: str) -> bool:
        """Unload every form of the model of that name; waits until nobody uses it. New requests wait, and load it again.

        Returns:
            False: none of that name was in memory.
        """
        with self._changed:
            models = [model for model, _ in self._named(name) if model.phase == "ready"]
        if models:
            self._unload(models)
        return bool(models)

    def unload(self, config: ModelConfig) -> None:
        """Unload one model, where it is in memory; waits until nobody uses it."""
        with self._changed:
            model = self._state.models.get(_key(config))
        if model is not None and model.phase == "ready":
            self._unload([model])

    def clear_cache(self) -> None:
        """Unload every model that nobody uses, pinned ones too; returns when they are gone."""
        with self._changed:
            models = [model for model in self._state.models.values() if model.phase == "ready" and not model.leases]
        self._unload(models)

    def switch_device(self, name: str, device: str) -> LoadedModel:
        """Have a model on another device: waits until nobody uses it, unloads it, and loads it there; errors as for `load_model`.

        One that is not in memory is loaded as it was the last time; one that never was, by its name.
        """
        with self._changed:
            named = sorted(self._named(name), key=lambda known: known[0].phase != "ready")
            config = named[0][1].config if named else ModelConfig(model_name=name)
        self.unload_model(name)
        return self.load_model(msgspec.structs.replace(config, device=device))

    def stats(self) -> ManagerStats:
        """A glance at the cache."""
        with self._changed:
            models = list(self._state.models.values())
            devices = sorted({model.device for model in models if model.device is not None and model.resident})
            return ManagerStats(
                loads=self._loads,
                loads_from_host=self._loads_from_host,
                evictions=self._evictions,
                hits=self._hits,
                resident=sum(model.resident for model in models),
                leases=sum(model.leases for model in models),
                memory={device: self._state.bytes_on(device) for device in devices},
            )

    def close(self) -> None:
        """Fail who waits, unload everything; returns when the engines have ended. Leases that are out end with ShuttingDownError."""
        with self._deciding() as effects:
            self._closing = True
            error = ShuttingDownError("The gateway is shutting down")
            for model in self._state.models.values():
                waiters, model.waiters = model.waiters, []
                effects += [Refuse(model, waiter, error) for waiter, _ in waiters]
                if model.phase == "ready":
                    model.phase = "evicting"
                    effects.append(Evict(model))
            self._set_timer()
        with self._changed:
            self._changed.wait_for(lambda: not any(model.resident for model in self._state.models.values()))
            for held in self._held.values():
                held.drop()

    # --- deciding, under the lock ---

    @contextmanager
    def _deciding(self) -> Iterator[list[Effect[Waiter]]]:
        """Collects effects under the lock, and carries them out after it."""
        effects: list[Effect[Waiter]] = []
        with self._changed:
            yield effects
            self._set_timer()
            self._changed.notify_all()
        for effect in effects:
            self._carry_out(effect)

    def _request(self, waiter: Waiter) -> None:
        with self._deciding() as effects:
            if self._closing:
                raise ShuttingDownError("The gateway is shutting down")
            model = self._model_of(waiter.config)
            self._hits += model.phase == "ready"
            effects += self._state.request(model, waiter, self._clock())
            queued = model.phase == "waiting"
        if queued and waiter.on_progress is not None:
            waiter.on_progress(queued_progress(waiter.config))

    def _withdraw(self, waiter: Waiter) -> None:
        with self._deciding() as effects:
            effects += self._state.withdraw(self._model_of(waiter.config), waiter, self._clock())

    def _release(self, model: Model[Waiter], keep_alive: float | None) -> None:
        with self._deciding() as effects:
            effects += self._state.released(model, keep_alive, self._clock())

    def _unload(self, models: Sequence[Model[Waiter]]) -> None:
        with self._deciding() as effects:
            for model in models:
                effects += self._state.unload(model, self._clock())
        with self._changed:
            self._changed.wait_for(lambda: not any(model.doomed for model in models))

    def _model_of(self, config: ModelConfig) -> Model[Waiter]:
        key = _key(config)
        model = self._state.models.get(key)
        if model is None:
            model = self._state.models[key] = Model(key, pinned=config.pin, ttl_s=config.ttl_s)
            self._held[key] = HeldModel(config, self._parts)
        return model

    def _named(self, name: str) -> list[tuple[Model[Waiter], HeldModel]]:
        found = [(self._state.models[key], held) for key, held in self._held.items()]
        return [(model, held) for model, held in found if name in (held.config.model_name, *held.config.aliases)]

    def _set_timer(self) -> None:
        """One that fires too early is harmless and sets itself again, so only an earlier time needs a new one."""
        at = None if self._closing else self._state.next_time(self._clock())
        if self._timer is not None and (self._closing or (at is not None and self._timer_at is not None and at < self._timer_at)):
            self._timer.cancel()
            self._timer = None
        if at is not None and self._timer is None:
            wait_s = min(max(0.01, at - self._clock()), 86_400.0)  # no thread can wait for good
            self._timer_at = self._clock() + wait_s
            self._timer = threading.Timer(wait_s, self._on_timer)
            self._timer.daemon = True
            self._timer.start()

    def _on_timer(self) -> None:
        with self._deciding() as effects:
            self._timer = None
            effects += self._state.advance(self._clock())

    # --- doing, without it ---

    def _carry_out(self, effect: Effect[Waiter]) -> None:
        match effect:
            case Prepare(model):
                self._start(self._prepare, model, "prepare")
            case Load(model):
                self._start(self._load, model, "load")
            case Evict(model, to_host):
                self._start(self._evict, model, "evict", to_host)
            case DropFromHost(model):
                self._held[model.key].drop()
            case Grant(model, waiter):
                self._grant(model, waiter)
            case Refuse(_, waiter, error, no_room):
                if no_room and self._fall_back(waiter, error):
                    return
                try:
                    waiter.future.set_exception(error)
                except InvalidStateError:  # cancelled
                    return

    def _start(self, work: Callable[..., None], model: Model[Waiter], verb: str, *arguments: object) -> None:
        name = f"{verb} {self._held[model.key].config.model_name}"
        threading.Thread(target=work, args=(model, *arguments), name=name, daemon=True).start()

    def _grant(self, model: Model[Waiter], waiter: Waiter) -> None:
        held = self._held[model.key]
        assert held.loaded is not None and held.engine is not None
        lease = Lease(held.loaded, held.engine, lambda: self._release(model, waiter.keep_alive))
        try:
            waiter.future.set_result(lease)
        except InvalidStateError:  # cancelled
            lease.release()

    def _fall_back(self, waiter: Waiter, error: GatewayError) -> bool:
        if not self._fallback_to_cpu or waiter.fell_back or waiter.config.device == "cpu" or waiter.future.done():
            return False
        text = f"{waiter.config.model_name}: loading on the CPU instead, because {error}"
        logger.warning("%s", text)
        if waiter.on_progress is not None:
            waiter.on_progress(Progress("loading", text))
        waiter.fell_back = True
        waiter.config = msgspec.structs.replace(waiter.config, device="cpu", flash_attention=False)
        self._request(waiter)
        return True

    def _prepare(self, model: Model[Waiter]) -> None:
        try:
            device, need_bytes = self._held[model.key].prepare(self._budget_of, self._reporter(model))
        except GatewayError as error:
            self._fail(model, error)
            return
        with self._deciding() as effects:
            effects += self._state.prepared(model, device, need_bytes, self._clock())
            queued = model.phase == "waiting"
        if queued:
            self._reporter(model)(queued_progress(self._held[model.key].config))

    def _load(self, model: Model[Waiter]) -> None:
        started = self._clock()
        try:
            footprint, from_host = self._held[model.key].load(self._reporter(model), lambda: not self._wanted(model))
        except GatewayError as error:
            self._fail(model, error)
            return
        with self._deciding() as effects:
            now = self._clock()
            self._held[model.key].progress = None
            self._loads += 1
            self._loads_from_host += from_host
            effects += self._state.loaded(model, footprint, now - started, now)
            if self._closing and model.phase == "ready":
                model.phase = "evicting"
                effects.append(Evict(model))

    def _evict(self, model: Model[Waiter], to_host: bool) -> None:
        kept = self._held[model.key].evict(to_host)
        with self._deciding() as effects:
            self._evictions += 1
            effects += self._state.evicted(model, self._clock(), in_host=kept)

    def _fail(self, model: Model[Waiter], error: GatewayError) -> None:
        with self._deciding() as effects:
            self._held[model.key].progress = None
            out_of_memory = isinstance(error, OutOfMemoryError)
            effects += self._state.failed(model, error, self._clock(), out_of_memory=out_of_memory)

    def _reporter(self, model: Model[Waiter]) -> ProgressCallback:
        return self._held[model.key].reporter(lambda: [waiter.on_progress for waiter, _ in list(model.waiters)])

    def _wanted(self, model: Model[Waiter]) -> bool:
        with self._changed:
            return bool(model.waiters) and not self._closing


def _key(config: ModelConfig) -> ModelConfig:
    """What makes two loads the same: every key but those that only say how long it stays and what it is called."""
    return msgspec.structs.replace(config, aliases=(), pin=False, preload=False, ttl_s=None)
