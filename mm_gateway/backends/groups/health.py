"""Whether a member is to be asked: failures eject it for a time, after which one request tries it (a circuit breaker); pure, told the time.

Envoy's outlier detection ejects and doubles likewise; that one request at a time tries a member again is the half-open state of Nygard,
Release It! (2007).
"""

from __future__ import annotations

from collections import deque
from typing import Literal

from mm_gateway.configuration.group_settings import GroupRouting

OUTCOMES = 10
"""Of requests and probes that are remembered."""

HealthState = Literal["healthy", "ejected", "trying"]


class Health:
    """One member's. `now`: seconds of a monotonic clock.

    Attributes:
        ejected_until: when it may be tried again; None: it is healthy. being_tried: a request finds out whether it serves again.
        ejections: how often it was ejected. last_failure: why a request or a probe failed last; "" where none did.
    """

    def __init__(self, routing: GroupRouting) -> None:
        self._routing = routing
        self._failed = deque[bool](maxlen=OUTCOMES)
        self.ejected_until: float | None = None
        self._length_s = 0.0
        self._recovered_at = -float("inf")
        self._epoch = 0
        self._trial: int | None = None
        self.being_tried = False
        self._trials = 0
        self.ejections = 0
        self.last_failure = ""

    def state(self, now: float) -> HealthState:
        if self.ejected_until is None:
            return "healthy"
        return "ejected" if now < self.ejected_until else "trying"

    def may_be_asked(self, now: float) -> bool:
        """It is healthy, or the next request may try whether it is."""
        return self.ejected_until is None or (now >= self.ejected_until and not self.being_tried)

    def begin(self) -> tuple[int, int | None]:
        """A request goes to it. Returns what `ended` wants to know of it; of one that is ejected, or was, the request is its trial."""
        if self.ejected_until is not None and self._trial is None:
            self._trials += 1
            self._trial = self._trials
            self.being_tried = True
            return self._epoch, self._trial
        return self._epoch, None

    def ended(self, begun: tuple[int, int | None], failure: str | None, now: float, jitter: float) -> tuple[int, int | None]:
        """A request, or a probe, told whether it serves. Returns what stands for `begun` where the same request tells more later.

        Args:
            begun: from `begin`. What began before an ejection says nothing of the time after it.
            failure: why it failed; None: it did not. jitter: [0, 1), as of `eject`.
        """
        epoch, trial = begun
        self.left(begun)
        if failure is not None:
            self.last_failure = failure
        if epoch != self._epoch:
            return begun
        if self.ejected_until is None:
            self._failed.append(failure is not None)
            if failure is not None and sum(self._failed) >= self._routing.eject_after:
                self.eject(failure, now, jitter)
        elif trial is not None:
            self._tried(failure, now, jitter)
        return self._epoch, None

    def left(self, begun: tuple[int, int | None]) -> None:
        """A request ended without telling anything: its client went. Idempotent."""
        if begun[1] is not None and begun[1] == self._trial:
            self._trial, self.being_tried = None, False

    def eject(self, why: str, now: float, jitter: float) -> None:
        """Ask others for a time, twice as long as the last time where that is not longer ago than it lasted.

        jitter: [0, 1), so that the members of many gateways are not all tried at once.
        """
        routing = self._routing
        soon = now - self._recovered_at <= self._length_s
        self._length_s = min(self._length_s * 2, routing.max_ejection_s) if soon and self._length_s else routing.ejection_s
        self.ejected_until = now + min(self._length_s, routing.max_ejection_s) * (1 + jitter / 10)
        self.ejections += 1
        self.last_failure = why
        self._epoch += 1
        self._trial, self.being_tried = None, False

    def probed(self, failure: str | None, now: float, jitter: float) -> None:
        """A look at the member itself. One that is ejected and answers may be tried at once, by a request."""
        if self.ejected_until is None:
            self.ended((self._epoch, None), failure, now, jitter)
        elif failure is None:
            self.ejected_until = min(self.ejected_until, now)
        else:
            self.last_failure = failure
            if self.state(now) == "trying" and self._trial is None:
                self._again(failure, now, jitter)

    def _tried(self, failure: str | None, now: float, jitter: float) -> None:
        if failure is not None:
            self._again(failure, now, jitter)
            return
        self.ejected_until = None
        self._failed.clear()
        self._recovered_at = now
        self._epoch += 1

    def _again(self, failure: str, now: float, jitter: float) -> None:
        self._recovered_at = now
        self.eject(failure, now, jitter)
