"""What of a call's arguments is streamed apart from the others: the commands of a shell call, the diff of a patch.

Both are read while they come where the arguments begin as their schema has them; of others, which only servers elsewhere write, they
are told whole at the end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from mm_gateway.api.replies.json_text import JsonText
from mm_gateway.api.responses.changes import CommandAdded, CommandChange, CommandClosed, CommandPieceAdded

_COMMANDS = re.compile(r'\s*\{\s*"commands"\s*:\s*\[\s*"')
_NEXT = re.compile(r'\s*,\s*"')
_DIFF = re.compile(r'\s*\{(?:\s*"(?:type|path)"\s*:\s*"(?:[^"\\]|\\.)*"\s*,){2}\s*"diff"\s*:\s*"', re.DOTALL)


class Diff:
    """Reads the diff out of the arguments of a patch. begun: what is to be done, and with which file, is known."""

    def __init__(self) -> None:
        self._waiting = ""
        self._text: JsonText | None = None

    @property
    def begun(self) -> bool:
        return self._text is not None

    def feed(self, arguments: str) -> str:
        if self._text is None:
            self._waiting += arguments
            opening = _DIFF.match(self._waiting) if self._waiting.endswith('"') or "diff" in self._waiting else None
            if opening is None:
                return ""
            self._text = JsonText()
            arguments = self._waiting[opening.end() :]
        return self._text.feed(arguments)


class Commands:
    """Reads commands out of the arguments of a shell call. index: the call's place in the output."""

    def __init__(self, index: int) -> None:
        self._index = index
        self._waiting = ""
        self._text: JsonText | None = None
        self._told: list[str] = []
        self._closed = 0

    def feed(self, arguments: str) -> Iterator[CommandChange]:
        while True:
            if self._text is None:
                self._waiting += arguments
                opening = (_NEXT if self._told else _COMMANDS).match(self._waiting)
                if opening is None:
                    return
                self._text = JsonText()
                arguments = self._waiting[opening.end() :]
                yield self._begin()
            if text := self._text.feed(arguments):
                yield self._add(text)
            if self._text.rest is None:
                return
            arguments, self._waiting, self._text = self._text.rest, "", None
            yield self._close()

    def end(self, commands: Sequence[object]) -> Iterator[CommandChange]:
        """The rest, once no more arguments come. commands: of the call."""
        for number, command in enumerate(map(str, commands)):
            if number == len(self._told):
                yield self._begin()
            if number == self._closed:
                if rest := command[len(self._told[number]) :]:
                    yield self._add(rest)
                yield self._close()

    def _begin(self) -> CommandChange:
        self._told.append("")
        return CommandAdded(self._index, len(self._told) - 1)

    def _add(self, text: str) -> CommandChange:
        self._told[-1] += text
        return CommandPieceAdded(self._index, len(self._told) - 1, text)

    def _close(self) -> CommandChange:
        self._closed = len(self._told)
        return CommandClosed(self._index, len(self._told) - 1, self._told[-1])
