"""What a reader of tool calls finds in a model's text."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class ParsedText(NamedTuple):
    """Text that is part of the answer. start: where it begins in all that was fed, in characters."""

    text: str
    start: int = 0


class ParsedCall(NamedTuple):
    """A call begins."""

    name: str


class ParsedArguments(NamedTuple):
    """A piece of the JSON of the call that began last."""

    text: str


Parsed = ParsedText | ParsedCall | ParsedArguments


class ToolParser(Protocol):
    """Reads one choice's text as it comes; nothing of it is lost: what is no call comes out as text."""

    def feed(self, text: str) -> list[Parsed]: ...

    def end(self, *, cut: bool = False, required: bool = False) -> list[Parsed]:
        """What was held back, once no more text can come.

        Args:
            cut: the text would have gone on; the beginning of a call that it ends with is no text then. required: it had to be a call.
        """
        ...
