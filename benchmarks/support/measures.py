"""Statistics of measured samples: percentiles, medians, and a line that shows them; knows nothing of what was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


def percentile(samples: Sequence[float], share: float) -> float:
    """The value below which `share` (in [0, 1]) of the samples lie, interpolated linearly as numpy does; NaN without samples."""
    if not samples:
        return math.nan
    ordered = sorted(samples)
    position = share * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def median(samples: Sequence[float]) -> float:
    """The middle of the samples that are numbers; NaN where there is none."""
    return percentile([sample for sample in samples if not math.isnan(sample)], 0.5)


@dataclass(frozen=True)
class Percentiles:
    """The three that matter, in the samples' unit."""

    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Percentiles:
        return cls(percentile(samples, 0.5), percentile(samples, 0.95), percentile(samples, 0.99))

    def milliseconds(self) -> str:
        """For samples in seconds."""
        return f"p50 {self.p50 * 1e3:.1f}  p95 {self.p95 * 1e3:.1f}  p99 {self.p99 * 1e3:.1f} ms"


def ratio(ours: float, theirs: float) -> float:
    """`ours` over `theirs`; NaN where one is missing."""
    return ours / theirs if theirs else math.nan
