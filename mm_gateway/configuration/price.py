"""What tokens cost: `price` of an entry of `models.yaml`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from mm_gateway.configuration.ranges import NotNegative


class Price(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`price` of an entry of `models.yaml`: of a million tokens each, in whatever currency the budgets are in."""

    input: NotNegative = 0.0
    cached_input: NotNegative | None = None
    """Of prompt tokens that were cached; None: as any others."""
    output: NotNegative = 0.0

    def __post_init__(self) -> None:
        if math.inf in (self.input, self.cached_input, self.output):
            raise ValueError("a price must be finite")

    def cost(self, prompt_tokens: int, cached_tokens: int, output_tokens: int) -> float:
        """Of a request. cached_tokens: of the prompt's, which other servers may say to be more than it has."""
        cached_tokens = min(cached_tokens, prompt_tokens)
        return ((prompt_tokens - cached_tokens) * self.input + cached_tokens * self.cached + output_tokens * self.output) / 1e6

    @property
    def cached(self) -> float:
        """Of prompt tokens that were cached."""
        return self.input if self.cached_input is None else self.cached_input


def dearest(prices: Sequence[Price]) -> Price:
    """What tokens cost at most where one of these holds, at least one."""
    return (
        prices[0]
        if len(prices) == 1
        else Price(
            input=max(price.input for price in prices),
            cached_input=max(price.cached for price in prices),
            output=max(price.output for price in prices),
        )
    )
