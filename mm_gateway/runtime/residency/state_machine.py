"""Decides which models are loaded, evicted and handed out: a state machine without threads, clocks or tensors.

Each method takes what happened and the time, and returns the effects that are due, in order; the manager carries them
out and reports back. A model goes

    cold -> preparing (its files are fetched, its need is estimated) -> waiting (for room) -> loading -> ready -> evicting -> cold

Room is bytes per device and places over all. Who waits for room is served in order of arrival; requests for models that
are ready overtake them, but no longer than `patience_s`: then models that would have to leave take no new requests.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from mm_gateway.errors import OUT_OF_MEMORY_ADVICE, GatewayError, ModelUnavailableError, RateLimitError
from mm_gateway.runtime.residency.eviction import Candidate, choose_victims

Phase = Literal["cold", "preparing", "waiting", "loading", "ready", "evicting"]
WaiterT = TypeVar("WaiterT")

ASSUMED_RELOAD_S_PER_BYTE = 1e-9
"""What loading costs before it was ever measured: a gigabyte a second."""
FROM_HOST_SHARE = 0.1
"""Of that, what coming back from host memory costs."""


@dataclass(eq=False)
class Model(Generic[WaiterT]):
    """One model, in memory or not.

    Attributes:
        device: once known, such as `cpu` or `cuda:0`. need_bytes: estimated before, measured after the first load.
        waiters: with the time at which each arrived. doomed: leaves as soon as nobody uses it.
        load_s: seconds that its last load took. in_host: its weights are kept in host memory.
    """

    key: Hashable
    pinned: bool = False
    ttl_s: float | None = None
    phase: Phase = "cold"
    device: str | None = None
    need_bytes: int | None = None
    leases: int = 0
    waiters: list[tuple[WaiterT, float]] = field(default_factory=list)
    last_used: float = 0.0
    expires_at: float | None = None
    load_s: float | None = None
    yielding: bool = False
    doomed: bool = False
    in_host: bool = False
    had_no_memory: bool = False

    @property
    def resident(self) -> bool:
        return self.phase in ("loading", "ready", "evicting")


@dataclass(frozen=True, eq=False)
class Prepare(Generic[WaiterT]):
    """Fetch the model's files and report `prepared`."""

    model: Model[WaiterT]


@dataclass(frozen=True, eq=False)
class Load(Generic[WaiterT]):
    """Bring the model into memory and report `loaded` or `failed`."""

    model: Model[WaiterT]


@dataclass(frozen=True, eq=False)
class Evict(Generic[WaiterT]):
    """Take the model out of memory and report `evicted`. to_host: keep its weights in host memory."""

    model: Model[WaiterT]
    to_host: bool = False


@dataclass(frozen=True, eq=False)
class DropFromHost(Generic[WaiterT]):
    """Forget the weights kept in host memory."""

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


class Residency(Generic[WaiterT]):
    """The state machine. Not thread-safe: the manager holds its lock.

    Args:
        max_models: models in memory at a time, >= 1.
        budget_of: bytes that models may take on a device; None: without bound.
        ttl_s: idle seconds after which a model leaves, where it has no TTL of its own; None: never.
        host_budget_bytes: host memory for weights of models that left a GPU.
        patience_s: how long requests for models that are ready may overtake one that waits for room.
        max_waiters: requests that may wait for one model.
    """

    def __init__(
        self,
        *,
        max_models: int,
        budget_of: Callable[[str], int | None],
        ttl_s: float | None = None,
        host_budget_bytes: int = 0,
        patience_s: float = 10.0,
        max_waiters: int = 1024,
    ) -> None:
        self._max_waiters = max_waiters
        self._max_models = max_models
        self._budget_of = budget_of
        self._ttl_s = ttl_s
        self._host_budget = host_budget_bytes
        self._patience_s = patience_s
        self.models: dict[Hashable, Model[WaiterT]] = {}

    def request(self, model: Model[WaiterT], waiter: WaiterT, now: float) -> list[Effect[WaiterT]]:
        """Somebody wants a model; `model` must be of `models`."""
        if model.phase == "ready" and not model.doomed and not any(other.phase == "waiting" for other in self.models.values()):
            return [self._grant(model, waiter)]
        if len(model.waiters) >= self._max_waiters:
            message = f"{len(model.waiters)} requests wait for the model to load already. Please try again later"
            return [Refuse(model, waiter, RateLimitError(message, retry_after_s=self._load_left_s(model, now)))]
        model.waiters.append((waiter, now))
        if model.phase == "cold":
            if model.need_bytes is None:
                model.phase = "preparing"
                return [Prepare(model)]
            model.phase = "waiting"
        return self.advance(now)

    def withdraw(self, model: Model[WaiterT], waiter: WaiterT, now: float) -> list[Effect[WaiterT]]:
        """A waiter no longer wants its model. A load in progress that nobody wants any more is the manager's to abandon."""
        model.waiters = [entry for entry in model.waiters if entry[0] is not waiter]
        return self.advance(now)

    def prepared(self, model: Model[WaiterT], device: str, need_bytes: int, now: float) -> list[Effect[WaiterT]]:
        """The files are there, and this is what the model needs, on this device."""
        model.device, model.need_bytes = device, need_bytes
        model.phase = "waiting"
        return self.advance(now)

    def loaded(self, model: Model[WaiterT], footprint_bytes: int, load_s: float, now: float) -> list[Effect[WaiterT]]:
        """The model is in memory and takes so much. All who wait are served at once, before it can have to yield again."""
        model.phase, model.need_bytes, model.load_s = "ready", footprint_bytes, load_s
        model.last_used, model.had_no_memory, model.in_host = now, False, False
        model.expires_at = self._expiry(model, None, now)
        grants: list[Effect[WaiterT]] = list(self._grant_all(model))
        return grants + self.advance(now)

    def failed(self, model: Model[WaiterT], error: GatewayError, now: float, *, out_of_memory: bool = False) -> list[Effect[WaiterT]]:
        """Fetching or loading did not work. Everybody who waits gets the same error; the next request tries again.

        out_of_memory: the estimate was too low. Where others can make room, they do, and it is tried once more.
        """
        if out_of_memory and not model.had_no_memory and model.waiters and self._others_can_leave(model):
            model.had_no_memory = True
            model.phase = "waiting"
            model.need_bytes = self._free_bytes(model) + 1
            return self.advance(now)
        if model.had_no_memory:
            model.need_bytes, model.had_no_memory = None, False
        model.phase = "cold"
        refusals: list[Effect[WaiterT]] = [Refuse(model, waiter, error, no_room=out_of_memory) for waiter, _ in model.waiters]
        model.waiters = []
        return refusals + self.advance(now)

    def released(self, model: Model[WaiterT], keep_alive: float | None, now: float) -> list[Effect[WaiterT]]:
        """A lease ended. keep_alive: idle seconds that its request asked for; None: as configured."""
        model.leases -= 1
        model.last_used = now
        if model.leases == 0:
            model.expires_at = self._expiry(model, keep_alive, now)
        return self.advance(now)

    def evicted(self, model: Model[WaiterT], now: float, *, in_host: bool = False) -> list[Effect[WaiterT]]:
        """The model is out of memory; whoever asked for it meanwhile waits for room as of its arrival."""
        model.phase = "waiting" if model.waiters else "cold"
        model.doomed = model.yielding = False
        model.in_host = in_host
        model.expires_at = None
        return self.advance(now)

    def unload(self, model: Model[WaiterT], now: float) -> list[Effect[WaiterT]]:
        """The model shall leave as soon as nobody uses it; it takes no new requests until then."""
        if model.phase == "ready":
            model.doomed = True
        return self.advance(now)

    def advance(self, now: float) -> list[Effect[WaiterT]]:
        """Everything that can happen now: models that leave, models that come, requests that are served."""
        effects: list[Effect[WaiterT]] = []
        for model in self.models.values():
            model.yielding = False
            if model.phase == "ready" and model.leases == 0 and (model.doomed or (self._expired(model, now) and not model.waiters)):
                effects += self._evict(model)
        for model in self._waiting():
            if not model.waiters:
                model.phase = "cold"
        blocked: set[str] = set()
        for model in self._waiting():
            assert model.device is not None and model.need_bytes is not None
            if (error := self._never_fits(model)) is not None:
                model.phase = "cold"
                effects += [Refuse(model, waiter, error, no_room=True) for waiter, _ in model.waiters]
                model.waiters = []
            elif model.device in blocked:
                continue  # in order of arrival, so that a small model does not starve a large one
            elif self._fits(model, self._resident()):
                model.phase = "loading"
                effects.append(Load(model))
            else:
                blocked.add(model.device)
                effects += self._make_room(model, now)
                if not self._place_free(self._resident()):
                    break  # places are shared by all devices
        for model in self.models.values():
            if model.phase == "ready" and not model.yielding and not model.doomed:
                effects += self._grant_all(model)
        return effects

    def next_time(self, now: float) -> float | None:
        """When, after `now`, `advance` has to be called though nothing else happens: a TTL, or the end of somebody's patience."""
        times = [m.expires_at for m in self.models.values() if m.phase == "ready" and m.leases == 0 and m.expires_at is not None]
        times += [model.waiters[0][1] + self._patience_s for model in self._waiting() if model.waiters]
        return min((time for time in times if now < time < math.inf), default=None)

    def bytes_on(self, device: str) -> int:
        """What models on a device take, coming and leaving ones included."""
        return _total(model for model in self._resident() if model.device == device)

    def _waiting(self) -> list[Model[WaiterT]]:
        found = [model for model in self.models.values() if model.phase == "waiting"]
        return sorted(found, key=lambda model: model.waiters[0][1] if model.waiters else 0.0)

    def _resident(self) -> list[Model[WaiterT]]:
        return [model for model in self.models.values() if model.resident]

    def _place_free(self, others: list[Model[WaiterT]]) -> bool:
        return len(others) < self._max_models

    def _fits(self, model: Model[WaiterT], others: list[Model[WaiterT]]) -> bool:
        return self._place_free(others) and self._missing_bytes(model, others) <= 0

    def _missing_bytes(self, model: Model[WaiterT], others: Iterable[Model[WaiterT]]) -> int:
        assert model.device is not None and model.need_bytes is not None
        budget = self._budget_of(model.device)
        if budget is None:
            return 0
        return _total(other for other in others if other.device == model.device) + model.need_bytes - budget

    def _free_bytes(self, model: Model[WaiterT]) -> int:
        assert model.device is not None
        budget = self._budget_of(model.device)
        return (budget if budget is not None else 0) - self.bytes_on(model.device)

    def _never_fits(self, model: Model[WaiterT]) -> GatewayError | None:
        """Why no eviction can help; None where one can."""
        pinned = [other for other in self._resident() if other.pinned and other is not model]
        if self._missing_bytes(model, pinned) > 0:
            assert model.device is not None and model.need_bytes is not None
            budget, taken = self._budget_of(model.device) or 0, _total(other for other in pinned if other.device == model.device)
            held = f", of which pinned models hold {_gigabytes(taken)}" if taken else ""
            return ModelUnavailableError(
                f"The model needs {_gigabytes(model.need_bytes)} on {model.device}, where models may take {_gigabytes(budget)}{held}. "
                f"{OUT_OF_MEMORY_ADVICE}",
                retryable=False,
            )
        if len(pinned) >= self._max_models:
            return ModelUnavailableError(
                f"All {self._max_models} places for models are held by pinned ones. Raise max_cached_models, or unpin one", retryable=False
            )
        return None

    def _make_room(self, model: Model[WaiterT], now: float) -> list[Effect[WaiterT]]:
        staying = [other for other in self._resident() if other.phase != "evicting"]
        if self._fits(model, staying):
            return []  # what is leaving is enough
        impatient = now - model.waiters[0][1] >= self._patience_s
        chosen = self._choose(model, staying, now, asked_for=impatient, in_use=False)
        if chosen is not None:
            return [effect for victim in chosen for effect in self._evict(victim)]
        if impatient:
            for victim in self._choose(model, staying, now, asked_for=True, in_use=True) or ():
                victim.yielding = True
        return []

    def _choose(
        self, model: Model[WaiterT], staying: list[Model[WaiterT]], now: float, *, asked_for: bool, in_use: bool
    ) -> list[Model[WaiterT]] | None:
        """Victims by the policy; in_use: also such as would have to be waited for."""
        candidates = [
            Candidate(
                key=other.key,
                bytes=other.need_bytes or 0 if other.device == model.device else 0,
                in_use=other.phase != "ready" or (other.leases > 0 and not in_use),
                pinned=other.pinned,
                asked_for=bool(other.waiters) or other.leases > 0,
                idle_s=now - other.last_used,
                expired_s=now - other.expires_at if self._expired(other, now) and other.expires_at is not None else None,
                reload_s=self._reload_s(other),
            )
            for other in staying
        ]
        keys = choose_victims(
            candidates,
            free_bytes=max(0, self._missing_bytes(model, staying)),
            free_places=max(0, len(staying) + 1 - self._max_models),
            may_take_asked_for=asked_for,
        )
        return None if keys is None else [self.models[key] for key in keys]

    def _reload_s(self, model: Model[WaiterT]) -> float:
        cost = model.load_s if model.load_s is not None else (model.need_bytes or 0) * ASSUMED_RELOAD_S_PER_BYTE
        return cost * FROM_HOST_SHARE if self._host_has_room(model) else cost

    def _load_left_s(self, model: Model[WaiterT], now: float) -> float:
        """Until those who wait are served, by what the last load took; >= 1."""
        return max(1.0, self._reload_s(model) - (now - model.waiters[0][1]))

    def _others_can_leave(self, model: Model[WaiterT]) -> bool:
        return any(
            other is not model and other.device == model.device and not other.pinned and other.phase in ("ready", "evicting")
            for other in self._resident()
        )

    def _host_has_room(self, model: Model[WaiterT]) -> bool:
        return model.device is not None and model.device != "cpu" and (model.need_bytes or 0) <= self._host_budget

    def _evict(self, model: Model[WaiterT]) -> list[Effect[WaiterT]]:
        model.phase = "evicting"
        to_host = self._host_has_room(model) and not model.doomed
        if not to_host:
            return [Evict(model)]
        model.in_host = True
        kept = sorted((other for other in self.models.values() if other.in_host and other is not model), key=lambda m: m.last_used)
        dropped: list[Effect[WaiterT]] = []
        while _total(kept) + (model.need_bytes or 0) > self._host_budget:
            oldest = kept.pop(0)
            oldest.in_host = False
            dropped.append(DropFromHost(oldest))
        return [*dropped, Evict(model, to_host=True)]

    def _expired(self, model: Model[WaiterT], now: float) -> bool:
        return model.expires_at is not None and model.expires_at <= now and not model.pinned

    def _expiry(self, model: Model[WaiterT], keep_alive: float | None, now: float) -> float | None:
        ttl = keep_alive if keep_alive is not None else model.ttl_s if model.ttl_s is not None else self._ttl_s
        return None if ttl is None or model.pinned else now + ttl

    def _grant(self, model: Model[WaiterT], waiter: WaiterT) -> Grant[WaiterT]:
        model.leases += 1
        model.expires_at = None
        return Grant(model, waiter)

    def _grant_all(self, model: Model[WaiterT]) -> list[Grant[WaiterT]]:
        waiters, model.waiters = model.waiters, []
        return [self._grant(model, waiter) for waiter, _ in waiters]


def _total(models: Iterable[Model[WaiterT]]) -> int:
    return sum(model.need_bytes or 0 for model in models)


def _gigabytes(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**27 else f"{count / 2**20:.1f} MiB"
