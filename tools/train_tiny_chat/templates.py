"""Patterns and what is drawn from them; `data/templates.yaml` says how a pattern is written."""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

T = TypeVar("T")
Scope = dict[str, str]
"""What the slots of one example stand for."""

DATA = Path(__file__).parent / "data"
_INNERMOST = re.compile(r"\(([^()|]*\|[^()]*)\)")
_SLOT = re.compile(r"\{([\w.]+)(?:([+*-])([\w.]+))?\}")


@functools.cache
def read(name: str) -> Any:
    """The content of `data/<name>.yaml`."""
    return yaml.safe_load((DATA / f"{name}.yaml").read_text(encoding="utf-8"))


class Draw:
    """One stream of choices; the same seed gives the same stream."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def one(self, options: Sequence[T]) -> T:
        return self.random.choice(options)

    def some(self, options: Sequence[T], most: int) -> list[T]:
        """At least one and at most `most` different ones, in their order."""
        count = self.random.randint(1, min(most, len(options)))
        return [options[at] for at in sorted(self.random.sample(range(len(options)), count))]

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def expand(self, pattern: str | Sequence[str], scope: Scope | None = None) -> str:
        """A text of the pattern, or of one of several. scope: the slots drawn so far, to which the new ones are added."""
        scope = {} if scope is None else scope
        text = pattern if isinstance(pattern, str) else self.one(pattern)
        while match := _INNERMOST.search(text):
            text = text[: match.start()] + self.one(match[1].split("|")) + text[match.end() :]
        # A value is put in as it is: what it holds is never read as a pattern again.
        return _SLOT.sub(lambda slot: self._filled(slot, scope), text)

    def _filled(self, slot: re.Match[str], scope: Scope) -> str:
        one, sign, other = slot.groups()
        if sign is None:
            value = self._value(one, scope)
            return slot[0] if value is None else value
        a, b = int(self._value(one, scope) or 0), int(self._value(other, scope) or 0)
        return str(a + b if sign == "+" else a - b if sign == "-" else a * b)

    def _value(self, slot: str, scope: Scope) -> str | None:
        """None where the slot is of no table."""
        if slot not in scope:
            if span := re.fullmatch(r"(\d+)\.\.(\d+)(\.\w+)?", slot):
                number = str(self.random.randint(int(span[1]), int(span[2])))
                if span[3] is None:  # a number without a name is another one each time
                    return number
                scope[slot] = number
            elif pattern := read("templates")["tables"].get(slot.partition(".")[0]):
                scope[slot] = self.expand(pattern)
        return scope.get(slot)


class First(Draw):
    """Always the first alternative."""

    def one(self, options: Sequence[T]) -> T:
        return options[0]
