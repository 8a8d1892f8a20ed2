"""Simulated time: what happens when, in order. A heap of callbacks does it; processes as generators cost several times as much an event."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count


class Clock:
    """now: seconds since the start."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()

    def at(self, time: float, act: Callable[[], None]) -> None:
        """Call `act` then; what is due at the same time happens in the order in which it was asked for."""
        heapq.heappush(self._heap, (max(time, self.now), next(self._number), act))

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        self.at(self.now + seconds, act)

    def run(self, until: float = float("inf")) -> None:
        """Until nothing is left, or so far."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, act = heapq.heappop(heap)
            act()
