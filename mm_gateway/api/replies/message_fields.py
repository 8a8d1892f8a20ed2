"""Joins the pieces of fields that a remote server streams; knows the kinds of JSON values, not the fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_SAID_AGAIN = frozenset({"id", "type", "index", "role", "format", "name"})
"""Fields that name something, and are not written piece by piece."""


def merge_fields(pieces: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The whole of objects that came in pieces, as openai-python's `accumulate_delta` joins them.

    Texts are joined, objects merged, lists too: by the `index` of their entries where they have one, else one after the other. Of
    anything else the last counts.
    """
    values: dict[str, list[Any]] = {}
    for piece in pieces:
        for name, value in piece.items():
            if value is not None:
                values.setdefault(name, []).append(value)
    return {name: found[-1] if name in _SAID_AGAIN else _merge_values(found) for name, found in values.items()}


def merge_choice_fields(pieces: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The whole of what was said of one choice piece by piece: lists joined, else the last, since texts there are not written on."""
    merged: dict[str, Any] = {}
    for piece in pieces:
        for name, value in piece.items():
            before = merged.get(name)
            merged[name] = [*before, *value] if isinstance(before, list) and isinstance(value, list) else value
    return merged


def _merge_values(values: list[Any]) -> Any:
    if all(isinstance(value, str) for value in values):
        return "".join(values)
    if all(isinstance(value, Mapping) for value in values):
        return merge_fields(values)
    if all(isinstance(value, list) for value in values):
        return _merge_lists(values)
    return values[-1]


def _merge_lists(lists: list[list[Any]]) -> list[Any]:
    whole: list[Any] = []
    indexed: dict[int, list[Mapping[str, Any]]] = {}
    for entry in (entry for entries in lists for entry in entries):
        match entry:
            case {"index": int(index)}:
                indexed.setdefault(index, []).append(entry)
            case _:
                whole.append(entry)
    return whole + [merge_fields(indexed[index]) for index in sorted(indexed)]
