"""Resident models as a cache: loaded on first use, leased while in use, evicted least recently used; owns which models are in memory.

One lock guards the bookkeeping and is never held across a load, an eviction or a callback. Loads and evictions run on
threads of their own, so no model waits on another's. torch is imported when the first model loads.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

from mm_gateway.core import Progress
from mm_gateway.errors import GatewayError, ModelLoadError, ModelNotFoundError, ShuttingDownError
from mm_gateway.runtime.residents import Lease, ManagerStats, ProgressCallback, Resident, Waiter
from mm_gateway.settings import EngineSettings, MemorySettings, ModelConfig

if TYPE_CHECKING:
    from mm_gateway.runtime.inference_engine import InferenceEngine
    from mm_gateway.runtime.loaded_model import LoadedModel

logger = logging.getLogger(__name__)

State = Literal["cold", "loading", "ready", "busy", "evicting"]

SWAP_PATIENCE_S = 10.0
"""How long requests of a model in memory may overtake a model that waits for its room."""


class Loader(Protocol):
    """What ModelLoader does."""

    def load(
        self, config: ModelConfig, *, progress: ProgressCallback | None = None, should_stop: Callable[[], bool] | None = None
    ) -> LoadedModel: ...


class EngineFactory(Protocol):
    """What InferenceEngine.for_loaded_model does."""

    def __call__(self, loaded: LoadedModel, settings: EngineSettings) -> InferenceEngine: ...


class RealModelManager:
    """Loads, leases and evicts models. Thread-safe; synchronous callers block on the futures, the gateway awaits them.

    Args:
        max_cached_models: models in memory at a time, >= 1.
        memory_threshold: (0, 1], share of the device's memory beyond which idle models are unloaded before a load.
        ttl_s: idle seconds after which a model is unloaded where its entry sets none; None: never.
        engine_settings: of every model's engine.
        loader, engine_factory, clock: for tests; by default ModelLoader, InferenceEngine and time.monotonic.
    """

    def __init__(
        self,
        max_cached_models: int = 3,
        memory_threshold: float = 0.8,
        *,
        ttl_s: float | None = None,
        engine_settings: EngineSettings | None = None,
        loader: Loader | None = None,
        engine_factory: EngineFactory | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if max_cached_models < 1:
            raise ValueError(f"max_cached_models must be at least 1, got {max_cached_models}")
        self._max_cached_models = max_cached_models
        self._memory_threshold = memory_threshold
        self._ttl_s = ttl_s
        self._engine_settings = engine_settings or EngineSettings()
        self._loader = loader
        self._engine_factory = engine_factory
        self._clock = clock
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)  # an entry left: those who wait for that look again
        self._entries: dict[ModelConfig, Resident] = {}
        self._timer: threading.Timer | None = None
        self._closing = False
        self._loads = self._evictions = self._hits = 0

    @classmethod
    def from_settings(cls, memory: MemorySettings, engine: EngineSettings) -> RealModelManager:
        """The manager that `gateway.yaml` describes."""
        return cls(memory.max_cached_models, memory.memory_threshold, ttl_s=memory.ttl_s, engine_settings=engine)

    def acquire(
        self, config: ModelConfig, *, keep_alive: float | None = None, on_progress: ProgressCallback | None = None
    ) -> Future[Lease]:
        """Ask for a model; the future gives a lease once it is in memory. Everybody who asks for one model joins one load.

        Args:
            keep_alive: idle seconds to keep it after this lease, 0: unload; None: as configured.
            on_progress: told how the load goes, from the loading thread.

        Returns:
            A future; cancelling it withdraws. It fails with ModelLoadError, OutOfMemoryError or ShuttingDownError.
        """
        waiter = Waiter(Future(), on_progress, keep_alive)
        with self._lock:
            if self._closing:
                raise ShuttingDownError("The gateway is shutting down")
            entry = self._entries.get(_key(config))
            if entry is not None and entry.state == "ready" and not self._must_yield():
                self._hits += 1
                granted = self._grant(entry, waiter)
            else:
                if entry is None:
                    entry = self._entries[_key(config)] = Resident(config, waiting_since=self._clock())
                entry.waiters.append(waiter)
                granted = None
        if granted is not None:
            self._resolve([(waiter, granted)])
        else:
            self._pump()
        return waiter.future

    def load_model(self, config: ModelConfig) -> LoadedModel:
        """Load a model, or find it loaded; blocks. It stays until its room is needed.

        Raises:
            ModelLoadError, OutOfMemoryError: what failed and what to try.
        """
        with self.acquire(config).result() as lease:
            return lease.loaded

    def get_model(self, name: str) -> LoadedModel | None:
        """The loaded model of that name, or None where it is not in memory. Does not load."""
        with self._lock:
            return next((entry.loaded for entry in self._named(name) if entry.loaded is not None), None)

    def list_models(self) -> list[str]:
        """Names of the models in memory."""
        with self._lock:
            return [entry.config.model_name for entry in self._entries.values() if entry.state == "ready"]

    def state(self, config: ModelConfig) -> tuple[State, Progress | None]:
        """How a model is now, and how far its load is."""
        with self._lock:
            entry = self._entries.get(_key(config))
            if entry is None:
                return "cold", None
            if entry.state == "ready":
                return ("busy" if entry.leases else "ready"), None
            return ("evicting" if entry.state == "evicting" else "loading"), entry.progress

    def unload_model(self, name: str) -> None:
        """Unload every form of the model of that name; waits until nobody uses it.

        Raises:
            ModelNotFoundError: none of that name is in memory.
        """
        with self._changed:
            entries = [entry for entry in self._named(name) if entry.state == "ready"]
            if not entries:
                raise ModelNotFoundError(name)
            self._changed.wait_for(lambda: all(entry.leases == 0 or entry.state == "evicting" for entry in entries))
            for entry in entries:
                self._start_eviction(entry)
            self._changed.wait_for(lambda: all(self._entries.get(_key(entry.config)) is not entry for entry in entries))

    def clear_cache(self) -> None:
        """Unload every model that nobody uses; returns when they are gone."""
        with self._changed:
            idle = [entry for entry in self._entries.values() if entry.state == "ready" and entry.leases == 0]
            for entry in idle:
                self._start_eviction(entry)
            self._changed.wait_for(lambda: not any(self._entries.get(_key(entry.config)) is entry for entry in idle))

    def switch_device(self, name: str, device: str) -> LoadedModel:
        """Move a model to another device: waits until nobody uses it, unloads it, and loads it there."""
        with self._lock:
            config = next((entry.config for entry in self._named(name)), None)
        if config is None:
            raise ModelNotFoundError(name)
        self.unload_model(name)
        return self.load_model(msgspec.structs.replace(config, device=device))

    def stats(self) -> ManagerStats:
        with self._lock:
            entries = list(self._entries.values())
            return ManagerStats(
                loads=self._loads,
                evictions=self._evictions,
                hits=self._hits,
                resident=sum(entry.loaded is not None for entry in entries),
                leases=sum(entry.leases for entry in entries),
            )

    def close(self) -> None:
        """Fail who waits, unload everything; returns when the engines have ended. Leases that are out end with ShuttingDownError."""
        with self._changed:
            self._closing = True
            waiters = [waiter for entry in self._entries.values() for waiter in entry.waiters]
            for entry in list(self._entries.values()):
                entry.waiters = []
                if entry.state == "waiting":
                    del self._entries[_key(entry.config)]
                elif entry.state == "ready":
                    self._start_eviction(entry)
            if self._timer is not None:
                self._timer.cancel()
        _fail(waiters, ShuttingDownError("The gateway is shutting down"))
        with self._changed:
            self._changed.wait_for(lambda: not self._entries)

    def _named(self, name: str) -> list[Resident]:
        return [entry for entry in self._entries.values() if entry.config.model_name == name or name in entry.config.aliases]

    def _must_yield(self) -> bool:
        """Some model has waited long enough for its room: models in memory take no new leases until one of them can go."""
        now = self._clock()
        return any(entry.state == "waiting" and now - entry.waiting_since > SWAP_PATIENCE_S for entry in self._entries.values())

    def _pump(self) -> None:
        """Start whatever can start: grants, loads in order of arrival, evictions that make room for them."""
        granted: list[tuple[Waiter, Lease]] = []
        with self._lock:
            yielding = self._must_yield()
            waiting = sorted((e for e in self._entries.values() if e.state == "waiting"), key=lambda entry: entry.waiting_since)
            for entry in waiting:
                entry.waiters = [waiter for waiter in entry.waiters if not waiter.future.cancelled()]
                if not entry.waiters:
                    del self._entries[_key(entry.config)]
                    continue
                taken = sum(other.state in ("loading", "ready", "evicting") for other in self._entries.values())
                if taken < self._max_cached_models:
                    self._start_load(entry)
                    continue
                coming = sum(other.state == "evicting" for other in self._entries.values())
                ahead = waiting.index(entry)
                victim = self._victim(yielding) if coming <= ahead else None
                if victim is not None:
                    self._start_eviction(victim)
            # After the evictions, so that who was told to yield is not served before whom it yields to.
            for entry in self._entries.values():
                if entry.state == "ready" and not (yielding and entry.leases):
                    granted += self._grant_all(entry)
        self._resolve(granted)

    def _victim(self, yielding: bool) -> Resident | None:
        """1. neither leased nor pinned; 2. asked for only where it must yield, and last; 3. expired first; 4. least recently used."""
        now = self._clock()
        idle = [e for e in self._entries.values() if e.state == "ready" and e.leases == 0 and not e.config.pin]
        able = [entry for entry in idle if yielding or not entry.waiters]
        return min(able, key=lambda e: (bool(e.waiters), e.expires_at is None or e.expires_at > now, e.last_used), default=None)

    def _grant_all(self, entry: Resident) -> list[tuple[Waiter, Lease]]:
        waiters, entry.waiters = entry.waiters, []
        return [(waiter, self._grant(entry, waiter)) for waiter in waiters]

    def _grant(self, entry: Resident, waiter: Waiter) -> Lease:
        assert entry.loaded is not None and entry.engine is not None
        entry.leases += 1
        entry.expires_at = None
        return Lease(entry.loaded, entry.engine, lambda: self._release(entry, waiter.keep_alive))

    def _resolve(self, granted: list[tuple[Waiter, Lease]]) -> None:
        for waiter, lease in granted:
            try:
                waiter.future.set_result(lease)
            except InvalidStateError:  # cancelled in the meantime
                lease.release()

    def _release(self, entry: Resident, keep_alive: float | None) -> None:
        with self._changed:
            entry.leases -= 1
            entry.last_used = now = self._clock()
            ttl = keep_alive if keep_alive is not None else entry.config.ttl_s if entry.config.ttl_s is not None else self._ttl_s
            if entry.leases == 0 and entry.state == "ready" and ttl is not None and not entry.config.pin:
                entry.expires_at = now + ttl
            self._expire()
            self._changed.notify_all()
        self._pump()

    def _expire(self) -> None:
        """Evict what has expired; wake up again when the next one does. Holds the lock."""
        now = self._clock()
        for entry in list(self._entries.values()):
            if (
                entry.state == "ready"
                and entry.leases == 0
                and not entry.waiters
                and entry.expires_at is not None
                and entry.expires_at <= now
            ):
                self._start_eviction(entry)
        times = [entry.expires_at for entry in self._entries.values() if entry.state == "ready" and entry.expires_at is not None]
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if times and not self._closing:
            self._timer = threading.Timer(max(0.01, min(times) - now), self._on_timer)
            self._timer.daemon = True
            self._timer.start()

    def _on_timer(self) -> None:
        with self._lock:
            self._expire()

    def _start_load(self, entry: Resident) -> None:
        entry.state = "loading"
        threading.Thread(target=self._load, args=(entry,), name=f"load {entry.config.model_name}", daemon=True).start()

    def _start_eviction(self, entry: Resident) -> None:
        if entry.state == "ready":
            entry.state = "evicting"
            threading.Thread(target=self._evict, args=(entry,), name=f"evict {entry.config.model_name}", daemon=True).start()

    def _load(self, entry: Resident) -> None:
        shown: set[tuple[str, int]] = set()

        def report(progress: Progress) -> None:
            entry.progress = progress
            # A download reports many times a second; a log wants its tenths.
            step = (progress.stage, int(progress.fraction * 10)) if progress.fraction is not None else (progress.detail, 0)
            if step not in shown:
                shown.add(step)
                logger.info("%s", progress.detail or progress.stage)
            for waiter in list(entry.waiters):
                if waiter.on_progress is not None:
                    waiter.on_progress(progress)

        def unwanted() -> bool:
            with self._lock:
                return self._closing or all(waiter.future.cancelled() for waiter in entry.waiters)

        started = self._clock()
        try:
            loader, engine_factory = self._parts()
            loaded = loader.load(entry.config, progress=report, should_stop=unwanted)
            engine = engine_factory(loaded, self._engine_settings)
        except BaseException as error:
            logger.warning("loading %s failed: %s", entry.config.model_name, error)
            typed = error if isinstance(error, GatewayError) else ModelLoadError(f"Failed to load {entry.config.model_name}: {error}")
            with self._changed:
                waiters, entry.waiters = entry.waiters, []
                del self._entries[_key(entry.config)]
                self._changed.notify_all()
            # The traceback's frames would keep the half-loaded model alive for as long as somebody holds the error.
            _fail(waiters, typed.with_traceback(None))
        else:
            megabytes = (loaded.weight_bytes / 1e6, engine.kv_cache_bytes / 1e6)
            seconds = self._clock() - started
            logger.info("%s: ready after %.1f s, weights %.0f MB, KV cache up to %.0f MB", entry.config.model_name, seconds, *megabytes)
            with self._changed:
                entry.loaded, entry.engine, entry.state, entry.progress = loaded, engine, "ready", None
                entry.last_used = self._clock()
                self._loads += 1
                # At once: a model that came in for somebody serves them before it can have to yield again.
                granted = self._grant_all(entry)
                if self._closing:
                    self._start_eviction(entry)
                self._changed.notify_all()
            self._resolve(granted)
        self._pump()

    def _parts(self) -> tuple[Loader, EngineFactory]:
        with self._lock:
            if self._loader is None:
                from mm_gateway.runtime.model_loader import ModelLoader

                self._loader = ModelLoader()
            if self._engine_factory is None:
                from mm_gateway.runtime.inference_engine import InferenceEngine

                self._engine_factory = InferenceEngine.for_loaded_model
            return self._loader, self._engine_factory

    def _evict(self, entry: Resident) -> None:
        logger.info("unloading %s", entry.config.model_name)
        assert entry.engine is not None
        entry.engine.close()
        with self._changed:
            entry.loaded = entry.engine = None
            self._evictions += 1
            del self._entries[_key(entry.config)]
            if entry.waiters:  # asked for again while it went
                again = Resident(entry.config, waiting_since=self._clock(), waiters=entry.waiters)
                self._entries[_key(entry.config)] = again
            self._changed.notify_all()
        self._pump()


def _key(config: ModelConfig) -> ModelConfig:
    """What makes two loads the same: every key but those that only say how long it stays and what it is called."""
    return msgspec.structs.replace(config, aliases=(), pin=False, preload=False, ttl_s=None)


def _fail(waiters: list[Waiter], error: GatewayError) -> None:
    for waiter in waiters:
        try:
            waiter.future.set_exception(error)
        except InvalidStateError:  # cancelled
            continue
