"""A limit per minute as a bucket that refills continuously (https://en.wikipedia.org/wiki/Token_bucket); pure, told the time.

Libraries of rate limits count what was spent; here an estimate is taken first and put right later, up to a debt, so it is our own.
"""

from __future__ import annotations

import math

PERIOD_S = 60.0


class TokenBucket:
    """Holds up to `per_minute`, full at first. In any t seconds at most `per_minute * (1 + t / 60)` are taken, debts apart.

    Args:
        per_minute: >= 1. now: seconds of a monotonic clock, as in all methods.
    """

    def __init__(self, per_minute: int, now: float) -> None:
        self.per_minute = per_minute
        self._rate = per_minute / PERIOD_S
        self._level = float(per_minute)
        self._at = now

    def take(self, amount: int, now: float) -> float:
        """Take `amount`, at most `per_minute`, if it is there. Returns 0, or the seconds after which it will be; nothing is taken then."""
        level = self.level(now)
        if level >= amount:
            self._level = level - amount
            return 0.0
        return self.wait_s(amount, now)

    def wait_s(self, amount: int, now: float) -> float:
        """Seconds after which `amount` will be there, where it is not."""
        return (amount - self.level(now)) / self._rate

    def correct(self, amount: int, now: float) -> None:
        """Give back `amount`; a negative one was spent beyond what was taken, and is owed even where it is not there."""
        self._level = min(self.level(now) + amount, float(self.per_minute))

    def level(self, now: float) -> float:
        """What is there; negative: what is owed."""
        self._level = min(self._level + (now - self._at) * self._rate, float(self.per_minute))
        self._at = now
        return self._level

    def learn(self, level: float, now: float) -> None:
        """Hold what another bucket of this limit holds, which more than one take from."""
        self._level, self._at = level, now

    def full_in_s(self, now: float) -> float:
        return (self.per_minute - self.level(now)) / self._rate


def duration(seconds: float) -> str:
    """As OpenAI's headers write it: `12ms`, `1s`, `7.66s`, `6m0s`; rounded up to milliseconds."""
    ms = math.ceil(seconds * 1000 - 1e-6)
    if ms < 1000:
        return f"{max(0, ms)}ms"
    minutes, ms = divmod(ms, 60_000)
    text = f"{ms / 1000:.3f}".rstrip("0").rstrip(".")
    return f"{minutes}m{text}s" if minutes else f"{text}s"
