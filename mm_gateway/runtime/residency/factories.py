"""What makes a model of a configuration: the loader, the engine's constructor, the devices' budgets; in tests others take their place."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import ProgressCallback
from mm_gateway.runtime.checkpoints.device_memory import total_memory
from mm_gateway.runtime.kv_cache.prefix_tiers.block_store import PrefixStore, open_prefix_store

if TYPE_CHECKING:  # importing the manager must not import torch
    from mm_gateway.runtime.checkpoints.loaded_model import LoadedModel
    from mm_gateway.runtime.checkpoints.memory_estimate import MemoryNeed
    from mm_gateway.runtime.inference_engine import InferenceEngine

BudgetOf = Callable[[str], int | None]
"""Bytes that models may take on a device such as `cuda:0`; None: without bound."""
OnFailure = Callable[[BaseException], None]
"""Told that an engine has failed as a whole, perhaps from its own thread."""


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

    def __call__(
        self, loaded: LoadedModel, settings: EngineSettings, kv_cache_bytes: int | None, *, on_failure: OnFailure
    ) -> InferenceEngine: ...


class DeviceBudgets:
    """Bytes that models may take on a device: a number, or a share of the device's memory, without what is kept in host memory for them."""

    def __init__(self, share: float, budget_bytes: int | None, kept_on_host_bytes: int = 0) -> None:
        self._share = share
        self._budget_bytes = budget_bytes
        self._kept_on_host_bytes = kept_on_host_bytes

    def __call__(self, device: str) -> int:
        budget = self._budget_bytes if self._budget_bytes is not None else int(total_memory(device) * self._share)
        return max(0, budget - self._kept_on_host_bytes) if device == "cpu" else budget


class Factories:
    """Loader and engine factory; those of this package are imported, and torch with them, when the first model loads.

    Args:
        settings: of every model's engine. budget_of: asked by the thread that prepares a model, where it may fail.
    """

    def __init__(self, loader: Loader | None, engine_factory: EngineFactory | None, settings: EngineSettings, budget_of: BudgetOf) -> None:
        self.settings = settings
        self.budget_of = budget_of
        self._loader = loader
        self._engine_factory = engine_factory
        self._prefixes: PrefixStore | None = None
        self._importing = threading.Lock()  # several models may load first at the same time

    def loader(self) -> Loader:
        with self._importing:
            if self._loader is None:
                from mm_gateway.runtime.model_loader import ModelLoader

                leave_out_of_collections()
                self._loader = ModelLoader()
            return self._loader

    def engine_factory(self) -> EngineFactory:
        with self._importing:
            if self._engine_factory is None:
                from mm_gateway.runtime.inference_engine import InferenceEngine

                self._prefixes = open_prefix_store(self.settings)
                self._engine_factory = partial(InferenceEngine.for_loaded_model, prefixes=self._prefixes)
            return self._engine_factory

    def close(self) -> None:
        """Write what is kept of prefixes; when the engines have ended."""
        with self._importing:
            if self._prefixes is not None:
                self._prefixes.close()


def leave_out_of_collections() -> None:
    """What has been imported lives as long as the process: torch and transformers are 300,000 objects, and each full garbage collection
    would stop every thread for as long as it takes to look at them. Only in a process that does so, as the server at its start.
    """
    if gc.get_freeze_count():
        gc.freeze()
