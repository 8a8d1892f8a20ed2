"""What an event changed in the output of a response, which is what its stream tells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from mm_gateway.core import TokenLogprob
from mm_gateway.protocol.response_searches import FileCitationAnnotation, SearchItem
from mm_gateway.protocol.responses import CompactionItem, OutputItem, OutputText, ReasoningText, Refusal, UrlCitationAnnotation


class Opened(msgspec.Struct, frozen=True):
    """A new item; `index` is its place in the output, `item` as it is without content, `part` the first one of it, as yet empty."""

    index: int
    item: OutputItem
    part: OutputText | Refusal | ReasoningText | None


class TextAdded(msgspec.Struct, frozen=True):
    index: int
    id: str
    text: str
    logprobs: tuple[TokenLogprob, ...]


class Annotated(msgspec.Struct, frozen=True):
    """`number` counts the annotations of the item."""

    index: int
    id: str
    number: int
    annotation: UrlCitationAnnotation | FileCitationAnnotation | Mapping[str, Any]


class PieceAdded(msgspec.Struct, frozen=True):
    """Of a call's arguments, a custom call's text, a refusal, or a reasoning."""

    index: int
    id: str
    text: str


class Closed(msgspec.Struct, frozen=True):
    """An item that is complete."""

    index: int
    item: OutputItem


class Searched(msgspec.Struct, frozen=True):
    """A search that begins."""

    index: int
    item: SearchItem


class SummingUp(msgspec.Struct, frozen=True):
    """A summary that is being written."""

    index: int
    item: CompactionItem


class CommandAdded(msgspec.Struct, frozen=True):
    """A command of a shell call, as yet empty; `number` counts those of the call."""

    index: int
    number: int


class CommandPieceAdded(msgspec.Struct, frozen=True):
    index: int
    number: int
    text: str


class CommandClosed(msgspec.Struct, frozen=True):
    """A command that is complete."""

    index: int
    number: int
    command: str


CommandChange = CommandAdded | CommandPieceAdded | CommandClosed
Change = SummingUp | Searched | Opened | TextAdded | Annotated | PieceAdded | CommandChange | Closed
