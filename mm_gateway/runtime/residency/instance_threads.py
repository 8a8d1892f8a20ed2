"""Carries out what was decided about one stay of a model: prepares, loads and evicts on threads of their own, each guarded and watched.

However a thread ends, or cannot even start, what came of it is reported. Decides nothing, and holds no lock while it works.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

from mm_gateway.core import Progress, ProgressCallback
from mm_gateway.errors import EngineError, GatewayError, ModelLoadError
from mm_gateway.runtime.residency.model_entry import ModelEntry, ProgressLog, Spawn
from mm_gateway.runtime.residency.model_instance import ModelInstance, Preparation
from mm_gateway.runtime.watchdog import WATCHDOG, Watch

if TYPE_CHECKING:
    from mm_gateway.runtime.checkpoints.loaded_model import LoadedModel

logger = logging.getLogger(__name__)

EVICTION_TIMEOUT_S = 60.0
"""For an engine to end and its memory to come free; after it the model counts as gone."""


class Reports(Protocol):
    """Who hears what came of the work. Any thread; the report of an instance that is given up changes nothing."""

    def prepared(self, entry: ModelEntry, instance: ModelInstance, preparation: Preparation) -> None: ...

    def loaded(self, entry: ModelEntry, instance: ModelInstance, footprint_bytes: int, load_s: float, *, from_host: bool) -> bool:
        """False: nobody can use it, because it was given up or its engine has died already."""
        ...

    def failed(self, entry: ModelEntry, instance: ModelInstance, error: GatewayError, *, stopped: bool = False) -> None:
        """stopped: the load was given up because nobody wanted it; who came since waits for another one."""
        ...

    def evicted(self, entry: ModelEntry, instance: ModelInstance, kept: LoadedModel | None) -> None:
        """kept: its weights in host memory."""
        ...

    def engine_failed(self, entry: ModelEntry, instance: ModelInstance, error: BaseException) -> None: ...

    def wanted(self, entry: ModelEntry, instance: ModelInstance) -> bool:
        """Whether anybody still waits for what this instance loads."""
        ...

    def progressed(self, entry: ModelEntry, instance: ModelInstance, progress: Progress) -> bool:
        """False: the instance was given up."""
        ...


class InstanceThreads:
    """
    Args:
        spawn: starts threads. load_timeout_s: without any progress, after which a load or a download has failed.
        clock: of the times that are reported.
    """

    def __init__(self, reports: Reports, spawn: Spawn, *, load_timeout_s: float, clock: Callable[[], float]) -> None:
        self._reports = reports
        self._spawn = spawn
        self._load_timeout_s = load_timeout_s
        self._clock = clock

    def prepare(self, entry: ModelEntry, instance: ModelInstance) -> None:
        """Fetch the files, and find out what the model needs."""
        self._start("prepare", entry, instance, self._prepare)

    def load(self, entry: ModelEntry, instance: ModelInstance) -> None:
        """Bring weights and engine into memory."""
        self._start("load", entry, instance, self._load)

    def evict(self, entry: ModelEntry, instance: ModelInstance, *, to_host: bool) -> None:
        """Take them out of it. to_host: keep the weights in host memory, where that works."""
        work = partial(self._evict, entry, instance, to_host)
        try:
            self._spawn(f"evict {entry.name}", work)
        except Exception as error:  # noqa: BLE001 - an eviction goes on, whatever the thread's start fails of
            # Nothing else gives the memory back, and others wait for it: better that this thread waits.
            logger.error("%s is unloaded without a thread of its own: %s", entry.name, error)
            work()

    def _start(
        self, verb: str, entry: ModelEntry, instance: ModelInstance, work: Callable[[ModelEntry, ModelInstance, Watch], None]
    ) -> None:
        def watched() -> None:
            text = (
                f"{entry.name}: no progress for {self._load_timeout_s:g} seconds; see memory.load_timeout_s, or the log for where it hangs"
            )
            overdue = partial(self._reports.failed, entry, instance, ModelLoadError(text, retryable=True))
            with WATCHDOG.watch(f"{verb} {entry.name}", self._load_timeout_s, overdue) as watch:
                work(entry, instance, watch)

        try:
            self._spawn(f"{verb} {entry.name}", watched)
        except Exception as error:  # noqa: BLE001 - whoever waits for the model hears of it
            text = f"{entry.name} cannot be loaded now: {error}. Fewer models or requests at a time may help"
            self._reports.failed(entry, instance, ModelLoadError(text, retryable=True))

    def _prepare(self, entry: ModelEntry, instance: ModelInstance, watch: Watch) -> None:
        report = self._reporter(entry, instance, watch)
        try:
            preparation = instance.prepare(report)
        except GatewayError as error:
            self._reports.failed(entry, instance, error)
            return
        self._reports.prepared(entry, instance, preparation)

    def _load(self, entry: ModelEntry, instance: ModelInstance, watch: Watch) -> None:
        started, stopped = self._clock(), False

        def should_stop() -> bool:
            nonlocal stopped
            stopped = stopped or not self._reports.wanted(entry, instance)
            return stopped

        report = self._reporter(entry, instance, watch)
        try:
            footprint, from_host = instance.load(
                entry.kv_cache_bytes, report, should_stop, on_failure=partial(self._reports.engine_failed, entry, instance)
            )
        except GatewayError as error:
            self._reports.failed(entry, instance, error, stopped=stopped)
            return
        if not self._reports.loaded(entry, instance, footprint, self._clock() - started, from_host=from_host):
            instance.evict(to_host=False)
            self._reports.failed(entry, instance, EngineError(f"{entry.name}: its engine failed as it started. Try again"))

    def _evict(self, entry: ModelEntry, instance: ModelInstance, to_host: bool) -> None:
        kept: LoadedModel | None = None
        logger.info("unloading %s", entry.name)
        try:
            with WATCHDOG.watch(f"evict {entry.name}", EVICTION_TIMEOUT_S, partial(self._reports.evicted, entry, instance, None)):
                kept = instance.evict(to_host)
        finally:
            self._reports.evicted(entry, instance, kept)

    def _reporter(self, entry: ModelEntry, instance: ModelInstance, watch: Watch) -> ProgressCallback:
        log = ProgressLog()

        def report(progress: Progress) -> None:
            watch.restart()
            if self._reports.progressed(entry, instance, progress):
                log.show(progress)

        return report
