"""Gaps between tokens as a histogram; a request brings thousands of them, counted already, which the client library has no call for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from mm_gateway.api.observation.record import GAP_BOUNDS_S

NAMES = ("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds")
"""As vLLM calls it now, and as it did before, which dashboards still ask for."""
_BOUNDS = (*map(str, GAP_BOUNDS_S), "+Inf")


class GapHistogram(Collector):
    """Written on the event loop, read by whoever collects."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], list[int]] = {}
        self._sums: dict[tuple[str, str], float] = {}

    def add(self, labels: tuple[str, str], counts: Sequence[int], sum_s: float) -> None:
        """The gaps of one request. counts: by class of GAP_BOUNDS_S."""
        known = self._counts.get(labels)
        self._counts[labels] = [*counts] if known is None else [a + b for a, b in zip(known, counts, strict=True)]
        self._sums[labels] = self._sums.get(labels, 0.0) + sum_s

    def collect(self) -> Iterator[HistogramMetricFamily]:
        counts, sums = dict(self._counts), dict(self._sums)
        for name in NAMES:
            family = HistogramMetricFamily(name, "Between two pieces of a choice's text.", labels=("model_name", "endpoint"))
            for labels, classes in counts.items():
                family.add_metric(labels, [*zip(_BOUNDS, accumulate(classes), strict=True)], sums.get(labels, 0.0))
            yield family
