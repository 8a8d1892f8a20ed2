"""How fast something gets done, as a moving average: what every `Retry-After` is computed from."""

from __future__ import annotations

HALF_LIFE_S = 20.0
PRIOR_S = 1.0


class Throughput:
    """Completions per second of busy time, in which the last `half_life_s` seconds weigh as much as all before.

    Before anything was measured, one completion in PRIOR_S seconds is assumed. Time in which nothing completes counts too: an
    estimate grows while one waits in vain.
    """

    def __init__(self, half_life_s: float = HALF_LIFE_S) -> None:
        self._half_life_s = half_life_s
        self._count = 0.0
        self._elapsed_s = 0.0

    def observe(self, count: int, elapsed_s: float) -> None:
        """`count` >= 0 were completed in the next `elapsed_s` >= 0 seconds of work."""
        weight = 0.5 ** (elapsed_s / self._half_life_s)
        self._count = self._count * weight + count
        self._elapsed_s = self._elapsed_s * weight + elapsed_s

    def seconds_for(self, count: int) -> float:
        """Seconds until so many more are likely to be completed; greater than 0 for count >= 1."""
        return count * (self._elapsed_s + PRIOR_S) / (self._count + 1)
