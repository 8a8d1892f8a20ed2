"""How many retries there may be, so that members in trouble do not get every request several times (as Finagle's RetryBudget); pure."""

from __future__ import annotations

WINDOW_S = 10.0
"""For which what was not used may be saved."""


class RetryBudget:
    """In t seconds with n requests at most `(t + 10) * per_second + share * n` retries, and a burst of `share * 100` more.

    Args:
        share: retries for each request. per_second: retries beside them.
    """

    def __init__(self, share: float, per_second: float) -> None:
        self._share = share
        self._per_second = per_second
        self._most = per_second * WINDOW_S + share * 100
        self._level = self._most
        self._at = 0.0

    def request(self) -> None:
        """A request came, whatever becomes of it."""
        self._level = min(self._level + self._share, self._most)

    def take(self, now: float) -> bool:
        """Whether one more retry may be made; it is counted then. now: seconds of a monotonic clock."""
        self._level = min(self._level + (now - self._at) * self._per_second, self._most)
        self._at = now
        if self._level < 1:
            return False
        self._level -= 1
        return True
