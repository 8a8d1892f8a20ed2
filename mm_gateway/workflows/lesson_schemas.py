"""The JSON that each stage of a lesson has to be, bounded so that even a model that never ends by itself stays within its context."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from mm_gateway.core import Grammar

MIN_SECTIONS, MAX_SECTIONS = 3, 5
SECTION_NAME_CHARACTERS = 60
SECTION_CHARACTERS = 2000
MIN_CHARACTERS = 10
EXERCISE_CHARACTERS = 800
"""Question and answer together."""

SECTION_KEYS = '{"name":"","content":""},'
EXERCISE_KEYS = '{"question":"","answer":""},'


class Space(NamedTuple):
    """Tokens that there are for a reply; None: unknown. And what the keys of each section and each exercise take of it."""

    room: int | None
    section_keys: int
    exercise_keys: int


def plan_grammar(*, portable: bool) -> Grammar:
    """{"sections": [names]}. portable: without bounds of text, which many servers do not know."""
    name = _text(SECTION_NAME_CHARACTERS, portable)
    return _grammar(_object({"sections": {"type": "array", "items": name, "minItems": MIN_SECTIONS, "maxItems": MAX_SECTIONS}}))


def explanation_grammar(topic: str, sections: Sequence[str], space: Space, *, portable: bool) -> Grammar:
    """{"topic", "sections": [{"name", "content"}]} with topic and names prescribed.

    Args:
        space: where a text would not fit at a token a character, it is bounded.
    """
    size = len(sections)
    content = _text(_bound(SECTION_CHARACTERS, space.room, size, space.section_keys + SECTION_NAME_CHARACTERS // 2, 1.0), portable)
    if portable:
        entry = _object({"name": {"type": "string", "enum": list(sections)}, "content": content})
        array: dict[str, Any] = {"type": "array", "items": entry, "minItems": size, "maxItems": size}
        return _grammar(_object({"topic": {"type": "string"}, "sections": array}))
    entries = [_object({"name": {"const": name}, "content": content}) for name in sections]
    array = {"type": "array", "prefixItems": entries, "items": False, "minItems": size, "maxItems": size}
    return _grammar(_object({"topic": {"const": topic}, "sections": array}))


def exercises_grammar(count: int, space: Space, *, portable: bool) -> Grammar:
    """[{"question", "answer"}], `count` of them; bounded for two tokens a character: none may be missing."""
    each = _bound(EXERCISE_CHARACTERS, space.room, count, space.exercise_keys, 2.0)
    entry = _object({"question": _text(each * 2 // 5, portable), "answer": _text(each * 3 // 5, portable)})
    array = {"type": "array", "items": entry, "minItems": count, "maxItems": count}
    # OpenAI and others want an object at the top.
    return _grammar(_object({"exercises": array}) if portable else array)


def _bound(most: int, room: int | None, parts: int, keys: int, tokens_per_character: float) -> int:
    """Characters of each part."""
    if room is None:
        return most
    return max(MIN_CHARACTERS, min(most, int((room / parts - keys) / tokens_per_character)))


def _text(characters: int, portable: bool) -> dict[str, Any]:
    return {"type": "string"} if portable else {"type": "string", "minLength": 1, "maxLength": characters}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _grammar(schema: dict[str, Any]) -> Grammar:
    return Grammar("json_schema", json.dumps(schema, ensure_ascii=False))
