"""A bound on how many are inside; who is refused is told when somebody will have left, at the pace that was measured."""

from __future__ import annotations

from collections.abc import Callable

from mm_gateway.errors import RateLimitError
from mm_gateway.throughput import Throughput


class Capacity:
    """Counts, and refuses. Called from one event loop.

    Args:
        bound: >= 1. what: those inside, in the words of the error. clock: monotonic seconds.
    """

    def __init__(self, bound: int, what: str, clock: Callable[[], float]) -> None:
        self._bound = bound
        self._what = what
        self._clock = clock
        self._left = Throughput()
        self._measured_at = 0.0
        self.inside = 0

    @property
    def is_full(self) -> bool:
        return self.inside >= self._bound

    @property
    def full_text(self) -> str:
        """What is said where it is."""
        return f"The server is busy: {self.inside} requests are {self._what}"

    def check(self) -> None:
        """Raises:
        RateLimitError: it is full.
        """
        if self.is_full:
            self._measure(0, self._clock())
            raise RateLimitError(f"{self.full_text}. Please try again later", retry_after_s=self._left.seconds_for(1))

    def enter(self) -> None:
        """One more; who entered must `leave`.

        Raises:
            RateLimitError: it is full.
        """
        self.check()
        if self.inside == 0:
            self._measured_at = self._clock()  # nobody was inside, so nobody could leave
        self.inside += 1

    def leave(self) -> None:
        self.inside -= 1
        self._measure(1, self._clock())

    def _measure(self, left: int, now: float) -> None:
        self._left.observe(left, now - self._measured_at)
        self._measured_at = now
