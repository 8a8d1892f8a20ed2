"""How much a member takes: by its entry in the group, and by what it says itself (429, Retry-After, x-ratelimit headers); pure."""

from __future__ import annotations

from mm_gateway.configuration.group_settings import GroupMember
from mm_gateway.core import Allowance
from mm_gateway.token_bucket import TokenBucket

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
"""Of a member that is busy and does not say for how long; doubled from the first to the longest."""


class Limits:
    """One member's. `now`: seconds of a monotonic clock. paused_until: it said that it takes nothing before."""

    def __init__(self, member: GroupMember) -> None:
        self._max_requests = member.max_requests
        self._per_minute = TokenBucket(member.requests_per_minute, 0.0) if member.requests_per_minute is not None else None
        self._pause_s = FIRST_PAUSE_S
        self.paused_until = 0.0
        self._told: Allowance | None = None
        self._left = 0
        """Of what it said that it takes at once; it takes more as time goes."""

    def opens_at(self, running: int, now: float) -> float:
        """When it takes one more request beside those that run; up to `now`: at once. Infinity: when one of them ends."""
        if self._max_requests is not None and running >= self._max_requests:
            return float("inf")
        opens = self.paused_until
        if self._told is self._per_minute is None:
            return opens
        if self._told is not None and self._told.per_second > 0:
            opens = max(opens, self._told.at + (1 - self._left) / self._told.per_second)
        if self._per_minute is not None and (missing := 1 - self._per_minute.level(now)) > 0:
            # Rounded up, so that a wait until then is not a hair too short.
            opens = max(opens, now + missing * 60 / self._per_minute.per_minute + 1e-6)
        return opens

    def why_closed(self, running: int, now: float) -> str:
        """In words, of one that does not open at once."""
        if self._max_requests is not None and running >= self._max_requests:
            return f"it answers {running} requests, as many as it may"
        return f"it is at its limit of requests for {max(self.opens_at(running, now) - now, 0.1):.1f} s more"

    def took(self, now: float) -> None:
        """A request goes to it."""
        if self._per_minute is not None:
            self._per_minute.take(1, now)
        self._left -= 1

    def busy(self, retry_after_s: float | None, now: float) -> None:
        """It refused a request because it has enough of them. retry_after_s: as it said; None: it did not."""
        if retry_after_s is None:
            retry_after_s, self._pause_s = self._pause_s, min(self._pause_s * 2, LONGEST_PAUSE_S)
        self.paused_until = max(self.paused_until, now + retry_after_s)

    def accepted(self) -> None:
        """It did not refuse."""
        self._pause_s = FIRST_PAUSE_S

    def told(self, allowance: Allowance | None) -> None:
        """What its server said last of its limits; the same object is no news."""
        if allowance is not None and allowance is not self._told:
            self._told, self._left = allowance, allowance.requests
