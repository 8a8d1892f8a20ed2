"""What one rendering of a chat template may spend. Ours: time, characters of one value, characters of all values together."""

from __future__ import annotations

import contextvars
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import jinja2

T = TypeVar("T")

MAX_SECONDS = 5.0
MAX_VALUE = 32 << 20
"""Characters of one text, or of all texts in one list. A request's body is no longer than that."""
MAX_ENTRIES = 1 << 20
"""Of one list with all lists and mappings in it."""
MAX_TOTAL = 256 << 20
_MAX_BITS = 100_000

_current: contextvars.ContextVar[Budget | None] = contextvars.ContextVar("budget", default=None)


class TemplateLimitError(jinja2.TemplateError):
    """The template asks for more than a rendering may spend."""


class Budget:
    """A context manager around a rendering; where there is none, a template is being compiled, and only one value is bounded."""

    def __enter__(self) -> Budget:
        self.deadline = time.monotonic() + MAX_SECONDS
        self.spent = 0
        self._token = _current.set(self)
        return self

    def __exit__(self, *error: object) -> None:
        _current.reset(self._token)


def tick() -> None:
    """Raises TemplateLimitError where the time is over."""
    budget = _current.get()
    if budget is not None and time.monotonic() > budget.deadline:
        raise TemplateLimitError(f"it takes longer than {MAX_SECONDS:g} s")


def spend(size: int) -> None:
    """A value of this size is about to be made, or read.

    Raises:
        TemplateLimitError: it is too large, or all together are, or the time is over.
    """
    if size > MAX_VALUE:
        raise TemplateLimitError(f"it makes a text or list longer than {MAX_VALUE} characters")
    budget = _current.get()
    if budget is not None:
        budget.spent += max(size, 0)
        if budget.spent > MAX_TOTAL:
            raise TemplateLimitError(f"it makes texts and lists of more than {MAX_TOTAL} characters together")
        tick()


def spend_all(value: T) -> T:
    """Spends a value with all that it holds, and returns it; what it holds twice counts twice, as in the text that it becomes."""
    if isinstance(value, str):
        spend(len(value))
    elif isinstance(value, (list, tuple, dict)):
        entries = characters = 0
        pending: list[Any] = [value]
        while pending:
            inner = pending.pop()
            entries += 1
            if entries > MAX_ENTRIES:
                raise TemplateLimitError(f"it makes a list of more than {MAX_ENTRIES} entries")
            if isinstance(inner, str):
                characters += len(inner)
            elif isinstance(inner, dict):
                pending += (*inner.keys(), *inner.values())
            elif isinstance(inner, (list, tuple)):
                pending += inner
        spend(entries + characters)
    return value


def counted(values: Iterable[T]) -> Iterator[T]:
    """What a loop goes through; the time is looked at each time."""
    for value in values:
        tick()
        yield value


def check_bits(bits: int) -> None:
    """Raises TemplateLimitError: a number of so many bits is too large."""
    if bits > _MAX_BITS:
        raise TemplateLimitError("it computes with numbers that are too large")
