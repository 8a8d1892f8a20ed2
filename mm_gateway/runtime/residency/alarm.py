"""Rings once, at the earliest time that was asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Timer

logger = logging.getLogger(__name__)

_LONGEST_WAIT_S = 86_400.0
"""No thread can wait for good; ringing too early is harmless."""


class Alarm:
    """Not thread-safe: who sets it holds a lock. It rings in a thread of its own, without that lock.

    Args:
        ring: called when the time has come; it sets the alarm again. clock: seconds.
    """

    def __init__(self, ring: Callable[[], None], clock: Callable[[], float]) -> None:
        self._ring = ring
        self._clock = clock
        self._timer: Timer | None = None
        self._at = 0.0

    def set(self, at: float | None) -> None:
        """Ring at that time of the clock, or before; None: whenever it was set for. Never raises."""
        if at is None or (self._timer is not None and self._at <= at):
            return
        self.cancel()
        wait_s = min(max(0.01, at - self._clock()), _LONGEST_WAIT_S)
        timer = Timer(wait_s, self._on_time)
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError as error:  # the limit of threads; whatever happens next sets it again
            logger.error("idle models may stay longer than they should: %s", error)
            return
        self._timer, self._at = timer, self._clock() + wait_s

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_time(self) -> None:
        self._timer = None
        self._ring()
