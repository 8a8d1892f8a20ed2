"""How a format writes calls: literal text with places for what differs from call to call. A grammar and a reader are made of it."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Callable, Iterator, Mapping

Spell = Callable[[str], str]
"""A literal text as a sequence of Lark: one literal, with references to tokens where a tokenizer has control tokens of names in it."""


class Place(enum.Enum):
    """What stands between the literals."""

    NAME = "the function's name"
    ARGUMENTS = "all arguments, as a JSON object"
    KEY = "an argument's name"
    VALUE = "an argument's value"
    NUMBER = "digits that the model makes up"
    ID = "nine letters or digits that the model makes up"


Piece = str | Place | tuple[str | Place, ...]
"""A tuple may be left out."""
Frame = tuple[Piece, ...]

NAME = r"(?P<name>[A-Za-z0-9_.-]+)"
_PATTERNS = {Place.NAME: NAME, Place.KEY: r"(?P<key>[^<>\"]+?)", Place.NUMBER: r"\d+", Place.ID: "[A-Za-z0-9]*"}
_RULES = {Place.NUMBER: "/[0-9]{1,4}/", Place.ID: "/[A-Za-z0-9]{9}/"}
_LOOSE = re.compile(r'[{}\[\]":,]')


def quoted(text: str) -> str:
    """A text as a Lark literal."""
    return json.dumps(text, ensure_ascii=False)


def split(frame: Frame, place: Place) -> tuple[Frame, Frame]:
    """What stands before a place, and after it."""
    at = frame.index(place)
    return frame[:at], frame[at + 1 :]


def literals(frame: Frame) -> Iterator[str]:
    """All literal texts in it."""
    for piece in frame:
        if isinstance(piece, str):
            yield piece
        elif isinstance(piece, tuple):
            yield from literals(piece)


def lark(frame: Frame, spell: Spell, values: Mapping[Place, str] | None = None) -> str:
    """A frame as a sequence of Lark. values: what stands at its places, as Lark."""
    rules = _RULES | dict(values or {})
    pieces: list[str] = []
    for piece in _joined(frame):
        if isinstance(piece, str):
            pieces.append(spell(piece) if piece else "")
        elif isinstance(piece, tuple):
            pieces.append(f"({lark(piece, spell, values)})?")
        else:
            pieces.append(rules[piece])
    return " ".join(piece for piece in pieces if piece)


def _joined(frame: Frame) -> Iterator[Piece]:
    """With neighbouring literals as one: a lexer that has begun one of two literals that begin alike does not go back to the other."""
    literal = ""
    for piece in frame:
        if isinstance(piece, str):
            literal += piece
        else:
            yield literal
            yield piece
            literal = ""
    yield literal


def pattern(frame: Frame, *, exact: bool = False) -> str:
    """A regular expression of it, with groups for NAME and KEY.

    Args:
        exact: white space has to be as it is there, which JSON and tags otherwise leave open.
    """
    pieces: list[str] = []
    for piece in frame:
        if isinstance(piece, str):
            pieces.append(re.escape(piece) if exact else _loose(piece))
        elif isinstance(piece, tuple):
            pieces.append(f"(?:{pattern(piece)})?")
        else:
            pieces.append(_PATTERNS[piece])
    return "".join(pieces)


def write(frame: Frame, values: Mapping[Place, str]) -> str:
    """A frame as text, without what may be left out."""
    return "".join(piece if isinstance(piece, str) else values[piece] for piece in frame if not isinstance(piece, tuple))


def _loose(literal: str) -> str:
    if literal.isspace():
        return r"\s+"  # all that tells where a name ends
    found: list[str] = []
    for word in re.split(r"(\s+)", literal):
        if not word:
            continue
        found.append(r"\s*" if word.isspace() else _LOOSE.sub(lambda sign: rf"\s*{re.escape(sign[0])}\s*", _escaped(word)))
    return re.sub(r"(?:\\s\*)+", lambda _: r"\s*", "".join(found))


def _escaped(word: str) -> str:
    """Escaped but for the signs that `_LOOSE` escapes."""
    return "".join(char if _LOOSE.match(char) else re.escape(char) for char in word)
