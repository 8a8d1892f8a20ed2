"""What an upstream server says that no event of ours stands for: fields beside the choices, of a choice, of the usage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from mm_gateway.backends.upstream.protocol import Choice, Chunk, ToolCall
from mm_gateway.core import ChoiceFields, ReplyFields

_OF_REPLY = frozenset({"id", "object", "created", "model", "obfuscation", *Chunk.__struct_fields__})
"""Understood, or replaced: a reply has our id and the name that the client asked for; padding is for the way to us."""
_OF_CHOICE = frozenset({"stop_reason", *Choice.__struct_fields__})
_OF_CALL = frozenset({"type", *ToolCall.__struct_fields__})
_OF_USAGE = frozenset({"prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "reasoning_tokens"})


class FurtherFields:
    """Those of one stream. What is said again with every chunk is no news."""

    def __init__(self) -> None:
        self._told: dict[str, Any] = {}

    def of_reply(self, chunk: Mapping[str, Any]) -> ReplyFields | None:
        news = {name: value for name, value in chunk.items() if name not in _OF_REPLY and value is not None}
        news = {name: value for name, value in news.items() if self._told.get(name) != value}
        self._told |= news
        return ReplyFields(news) if news else None

    def of_choice(self, index: int, choice: Mapping[str, Any]) -> ChoiceFields | None:
        fields = {name: value for name, value in choice.items() if name not in _OF_CHOICE and value is not None}
        return ChoiceFields(index, fields) if fields else None


def further_of_call(piece: Mapping[str, Any]) -> dict[str, Any]:
    """What a piece of a call says beyond the call: signatures that a server wants back with it."""
    return {name: value for name, value in piece.items() if name not in _OF_CALL and value is not None}


def further_usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    """What a usage says beyond the counts that events have."""
    found: dict[str, Any] = {}
    for name, value in usage.items():
        if isinstance(value, Mapping):
            value = further_usage(cast(Mapping[str, Any], value)) or None
        if name not in _OF_USAGE and value is not None:
            found[name] = value
    return found
