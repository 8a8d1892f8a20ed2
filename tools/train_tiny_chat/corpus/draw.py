"""Seeded choices that keep phrasings, names and topics for the evaluation out of the training data, by construction."""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Sequence
from typing import Literal, TypeVar

Split = Literal["train", "held_out"]
T = TypeVar("T")

_HELD_OUT_EVERY = 6
_INNERMOST = re.compile(r"\(([^()]*\|[^()]*)\)")


class Draw:
    """One stream of choices.

    Args:
        seed: the same seed gives the same stream.
        split: `train` never sees what `held_out` sees: every sixth phrasing of a list, and one made-up name in eight.
    """

    def __init__(self, seed: int, split: Split = "train") -> None:
        self.random = random.Random(seed)
        self.split: Split = split

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def number(self, low: int, high: int) -> int:
        """low <= number <= high."""
        return self.random.randint(low, high)

    def one(self, options: Sequence[T]) -> T:
        """Any of them, in both splits: for what is no phrasing."""
        return options[self.random.randrange(len(options))]

    def some(self, options: Sequence[T], count: int) -> list[T]:
        """Different ones."""
        return self.random.sample(list(options), count)

    def shuffled(self, options: Sequence[T]) -> list[T]:
        return self.random.sample(list(options), len(options))

    def wording(self, options: Sequence[str]) -> str:
        """A phrasing with its alternatives drawn. Of six or more options every sixth is held out; of fewer, none."""
        allowed: Sequence[str] = options
        if len(options) >= _HELD_OUT_EVERY:
            kept_out = self.split == "held_out"
            allowed = [option for at, option in enumerate(options, 1) if (at % _HELD_OUT_EVERY == 0) == kept_out]
        return self.expand(self.one(allowed))

    def question(self, options: Sequence[str]) -> str:
        """A phrasing out of a list whose last entry is held out, with its alternatives drawn."""
        return self.expand(options[-1] if self.split == "held_out" else self.one(options[:-1]))

    def expand(self, pattern: str) -> str:
        """Draws one alternative of every (a|b|c), innermost first; parentheses without a bar stay."""
        while match := _INNERMOST.search(pattern):
            pattern = pattern[: match.start()] + self.one(match[1].split("|")) + pattern[match.end() :]
        return pattern

    def allows(self, entity: str) -> bool:
        """Whether a made-up entity belongs to this split."""
        return (zlib.crc32(entity.encode()) % 8 == 0) == (self.split == "held_out")
