"""Which models came, left and failed, and why: the newest of it, for the operator."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Literal

import msgspec

from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.errors import GatewayError
from mm_gateway.runtime.residency.leases import Waiter
from mm_gateway.runtime.residency.model import Evict, EvictionReason
from mm_gateway.runtime.residency.model_entry import ModelEntry

logger = logging.getLogger(__name__)

MAX_EVENTS = 200


class ModelEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to a model."""

    time: float = msgspec.field(default_factory=time.time)
    """Unix seconds."""
    kind: Literal["loaded", "evicted", "failed"]
    """failed: it could not be fetched or loaded."""
    model: str
    """Its `model_name`."""
    device: str | None = None
    bytes: int | None = None
    """Of memory that it takes from now on, or leaves."""
    seconds: float | None = None
    """That the load took."""
    from_host: bool = False
    """Loaded from host memory, not from the disk."""
    reason: EvictionReason | None = None
    """Of an eviction."""
    room_for: str | None = None
    """The model that needs its room, where that is the reason."""
    error: str | None = None


class History:
    """The newest MAX_EVENTS events, the newest first. Written under the cache's lock, read without.

    Attributes:
        listeners: told of each event, with the configuration that the model was loaded by, under the lock: they must not block.
    """

    def __init__(self) -> None:
        self.events: tuple[ModelEvent, ...] = ()
        self.listeners: list[Callable[[ModelConfig, ModelEvent], object]] = []

    def loaded(self, entry: ModelEntry, footprint_bytes: int, load_s: float, *, from_host: bool) -> None:
        self._add(entry, kind="loaded", bytes=footprint_bytes, seconds=load_s, from_host=from_host)

    def evicted(self, entry: ModelEntry, effect: Evict[Waiter], room_for: ModelEntry | None) -> None:
        """It leaves from now on."""
        name = None if room_for is None else room_for.name
        self._add(entry, kind="evicted", bytes=entry.model.need_bytes, reason=effect.reason, room_for=name)

    def failed(self, entry: ModelEntry, error: GatewayError) -> None:
        self._add(entry, kind="failed", error=str(error))

    def _add(self, entry: ModelEntry, **told: object) -> None:
        event = msgspec.convert({"model": entry.name, "device": entry.model.device, "time": time.time(), **told}, ModelEvent)
        self.events = (event, *self.events[: MAX_EVENTS - 1])
        for listener in self.listeners:
            try:
                listener(entry.config, event)
            except Exception:
                logger.exception("a listener to what models do failed")
