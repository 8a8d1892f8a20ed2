"""What the manager keeps per model and hands out: leases, those who wait, the record of a model in memory; decides nothing."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from mm_gateway.core import Progress
from mm_gateway.settings import ModelConfig

if TYPE_CHECKING:
    from mm_gateway.runtime.inference_engine import InferenceEngine
    from mm_gateway.runtime.loaded_model import LoadedModel

ProgressCallback = Callable[[Progress], object]


class Lease:
    """The right to use a model; it stays in memory until `release`. A context manager."""

    def __init__(self, loaded: LoadedModel, engine: InferenceEngine, on_release: Callable[[], None]) -> None:
        self.loaded = loaded
        self.engine = engine
        self._on_release: Callable[[], None] | None = on_release

    def release(self) -> None:
        """Give the model back; idempotent."""
        on_release, self._on_release = self._on_release, None
        if on_release is not None:
            on_release()

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


@dataclass(eq=False)
class Waiter:
    future: Future[Lease]
    on_progress: ProgressCallback | None
    keep_alive: float | None


@dataclass(eq=False)
class Resident:
    """One model that is, or is to be, in memory."""

    config: ModelConfig
    state: Literal["waiting", "loading", "ready", "evicting"] = "waiting"
    waiting_since: float = 0.0
    waiters: list[Waiter] = field(default_factory=list)
    loaded: LoadedModel | None = None
    engine: InferenceEngine | None = None
    leases: int = 0
    last_used: float = 0.0
    expires_at: float | None = None
    progress: Progress | None = None


@dataclass(frozen=True)
class ManagerStats:
    """loads, evictions, hits: since the start. resident: models in memory. leases: in use now."""

    loads: int
    evictions: int
    hits: int
    resident: int
    leases: int
