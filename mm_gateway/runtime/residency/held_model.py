"""One model's way into memory and out of it: files, weights, engine, host memory. Does what the manager decided; decides nothing."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from mm_gateway.configuration.settings import EngineSettings, ModelConfig
from mm_gateway.core import Progress, ProgressCallback
from mm_gateway.errors import GatewayError, ModelLoadError
from mm_gateway.runtime.checkpoints.device_memory import total_memory

if TYPE_CHECKING:
    from mm_gateway.runtime.checkpoints.loaded_model import LoadedModel
    from mm_gateway.runtime.checkpoints.memory_estimate import MemoryNeed
    from mm_gateway.runtime.inference_engine import InferenceEngine

logger = logging.getLogger(__name__)

BudgetOf = Callable[[str], int | None]


class Loader(Protocol):
    """What ModelLoader does."""

    def prepare(
        self, config: ModelConfig, settings: EngineSettings, budget_of: BudgetOf, *, progress: ProgressCallback | None = None
    ) -> tuple[str, MemoryNeed]:
        """Fetch the files; the device on which the model will be, and what it needs there."""
        ...

    def load(
        self, config: ModelConfig, *, progress: ProgressCallback | None = None, should_stop: Callable[[], bool] | None = None
    ) -> LoadedModel: ...


class EngineFactory(Protocol):
    """What InferenceEngine.for_loaded_model does."""

    def __call__(self, loaded: LoadedModel, settings: EngineSettings, kv_cache_bytes: int | None) -> InferenceEngine: ...


class DeviceBudgets:
    """Bytes that models may take on a device: a number, or a share of the device's memory."""

    def __init__(self, share: float, budget_bytes: int | None) -> None:
        self._share = share
        self._budget_bytes = budget_bytes
        self._totals: dict[str, int] = {}

    def __call__(self, device: str) -> int:
        if self._budget_bytes is not None:
            return self._budget_bytes
        if device not in self._totals:
            self._totals[device] = total_memory(device)
        return int(self._totals[device] * self._share)


class Parts:
    """Loader and engine factory; those of this package are imported, and torch with them, when the first model loads."""

    def __init__(self, loader: Loader | None, engine_factory: EngineFactory | None, settings: EngineSettings) -> None:
        self.settings = settings
        self._loader = loader
        self._engine_factory = engine_factory
        self._lock = threading.Lock()

    def loader(self) -> Loader:
        with self._lock:
            if self._loader is None:
                from mm_gateway.runtime.model_loader import ModelLoader

                self._loader = ModelLoader()
            return self._loader

    def engine_factory(self) -> EngineFactory:
        with self._lock:
            if self._engine_factory is None:
                from mm_gateway.runtime.inference_engine import InferenceEngine

                self._engine_factory = InferenceEngine.for_loaded_model
            return self._engine_factory


class HeldModel:
    """A model's parts. Methods block, and are called by one thread at a time.

    Attributes:
        loaded: in memory; in host memory where there is no engine. progress: of a load that goes on.
    """

    def __init__(self, config: ModelConfig, parts: Parts) -> None:
        self.config = config
        self.progress: Progress | None = None
        self.loaded: LoadedModel | None = None
        self.engine: InferenceEngine | None = None
        self._parts = parts
        self._kv_cache_bytes: int | None = None

    def prepare(self, budget_of: BudgetOf, report: ProgressCallback) -> tuple[str, int]:
        """Fetch the files; device, and bytes needed there.

        Raises:
            GatewayError: what failed and what to try.
        """
        try:
            device, need = self._parts.loader().prepare(self.config, self._parts.settings, budget_of, progress=report)
        except BaseException as error:
            raise self._typed(error) from None
        self._kv_cache_bytes = need.kv_cache_bytes
        return device, need.total

    def load(self, report: ProgressCallback, should_stop: Callable[[], bool]) -> tuple[int, bool]:
        """Bring weights and engine into memory; the bytes that they take, and whether they came from host memory.

        Raises:
            GatewayError: what failed and what to try. Nothing of the model is left then.
        """
        from_host = self.loaded is not None
        try:
            if self.loaded is not None:
                from mm_gateway.runtime.checkpoints.host_tier import to_device

                to_device(self.loaded.model, self.loaded.device)
            else:
                self.loaded = self._parts.loader().load(self.config, progress=report, should_stop=should_stop)
            self.engine = self._parts.engine_factory()(self.loaded, self._parts.settings, self._kv_cache_bytes)
        except BaseException as error:
            self.loaded = self.engine = None
            typed = self._typed(error)
            del error
            _reclaim()
            raise typed from None
        sizes = (self.loaded.weight_bytes, self.engine.kv_cache_bytes)
        logger.info("%s: ready, weights %.0f MB, KV cache up to %.0f MB", self.config.model_name, sizes[0] / 1e6, sizes[1] / 1e6)
        return sum(sizes), from_host

    def evict(self, to_host: bool) -> bool:
        """End the engine and free the memory; whether the weights are kept in host memory, where that was asked for and works."""
        logger.info("unloading %s", self.config.model_name)
        if self.engine is not None:
            self.engine.close()
            self.engine = None
        kept = to_host and self._move_to_host()
        if not kept:
            self.loaded = None
        _reclaim()
        return kept

    def drop(self) -> None:
        """Forget weights kept in host memory."""
        self.loaded = None

    def reporter(self, listeners: Callable[[], list[ProgressCallback | None]]) -> ProgressCallback:
        """Tells the status, the log, and whoever listens at that time."""
        shown: set[tuple[str, int]] = set()

        def report(progress: Progress) -> None:
            self.progress = progress
            # A download reports many times a second; a log wants its tenths.
            step = (progress.stage, int(progress.fraction * 10)) if progress.fraction is not None else (progress.detail, 0)
            if step not in shown:
                shown.add(step)
                logger.info("%s", progress.detail or progress.stage)
            for listener in listeners():
                if listener is not None:
                    listener(progress)

        return report

    def _move_to_host(self) -> bool:
        from mm_gateway.runtime.checkpoints.host_tier import can_move, to_host

        assert self.loaded is not None
        if not can_move(self.loaded):
            return False
        try:
            to_host(self.loaded.model)
        except (RuntimeError, MemoryError) as error:
            logger.warning("%s: its weights cannot be kept in host memory: %s", self.config.model_name, error)
            return False
        return True

    def _typed(self, error: BaseException) -> GatewayError:
        """Without its traceback, whose frames would keep the half-loaded model for as long as somebody holds the error."""
        logger.warning("loading %s failed: %s", self.config.model_name, error)
        typed = error if isinstance(error, GatewayError) else ModelLoadError(f"Failed to load {self.config.model_name}: {error}")
        typed.__context__ = typed.__cause__ = None
        return typed.with_traceback(None)


def _reclaim() -> None:
    from mm_gateway.runtime.checkpoints.host_tier import reclaim

    reclaim()
