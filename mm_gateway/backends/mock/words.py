"""The mock's tokens: a token is a word with the space before it; of a text that follows a grammar, a shorter piece."""

from __future__ import annotations

import re
from collections.abc import Iterator

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
