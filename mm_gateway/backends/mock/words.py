"""The mock's tokens: a token is a word with the space before it; of a text that follows a grammar, a shorter piece."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

from mm_gateway.work_pools import encoding

P = ParamSpec("P")
Result = TypeVar("Result")

_SHORT_CHARACTERS = 2**10
_TOKEN = re.compile(r"\s*\S+|\s+$")
_PIECE = re.compile(r"\s*(?:\w{1,8}|[^\w\s]{1,8})|\s+$")


def words_of(text: str) -> Iterator[str]:
    """A text's tokens, one at a time: a list of them all would keep the interpreter to itself until it is complete."""
    return (found[0] for found in _TOKEN.finditer(text))


def pieces_of(text: str) -> list[str]:
    """A text that has no blanks as a rule, such as JSON, in pieces that a stream can show."""
    return _PIECE.findall(text)


def count_words(text: str) -> int:
    """How many tokens a text has."""
    return sum(1 for _ in _TOKEN.finditer(text))


async def work_on(characters: int, function: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
    """What a function makes of texts of so many characters together: of short ones at once, for the way to a thread costs more."""
    if characters <= _SHORT_CHARACTERS:
        return function(*args, **kwargs)
    return await encoding(characters).run(function, *args, **kwargs)
