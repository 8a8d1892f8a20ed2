"""Decides which models are loaded, evicted and handed out: a state machine without threads, clocks or tensors.

Each method takes what happened and the time, and returns the effects that are due, in order; the manager carries them
out and reports back. A model goes

    cold -> preparing (its files are fetched, its need is estimated) -> waiting (for room) -> loading -> ready -> evicting -> cold

Room is bytes per device and places over all. Who waits for room is served in order of arrival; requests for models that
are ready overtake them, but no longer than `patience_s`: then models that would have to leave take no new requests. Nobody waits longer
than `room_timeout_s` for room, or for a model that yields its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Generic

from mm_gateway.errors import GatewayError, RateLimitError
from mm_gateway.runtime.residency.eviction import Candidate, choose_victims
from mm_gateway.runtime.residency.host_room import HostRoom
from mm_gateway.runtime.residency.model import DropFromHost, Effect, Evict, EvictionReason, Grant, Load, Model, Prepare, Refuse, WaiterT
from mm_gateway.runtime.residency.room import Room, overdue, total_bytes


class Residency(Generic[WaiterT]):
    """The state machine. Not thread-safe: the manager holds its lock.

    Args:
        max_models: models in memory at a time, >= 1.
        budget_of: bytes that models may take on a device; None: without bound.
        ttl_s: idle seconds after which a model leaves, where it has no TTL of its own; None: never.
        host_budget_bytes: host memory for weights of models that left a GPU.
        patience_s: how long requests for models that are ready may overtake one that waits for room.
        room_timeout_s: how long a request waits for room, from when the model's files are there; > 0.
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
        room_timeout_s: float = 300.0,
        max_waiters: int = 1024,
    ) -> None:
        self._max_waiters = max_waiters
        self._room = Room(max_models, budget_of)
        self._ttl_s = ttl_s
        self._host = HostRoom(host_budget_bytes)
        self._patience_s = patience_s
        self._room_timeout_s = room_timeout_s
        self._closed: GatewayError | None = None
        self.models: dict[Hashable, Model[WaiterT]] = {}

    def request(self, model: Model[WaiterT], waiter: WaiterT, now: float) -> list[Effect[WaiterT]]:
        """Somebody wants a model; `model` must be of `models`."""
        if self._closed is not None:
            return [Refuse(model, waiter, self._closed)]
        if model.phase == "ready" and not model.unload_asked and not any(other.phase == "waiting" for other in self.models.values()):
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
        model.phase, model.waits_since = "waiting", now
        return self.advance(now)

    def loaded(self, model: Model[WaiterT], footprint_bytes: int, load_s: float, now: float) -> list[Effect[WaiterT]]:
        """The model is in memory and takes so much. All who wait are served at once, before it can have to yield again."""
        model.phase, model.need_bytes, model.load_s = "ready", footprint_bytes, load_s
        model.last_used, model.had_no_memory, model.host_bytes = now, False, 0
        model.expires_at = self._expiry(model, None, now)
        if self._closed is not None:
            return self.expel(model, "closing", now)
        grants: list[Effect[WaiterT]] = list(self._grant_all(model))
        return grants + self.advance(now)

    def failed(self, model: Model[WaiterT], error: GatewayError, now: float, *, out_of_memory: bool = False) -> list[Effect[WaiterT]]:
        """Fetching or loading did not work. Everybody who waits gets the same error; the next request tries again.

        out_of_memory: the estimate was too low. Where others can make room, they do, and it is tried once more.
        """
        if model.phase == "loading":
            model.host_bytes = 0  # the copy in host memory went into the load
        if out_of_memory and not model.had_no_memory and model.waiters and self._others_can_leave(model):
            model.had_no_memory = True
            model.phase, model.waits_since = "waiting", now
            model.need_bytes = self._room.free_bytes(model, self._resident()) + 1
            return self.advance(now)
        if model.had_no_memory:
            model.need_bytes, model.had_no_memory = None, False
        return [*self._refuse_all(model, error, no_room=out_of_memory), *self.advance(now)]

    def stopped(self, model: Model[WaiterT], now: float) -> list[Effect[WaiterT]]:
        """A load was given up because nobody wanted it any more; whoever asked since then waits for another one."""
        model.phase, model.host_bytes, model.waits_since = "waiting", 0, now
        return self.advance(now)

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
        model.unload_asked = model.draining = False
        model.in_host = in_host
        if not in_host:
            model.host_bytes = 0
        model.expires_at = None
        return self.advance(now)

    def expel(self, model: Model[WaiterT], reason: EvictionReason, now: float) -> list[Effect[WaiterT]]:
        """A model that is ready leaves at once, leases or not: its engine has died, or everything closes. Its leases are void."""
        model.phase, model.leases = "evicting", 0
        return [Evict(model, reason), *self.advance(now)]

    def close(self, error: GatewayError, now: float) -> list[Effect[WaiterT]]:
        """Refuse who waits and whoever will ask, with `error`; every model leaves, one that loads as soon as it is there."""
        self._closed = error
        effects = [refusal for model in self.models.values() for refusal in self._refuse(model, error)]
        for model in self.models.values():
            if model.phase == "ready":
                effects += self.expel(model, "closing", now)
        return effects

    def unload(self, model: Model[WaiterT], now: float) -> list[Effect[WaiterT]]:
        """The model shall leave as soon as nobody uses it. One that is ready takes no new requests until then; one that loads
        first serves those who wait."""
        if model.resident:
            model.unload_asked = True
        return self.advance(now)

    def advance(self, now: float) -> list[Effect[WaiterT]]:
        """Everything that can happen now: models that leave, models that come, requests that are served."""
        effects = self._refuse_overdue(now)
        for model in self.models.values():
            model.draining = False
            if model.phase == "ready" and model.leases == 0 and (model.unload_asked or (model.expired(now) and not model.waiters)):
                effects += self._evict(model, "asked" if model.unload_asked else "idle")
        for model in self._waiting():
            if not model.waiters:
                self._cool(model)
        blocked: set[str] = set()
        for model in self._waiting():
            assert model.device is not None and model.need_bytes is not None
            if (error := self._room.never_fits(model, [other for other in self._resident() if other.pinned])) is not None:
                effects += self._refuse_all(model, error, no_room=True)
            elif model.device in blocked:
                continue  # in order of arrival, so that a small model does not starve a large one
            elif self._room.fits(model, self._resident()):
                model.phase = "loading"
                effects.append(Load(model, from_host=model.in_host))
                model.in_host = False  # whoever loads owns the copy from now on, so nobody may drop it
            else:
                blocked.add(model.device)
                effects += self._make_room(model, now)
                if not self._room.place_free(self._resident()):
                    break  # places are shared by all devices
        for model in self.models.values():
            if model.phase == "ready" and not model.draining and not model.unload_asked:
                effects += self._grant_all(model)
        return effects

    def next_time(self, now: float) -> float | None:
        """When, after `now`, `advance` has to be called though nothing else happens: a TTL, or the end of somebody's patience or time."""
        idle = [model for model in self.models.values() if model.phase == "ready" and model.leases == 0 and not model.pinned]
        times = [model.expires_at for model in idle if model.expires_at is not None]
        times += [model.waiters[0][1] + self._patience_s for model in self._waiting() if model.waiters]
        times += [model.room_awaited_since + self._room_timeout_s for model in self.models.values()]
        return min((time for time in times if now < time < math.inf), default=None)

    def bytes_on(self, device: str) -> int:
        """What models on a device take, coming and leaving ones included."""
        return total_bytes(model for model in self._resident() if model.device == device)

    def _waiting(self) -> list[Model[WaiterT]]:
        found = [model for model in self.models.values() if model.phase == "waiting"]
        return sorted(found, key=lambda model: model.waiters[0][1] if model.waiters else 0.0)

    def _resident(self) -> list[Model[WaiterT]]:
        return [model for model in self.models.values() if model.resident]

    def _refuse_overdue(self, now: float) -> list[Effect[WaiterT]]:
        effects: list[Effect[WaiterT]] = []
        for model in self.models.values():
            while model.room_awaited_since + self._room_timeout_s <= now:
                error = overdue(model, self._resident(), self._room_timeout_s, max(1.0, self._patience_s))
                effects.append(Refuse(model, model.waiters.pop(0)[0], error))
        return effects

    def _make_room(self, model: Model[WaiterT], now: float) -> list[Effect[WaiterT]]:
        staying = [other for other in self._resident() if other.phase != "evicting"]
        if self._room.fits(model, staying):
            return []  # what is leaving is enough
        impatient = now - model.waiters[0][1] >= self._patience_s
        chosen = self._choose(model, staying, now, asked_for=impatient, in_use=False)
        if chosen is not None:
            return [effect for victim in chosen for effect in self._evict(victim, "room", model)]
        if impatient:
            for victim in self._choose(model, staying, now, asked_for=True, in_use=True) or ():
                victim.draining = True
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
                expired_s=now - other.expires_at if other.expired(now) and other.expires_at is not None else None,
                reload_s=self._host.reload_s(other),
            )
            for other in staying
        ]
        keys = choose_victims(
            candidates,
            free_bytes=max(0, self._room.missing_bytes(model, staying)),
            free_places=max(0, len(staying) + 1 - self._room.places),
            may_take_asked_for=asked_for,
        )
        return None if keys is None else [self.models[key] for key in keys]

    def _load_left_s(self, model: Model[WaiterT], now: float) -> float:
        """Until those who wait are served, by what the last load took; >= 1."""
        return max(1.0, self._host.reload_s(model) - (now - model.waiters[0][1]))

    def _others_can_leave(self, model: Model[WaiterT]) -> bool:
        return any(
            other is not model and other.device == model.device and not other.pinned and other.phase in ("ready", "evicting")
            for other in self._resident()
        )

    def _evict(self, model: Model[WaiterT], reason: EvictionReason, room_for: Model[WaiterT] | None = None) -> list[Effect[WaiterT]]:
        model.phase = "evicting"
        if model.unload_asked or not self._host.may_hold(model):
            return [Evict(model, reason, room_for)]
        dropped = self._host.take(model, self.models.values())
        evict = Evict(model, reason, room_for, to_host=dropped is not None)
        return [*map(DropFromHost, dropped or ()), evict]

    def _cool(self, model: Model[WaiterT]) -> None:
        model.phase, model.unload_asked = "cold", False

    def _refuse(self, model: Model[WaiterT], error: GatewayError, *, no_room: bool = False) -> list[Effect[WaiterT]]:
        waiters, model.waiters = model.waiters, []
        return [Refuse(model, waiter, error, no_room) for waiter, _ in waiters]

    def _refuse_all(self, model: Model[WaiterT], error: GatewayError, *, no_room: bool) -> list[Effect[WaiterT]]:
        """Nobody gets it this time."""
        self._cool(model)
        return self._refuse(model, error, no_room=no_room)

    def _expiry(self, model: Model[WaiterT], keep_alive: float | None, now: float) -> float | None:
        ttl = keep_alive if keep_alive is not None else model.ttl_s if model.ttl_s is not None else self._ttl_s
        return None if ttl is None else now + ttl  # a pin holds it back, and does not end it

    def _grant(self, model: Model[WaiterT], waiter: WaiterT) -> Grant[WaiterT]:
        model.leases += 1
        model.expires_at = None
        return Grant(model, waiter)

    def _grant_all(self, model: Model[WaiterT]) -> list[Grant[WaiterT]]:
        waiters, model.waiters = model.waiters, []
        return [self._grant(model, waiter) for waiter, _ in waiters]
