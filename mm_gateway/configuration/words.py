"""A setting's type and range in the words of YAML, for errors and for the configuration reference."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import Meta

_NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", types.NoneType: "null"}

_MANY = 20
"""Keys that nobody wants to read in one line."""


def type_in_words(hint: Any) -> str:
    """What kind of value a type takes, whatever its range: `4bit, 8bit, gptq or null`."""
    if get_origin(hint) is Annotated:
        return type_in_words(get_args(hint)[0])
    if hint in _NAMES:
        return _NAMES[hint]
    if get_origin(hint) is tuple:
        entry = get_args(hint)[0]
        return f"a list of {type_in_words(entry)}" if _is_struct(entry) else "a list of texts"
    if get_origin(hint) is Mapping:
        return "a mapping of texts to texts"
    if _is_struct(hint) and len(hint.__struct_fields__) > _MANY:
        return "keys and values of an entry"
    if _is_struct(hint):
        return f"keys and values: {', '.join(hint.__struct_fields__)}"
    if get_origin(hint) is Literal:
        return _either([str(value) for value in get_args(hint)])
    return " or ".join(type_in_words(argument) for argument in get_args(hint))


def range_in_words(hint: Any) -> str:
    """What the `Meta` of a type allows, such as `at least 1, or null`; "" where it says nothing."""
    if get_origin(hint) is Annotated:
        base, *notes = _arguments(hint)
        return range_in_words(base) or _first([_bounds(note) for note in notes])
    found = _first([range_in_words(argument) for argument in _arguments(hint)])
    or_null = ", or null" if get_origin(hint) in (Union, types.UnionType) and types.NoneType in get_args(hint) else ""
    return found + or_null if found else ""


def description(hint: Any) -> str:
    """The sentence that explains a setting; "" where there is none."""
    notes = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    return next((note.description for note in notes if isinstance(note, Meta) and note.description), "")


def _arguments(hint: Any) -> tuple[Any, ...]:
    return get_args(hint)


def _first(texts: list[str]) -> str:
    return next(filter(None, texts), "")


def _bounds(note: object) -> str:
    if not isinstance(note, Meta):
        return ""
    if note.title:
        return note.title
    if note.ge is not None and note.le is not None:
        return f"{note.ge:g} to {note.le:g}"
    bounds = (("at least", note.ge), ("greater than", note.gt), ("at most", note.le), ("less than", note.lt))
    return ", ".join(f"{words} {bound:g}" for words, bound in bounds if bound is not None)


def _is_struct(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, msgspec.Struct)


def _either(values: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(values[:-1]), values[-1]]))
