"""A model as the state machine knows it, and what it decides about one: small closed messages that the manager carries out."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from mm_gateway.errors import GatewayError

Phase = Literal["cold", "preparing", "waiting", "loading", "ready", "evicting"]
EvictionReason = Literal["asked", "idle", "room", "failed", "closing"]
"""Why a model leaves: somebody unloads it, its TTL is over, another one needs its room, its engine died, everything closes."""
WaiterT = TypeVar("WaiterT")

ASSUMED_LOAD_S_PER_BYTE = 1e-9
"""What loading costs before it was ever measured: a gigabyte a second."""


@dataclass(eq=False)
class Model(Generic[WaiterT]):
    """One model, in memory or not.

    Attributes:
        device: once known, such as `cpu` or `cuda:0`. need_bytes: estimated before, measured after the first load.
        waiters: with the time at which each arrived. load_s: seconds that its last load took.
        waits_since: when its files were there, or a load of it had ended; before that nobody waited for room.
        expires_at: when it leaves if nobody uses it before; a pinned one does not, but goes by it once it is unpinned.
        draining: takes no new requests for now, because another model waits for its room.
        unload_asked: leaves as soon as nobody uses it.
        in_host: a copy of its weights lies in host memory, and nobody works on it.
        host_bytes: of the host tier's budget that it holds, also while the copy is on its way in or out.
        had_no_memory: its last load ran out of memory.
    """

    key: Hashable
    pinned: bool = False
    ttl_s: float | None = None
    phase: Phase = "cold"
    device: str | None = None
    need_bytes: int | None = None
    leases: int = 0
    waiters: list[tuple[WaiterT, float]] = field(default_factory=list[tuple[WaiterT, float]])
    waits_since: float = 0.0
    last_used: float = 0.0
    expires_at: float | None = None
    load_s: float | None = None
    draining: bool = False
    unload_asked: bool = False
    in_host: bool = False
    host_bytes: int = 0
    had_no_memory: bool = False

    @property
    def resident(self) -> bool:
        return self.phase in ("loading", "ready", "evicting")

    @property
    def room_awaited_since(self) -> float:
        """When the first who waits began to wait for room, or for this model to yield its own; infinite: nobody does."""
        if not self.waiters or self.phase in ("preparing", "loading"):  # these have bounds of their own
            return math.inf
        return max(self.waiters[0][1], self.waits_since)

    @property
    def likely_load_s(self) -> float:
        """What loading its files will take: as long as the last time."""
        return self.load_s if self.load_s is not None else (self.need_bytes or 0) * ASSUMED_LOAD_S_PER_BYTE

    def expired(self, now: float) -> bool:
        """Whether it leaves unless somebody uses it."""
        return self.expires_at is not None and self.expires_at <= now and not self.pinned


@dataclass(frozen=True, eq=False)
class Prepare(Generic[WaiterT]):
    """Fetch the model's files and report `prepared`."""

    model: Model[WaiterT]


@dataclass(frozen=True, eq=False)
class Load(Generic[WaiterT]):
    """Bring the model into memory and report `loaded` or `failed`. from_host: by the copy in host memory."""

    model: Model[WaiterT]
    from_host: bool = False


@dataclass(frozen=True, eq=False)
class Evict(Generic[WaiterT]):
    """Take the model out of memory and report `evicted`. room_for: who needs its room, where that is why.

    to_host: keep its weights in host memory.
    """

    model: Model[WaiterT]
    reason: EvictionReason
    room_for: Model[WaiterT] | None = None
    to_host: bool = False


@dataclass(frozen=True, eq=False)
class DropFromHost(Generic[WaiterT]):
    """Forget the copy of its weights in host memory."""

    model: Model[WaiterT]


@dataclass(frozen=True, eq=False)
class Grant(Generic[WaiterT]):
    """Give the waiter its lease."""

    model: Model[WaiterT]
    waiter: WaiterT


@dataclass(frozen=True, eq=False)
class Refuse(Generic[WaiterT]):
    """Fail the waiter. no_room: the model can never fit its device."""

    model: Model[WaiterT]
    waiter: WaiterT
    error: GatewayError
    no_room: bool = False


Effect = Prepare[WaiterT] | Load[WaiterT] | Evict[WaiterT] | DropFromHost[WaiterT] | Grant[WaiterT] | Refuse[WaiterT]
