"""One stay of a model in memory: files, weights, engine. Does what the manager decided; decides nothing.

Each load has an instance of its own, so a thread that hangs in one can be given up without anything being shared with the next.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mm_gateway.chat_templates.found_formats import ChatFormats
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.core import ProgressCallback
from mm_gateway.errors import GatewayError, ModelLoadError
from mm_gateway.runtime.residency.factories import Factories, OnFailure

if TYPE_CHECKING:
    from mm_gateway.runtime.checkpoints.loaded_model import LoadedModel
    from mm_gateway.runtime.inference_engine import InferenceEngine

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Preparation:
    """What is known of a model before it is loaded.

    Attributes:
        device: where it will be. need_bytes: there, its KV cache of kv_cache_bytes included, and what penalties need.
        budget_bytes: that models may take there; None: without bound.
    """

    device: str
    need_bytes: int
    kv_cache_bytes: int
    budget_bytes: int | None


class ModelInstance:
    """Methods block, and are called by one thread at a time.

    Args:
        host_copy: weights in host memory to load from, instead of the disk; they belong to this instance from now on.

    Attributes:
        loaded, engine: in memory, between `load` and `evict`. failure: what ended its engine; None while it lives.
    """

    def __init__(self, config: ModelConfig, factories: Factories, host_copy: LoadedModel | None = None) -> None:
        self.config = config
        self.loaded: LoadedModel | None = None
        self.engine: InferenceEngine | None = None
        self.failure: BaseException | None = None
        self._factories = factories
        self._host_copy = host_copy

    @property
    def context_length(self) -> int | None:
        """Tokens that the engine can hold; None without one."""
        return self.engine.context_length if self.engine is not None else None

    @property
    def formats(self) -> ChatFormats | None:
        """Of thoughts and calls; None without a model."""
        return self.loaded.formats if self.loaded is not None else None

    def prepare(self, report: ProgressCallback) -> Preparation:
        """Fetch the files, and find out what the model needs.

        Raises:
            GatewayError: what failed and what to try.
        """
        try:
            factories = self._factories
            device, need = factories.loader().prepare(self.config, factories.settings, factories.budget_of, progress=report)
            return Preparation(device, need.total, need.kv_cache_bytes, factories.budget_of(device))
        except BaseException as error:  # noqa: BLE001 - raised again, with its type
            raise self._typed(error) from None

    def load(
        self, kv_cache_bytes: int | None, report: ProgressCallback, should_stop: Callable[[], bool], on_failure: OnFailure
    ) -> tuple[int, bool]:
        """Bring weights and engine into memory; the bytes that they take, and whether they came from host memory.

        Raises:
            GatewayError: what failed and what to try. Nothing of the model is left then.
        """
        from_host = self._host_copy is not None
        try:
            if self._host_copy is not None:
                from mm_gateway.runtime.checkpoints.host_tier import to_device

                self.loaded, self._host_copy = self._host_copy, None
                to_device(self.loaded.model, self.loaded.device)
            else:
                self.loaded = self._factories.loader().load(self.config, progress=report, should_stop=should_stop)
            self.engine = self._factories.engine_factory()(self.loaded, self._factories.settings, kv_cache_bytes, on_failure=on_failure)
            sizes = (self.loaded.weight_bytes, self.engine.kv_cache_bytes, self.engine.penalty_bytes)
        except BaseException as error:  # noqa: BLE001 - raised again, with its type, once the memory is free
            typed = self._typed(error)
            del error
            self.evict(to_host=False)
            raise typed from None
        weights, kv_cache, penalties = (size / 1e6 for size in sizes)
        text = "%s: ready, weights %.0f MB, KV cache up to %.0f MB, for penalties %.0f MB"
        logger.info(text, self.config.model_name, weights, kv_cache, penalties)
        return sum(sizes), from_host

    def evict(self, to_host: bool) -> LoadedModel | None:
        """End the engine and free the memory. Never raises: what fails is logged, and the rest is done.

        Returns:
            The weights in host memory, where that was asked for and works; they belong to the caller.
        """
        kept: LoadedModel | None = None
        try:
            if self.engine is not None:
                self.engine.close()
            if to_host:
                kept = self._to_host()
        except Exception:
            logger.exception("%s: its engine did not end well; its memory is given up", self.config.model_name)
        self.loaded = self.engine = self._host_copy = None
        try:
            from mm_gateway.runtime.checkpoints.host_tier import reclaim

            reclaim()
        except Exception:  # a device in a bad state refuses everything
            logger.exception("%s: its memory may not all be given back to the system", self.config.model_name)
        return kept

    def _to_host(self) -> LoadedModel | None:
        from mm_gateway.runtime.checkpoints.host_tier import can_move, to_host

        if self.loaded is None or not can_move(self.loaded):
            return None
        try:
            to_host(self.loaded.model)
        except Exception as error:  # noqa: BLE001 - the host tier is an optimization; without it the weights are read again
            logger.warning("%s: its weights cannot be kept in host memory: %s", self.config.model_name, error)
            return None
        return self.loaded

    def _typed(self, error: BaseException) -> GatewayError:
        """Without its traceback, whose frames would keep the half-loaded model for as long as somebody holds the error."""
        logger.warning("loading %s failed: %s", self.config.model_name, error)
        typed = error if isinstance(error, GatewayError) else ModelLoadError(f"Failed to load {self.config.model_name}: {error}")
        typed.__context__ = typed.__cause__ = None
        return typed.with_traceback(None)
