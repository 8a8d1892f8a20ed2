"""The JSON that each stage of a lesson has to be, bounded so that even a model that never ends by itself stays within its context."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from mm_gateway.core import Grammar

MIN_SECTIONS, MAX_SECTIONS = 3, 5
SECTION_NAME_CHARACTERS = 60
SECTION_CHARACTERS = 2000
MIN_CHARACTERS = 10
EXERCISE_CHARACTERS = 800
"""Question and answer together."""


def explanation_frame(topic: str, sections: Sequence[str]) -> str:
    """An explanation without its text, to be counted."""
    return _compact({"topic": topic, "sections": [{"name": name, "content": ""} for name in sections]})


def exercises_frame(count: int) -> str:
    """Exercises without their text."""
    return _compact([{"question": "", "answer": ""}] * count)


def plan_grammar(room: int | None, *, portable: bool) -> Grammar:
    """{"sections": [names]}.

    Args:
        room: tokens that there are for a reply; None: unknown. The names return in later prompts, so they get a quarter of it.
        portable: without bounds of text, which many servers do not know.
    """
    quarter = None if room is None else room // 4
    name = _text(_bound(SECTION_NAME_CHARACTERS, quarter, MAX_SECTIONS, tokens_per_character=1.0), portable)
    return _grammar(_object({"sections": {"type": "array", "items": name, "minItems": MIN_SECTIONS, "maxItems": MAX_SECTIONS}}))


def explanation_grammar(topic: str, sections: Sequence[str], room: int | None, *, portable: bool) -> Grammar:
    """{"topic", "sections": [{"name", "content"}]} with topic and names prescribed.

    Args:
        room: tokens that there are for its text; None: unknown. What would not fit at a token a character is bounded.
    """
    size = len(sections)
    content = _text(_bound(SECTION_CHARACTERS, room, size, tokens_per_character=1.0), portable)
    if portable:
        entry = _object({"name": {"type": "string", "enum": list(sections)}, "content": content})
        array: dict[str, Any] = {"type": "array", "items": entry, "minItems": size, "maxItems": size}
        return _grammar(_object({"topic": {"type": "string"}, "sections": array}))
    entries = [_object({"name": {"const": name}, "content": content}) for name in sections]
    array = {"type": "array", "prefixItems": entries, "items": False, "minItems": size, "maxItems": size}
    return _grammar(_object({"topic": {"const": topic}, "sections": array}))


def exercises_grammar(count: int, room: int | None, *, portable: bool) -> Grammar:
    """[{"question", "answer"}], `count` of them; bounded for two tokens a character: none may be missing."""
    each = _bound(EXERCISE_CHARACTERS, room, count, tokens_per_character=2.0)
    entry = _object({"question": _text(each * 2 // 5, portable), "answer": _text(each * 3 // 5, portable)})
    array = {"type": "array", "items": entry, "minItems": count, "maxItems": count}
    # OpenAI and others want an object at the top.
    return _grammar(_object({"exercises": array}) if portable else array)


def _bound(most: int, room: int | None, parts: int, *, tokens_per_character: float) -> int:
    """Characters of each part."""
    return most if room is None else max(MIN_CHARACTERS, min(most, int(room / parts / tokens_per_character)))


def _text(characters: int, portable: bool) -> dict[str, Any]:
    return {"type": "string"} if portable else {"type": "string", "minLength": 1, "maxLength": characters}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _grammar(schema: dict[str, Any]) -> Grammar:
    return Grammar("json_schema", _compact(schema))


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
