"""What the manager hands out and tells: leases, statistics, the status of a model; decides nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mm_gateway.chat_templates.found_formats import ChatFormats
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.core import Progress, ProgressCallback
from mm_gateway.errors import GatewayError
from mm_gateway.runtime.residency.model import Model

if TYPE_CHECKING:
    from mm_gateway.runtime.checkpoints.loaded_model import LoadedModel
    from mm_gateway.runtime.inference_engine import InferenceEngine

logger = logging.getLogger(__name__)

State = Literal["cold", "loading", "ready", "busy", "evicting"]


class Lease:
    """The right to use a model; it stays in memory until `release`. A context manager."""

    __slots__ = ("_on_release", "engine", "loaded")

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


@asynccontextmanager
async def leased(future: Future[Lease]) -> AsyncGenerator[Lease]:
    """Wait on an event loop for a lease, hold it within the block, and give it back; also one that comes as the wait is cancelled."""
    try:
        lease = await asyncio.wrap_future(future)
    except BaseException:
        abandon(future)
        raise
    with lease:
        yield lease


def abandon(future: Future[Lease]) -> None:
    """Nobody waits for the lease any more; it may have come just now."""
    if not future.cancel() and future.exception() is None:
        future.result().release()


@dataclass(eq=False)
class Waiter:
    """Somebody who asked for a model.

    Attributes:
        keep_alive: idle seconds for which the model stays after this lease.
        fell_back: already sent from the GPU to the CPU.
    """

    config: ModelConfig
    future: Future[Lease]
    on_progress: ProgressCallback | None
    keep_alive: float
    fell_back: bool = False

    def tell(self, progress: Progress) -> None:
        """Never raises: one listener that fails must not end a load that others wait for."""
        if self.on_progress is not None:
            try:
                self.on_progress(progress)
            except Exception as error:  # noqa: BLE001 - others wait for the load that this listener hears of
                logger.warning("%s: a listener to its progress failed: %r", self.config.model_name, error)

    def grant(self, lease: Lease) -> bool:
        """False: nobody waits any more."""
        try:
            self.future.set_result(lease)
        except InvalidStateError:  # cancelled
            return False
        return True

    def refuse(self, error: GatewayError) -> None:
        with suppress(InvalidStateError):  # cancelled
            self.future.set_exception(error)


@dataclass(frozen=True)
class ModelStatus:
    """A model as it is now.

    Attributes:
        progress: of its load, while it loads. leases: requests that use it. waiting: requests that wait for it.
        footprint_bytes: what it takes, or is estimated to take; None: not known yet.
        context_length: tokens that it can hold, formats: of its thoughts and calls; as of its last load; None: not loaded yet.
        idle_s: seconds since its last use; None: never used.
        failure: why its last load or its engine failed, failed_s seconds ago; None: neither did, or it was loaded since.
    """

    state: State
    progress: Progress | None = None
    device: str | None = None
    footprint_bytes: int | None = None
    leases: int = 0
    waiting: int = 0
    pinned: bool = False
    context_length: int | None = None
    formats: ChatFormats | None = None
    idle_s: float | None = None
    in_host_memory: bool = False
    failure: str | None = None
    failed_s: float | None = None


@dataclass
class Counts:
    """Since the start."""

    loads: int = 0
    loads_from_host: int = 0
    evictions: int = 0
    hits: int = 0


@dataclass(frozen=True)
class ManagerStats:
    """loads, loads_from_host, evictions, hits: since the start. resident: models in memory. leases: in use now.

    memory: by device, bytes that models take, those that load or leave included.
    budgets: by device, bytes that they may take; None: no bound.
    """

    loads: int
    loads_from_host: int
    evictions: int
    hits: int
    resident: int
    leases: int
    memory: dict[str, int]
    budgets: dict[str, int | None]


def status_of(
    model: Model[Waiter],
    progress: Progress | None,
    context_length: int | None,
    formats: ChatFormats | None,
    failure: tuple[str, float] | None,
    now: float,
) -> ModelStatus:
    """What a model's place in the state machine means to those outside. failure: why it failed, and when."""
    states: dict[str, State] = {"cold": "cold", "ready": "busy" if model.leases else "ready", "evicting": "evicting"}
    return ModelStatus(
        state=states.get(model.phase, "loading"),
        progress=progress,
        device=model.device,
        footprint_bytes=model.need_bytes,
        leases=model.leases,
        waiting=len(model.waiters),
        pinned=model.pinned,
        context_length=context_length,
        formats=formats,
        idle_s=now - model.last_used if model.load_s is not None else None,
        in_host_memory=model.in_host,
        failure=failure[0] if failure is not None else None,
        failed_s=now - failure[1] if failure is not None else None,
    )


def queued_progress(config: ModelConfig) -> Progress:
    """What those are told who wait for a model's room."""
    return Progress("queued", f"{config.model_name}: waiting until other models make room")
