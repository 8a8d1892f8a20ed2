"""What the cache keeps of each model that was ever asked for."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from mm_gateway.chat_templates.found_formats import ChatFormats
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.core import Progress
from mm_gateway.runtime.residency.leases import Waiter
from mm_gateway.runtime.residency.model import Model
from mm_gateway.runtime.residency.model_instance import ModelInstance

if TYPE_CHECKING:
    from mm_gateway.runtime.checkpoints.loaded_model import LoadedModel

logger = logging.getLogger(__name__)

Spawn = Callable[[str, Callable[[], None]], None]
"""Starts work on a thread of that name; raises RuntimeError where no thread can be started."""


def spawn_thread(name: str, work: Callable[[], None]) -> None:
    threading.Thread(target=work, name=name, daemon=True).start()


@dataclass(eq=False)
class ModelEntry:
    """A model that was asked for. Guarded by the cache's lock.

    Attributes:
        config: it is loaded by. configs: all that mean it; they differ in names, pins and TTLs.
        instance: what prepares, loads, serves or leaves now; None: nobody works on the model.
        host_copy: its weights in host memory, while nobody works on them. kv_cache_bytes: as prepared.
        forgotten: nothing that is served means it any more; it goes once nobody uses it.
        progress: of a load that goes on. context_length: tokens that its last engine could hold. formats: as of its last load.
        failure: why its last load or engine failed, and when by the cache's clock; None: neither did, or it was loaded since.
    """

    config: ModelConfig
    model: Model[Waiter]
    configs: set[ModelConfig] = field(default_factory=set[ModelConfig])
    instance: ModelInstance | None = None
    host_copy: LoadedModel | None = None
    kv_cache_bytes: int | None = None
    forgotten: bool = False
    progress: Progress | None = None
    context_length: int | None = None
    formats: ChatFormats | None = None
    failure: tuple[str, float] | None = None

    @property
    def name(self) -> str:
        return self.config.model_name

    def adopt(self, configs: Sequence[ModelConfig]) -> None:
        """Be meant by these alone; none: by nothing that is served. A pin that was set by hand stays while a configuration means it."""
        pinned = any(config.pin for config in configs)
        if not configs or pinned != any(config.pin for config in self.configs):
            self.model.pinned = pinned
        if configs:
            self.configs, self.forgotten = set(configs), False
            self.model.ttl_s = configs[0].ttl_s

    def is_called(self, name: str) -> bool:
        """Whether a name or an alias of any of its configurations is this one."""
        return any(name in (config.model_name, *config.aliases) for config in self.configs)


def entry_key(config: ModelConfig) -> ModelConfig:
    """What makes two loads the same: every key but those that only say how long it stays and what it is called."""
    return msgspec.structs.replace(config, aliases=(), pin=False, preload=False, ttl_s=None)


def on_cpu(config: ModelConfig) -> ModelConfig:
    """What is loaded where a GPU has no room for it."""
    return msgspec.structs.replace(config, device="cpu", flash_attention=False)


def meant_by(configs: Iterable[ModelConfig], *, fallback_to_cpu: bool) -> dict[Hashable, list[ModelConfig]]:
    """What loads configurations stand for, by `entry_key`, with those of each. fallback_to_cpu: of the CPU too."""
    meant: dict[Hashable, list[ModelConfig]] = {}
    for config in configs:
        forms = {config, on_cpu(config)} if fallback_to_cpu else {config}
        for form in forms:
            meant.setdefault(entry_key(form), []).append(form)
    return meant


class ProgressLog:
    """The progress of one load in the log: a download reports many times a second, a log wants its tenths."""

    def __init__(self) -> None:
        self._shown: set[tuple[str, int]] = set()

    def show(self, progress: Progress) -> None:
        step = (progress.stage, int(progress.fraction * 10)) if progress.fraction is not None else (progress.detail, 0)
        if step not in self._shown:
            self._shown.add(step)
            logger.info("%s", progress.detail or progress.stage)
