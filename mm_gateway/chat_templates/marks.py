"""Noncharacters of Unicode that mark places in the texts that a chat template renders; knows neither templates nor tokens."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from mm_gateway.errors import InvalidRequestError

_NONCHARACTERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]


def each_text(value: Any, change: Callable[[str], str], names: Collection[str] = ()) -> Any:
    """A copy of nested lists and mappings with every text in it changed, but for the values of keys that hold names."""
    match value:
        case str():
            return change(value)
        case dict():
            return {change(key): item if key in names else each_text(item, change, names) for key, item in value.items()}
        case list() | tuple():
            return [each_text(item, change, names) for item in value]
        case _:
            return value


def all_texts(value: Any) -> Iterator[str]:
    """Every text in nested lists and mappings."""
    match value:
        case str():
            yield value
        case dict():
            for key, item in value.items():
                yield key
                yield from all_texts(item)
        case list() | tuple():
            for item in value:
                yield from all_texts(item)


def up_to(rendered: str, end: str) -> str:
    """What was rendered up to the end of the last message, where `end` stands."""
    cut = rendered.rfind(end)
    if cut < 0:
        raise InvalidRequestError(
            "continue_final_message: this model's chat template does not write the last message's text", param="continue_final_message"
        )
    return rendered[:cut].replace(end, "")


def unused_characters(texts: Sequence[str]) -> tuple[str, str, str]:
    """Three noncharacters that do not occur in the texts; Unicode reserves them for use within a program."""
    free = itertools.islice((char for char in _NONCHARACTERS if not any(char in text for text in texts)), 3)
    try:
        boundary, mark, end = free
    except ValueError:
        raise InvalidRequestError(
            "The messages hold too many different Unicode noncharacters (U+FDD0 to U+FDEF)", param="messages"
        ) from None
    return boundary, mark, end
