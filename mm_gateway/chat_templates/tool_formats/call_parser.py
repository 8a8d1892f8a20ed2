"""Reads calls of the shape `opening, header with the name, JSON arguments, closing` out of streamed text; shared by the formats."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

from mm_gateway.chat_templates.tool_formats.parsed import Parsed, ParsedArguments, ParsedCall, ParsedText
from mm_gateway.text import begun_at_end

MAX_HEADER = 200
"""Characters after which an opening without a header is taken for text."""


class CallParser:
    """A ToolParser.

    Args:
        opening: literal that begins a call.
        header: matches from the opening up to the arguments; its group `name` is the function's.
        closing: matches what follows the arguments.
        end: literal that ends a section of calls, of which the opening begins the first alone; empty: each call has its own opening.
        arguments: makes what reads the arguments of the function of a name, where they are no JSON.
        only_at_start: calls only begin where the text begins or the call before has ended.
        between: characters that may stand between calls, and are no text there.

    Attributes:
        position: characters of all that was fed of which it is decided what they are.
    """

    def __init__(
        self,
        opening: str,
        header: re.Pattern[str],
        closing: re.Pattern[str],
        *,
        end: str = "",
        only_at_start: bool = False,
        between: str = " \n",
        arguments: Callable[[str], ArgumentsReader] | None = None,
    ) -> None:
        self._opening, self._header, self._closing, self._end = opening, header, closing, end
        self._reader_of = arguments or _json_arguments
        self._between = between
        self._only_at_start = only_at_start
        self._state = self._text
        self._buffer = ""
        self.position = 0
        self._reader = self._reader_of("")
        self._started = False  # text came out that is more than white space
        self._calls = 0

    def feed(self, text: str) -> list[Parsed]:
        self._buffer += text
        parsed: list[Parsed] = []
        while self._state(parsed):
            pass
        return parsed

    def end(self, *, cut: bool = False, required: bool = False) -> list[Parsed]:
        parsed: list[Parsed] = []
        if cut and self._state == self._text:
            self._end_cut(parsed, required)
        ended_in_call = self._state in (self._arguments, self._close, self._within) or (cut and self._state == self._head)
        if not ended_in_call and not (self._calls and not self._buffer.strip(self._between)):
            self._emit(parsed, self._buffer)
        self._take(len(self._buffer))
        return parsed

    def _end_cut(self, parsed: list[Parsed], required: bool) -> None:
        """Leaves out what a text that was cut ends with, where that was to become a call."""
        begun = begun_at_end(self._buffer, self._opening)
        expected = required or self._only_at_start or self._calls > 0
        if begun > 1 or (begun and expected):  # a single character at the end of a sentence tells nothing
            self._emit(parsed, self._buffer[:-begun].rstrip())
            self._take(len(self._buffer))
        elif required and not self._buffer.strip():
            self._take(len(self._buffer))

    # Each state consumes of the buffer what it can, and says whether another state may go on.

    def _text(self, parsed: list[Parsed]) -> bool:
        if self._calls and not self._started:
            self._take(len(self._buffer) - len(self._buffer.lstrip(self._between)))
        buffer = self._buffer
        at = -1 if self._only_at_start and self._started else buffer.find(self._opening)
        if at >= 0 and self._only_at_start and buffer[:at].strip():
            at = -1
        if at >= 0:
            self._emit(parsed, buffer[:at].rstrip())
            self._take(at)
            self._state = self._head
            return True
        searching = not (self._only_at_start and (self._started or not self._opening.startswith(buffer.strip()[: len(self._opening)])))
        free = len(buffer) - (begun_at_end(buffer, self._opening) if searching else 0)
        # White space stays too: it goes where a call follows it.
        free = len(buffer[:free].rstrip()) if searching else free
        self._emit(parsed, buffer[:free])
        self._take(free)
        return False

    def _head(self, parsed: list[Parsed]) -> bool:
        match = self._header.match(self._buffer)
        if match is not None:
            parsed.append(ParsedCall(match["name"]))
            self._calls += 1
            self._take(match.end())
            self._reader = self._reader_of(match["name"])
            self._state = self._arguments
            return True
        if len(self._buffer) > MAX_HEADER:
            self._emit(parsed, self._opening)
            self._take(len(self._opening))
            self._state = self._text
            return True
        return False

    def _arguments(self, parsed: list[Parsed]) -> bool:
        size, arguments = self._reader.read(self._buffer)
        self._take(size)
        if arguments:
            parsed.append(ParsedArguments(arguments))
        if self._reader.complete:
            self._state = self._close
        return self._reader.complete

    def _close(self, _: list[Parsed]) -> bool:
        match = self._closing.match(self._buffer)
        if match is None and len(self._buffer) <= MAX_HEADER:
            return False
        if match is not None:
            self._take(match.end())
        self._started = False
        self._state = self._within if self._end else self._text
        return bool(self._buffer)

    def _within(self, _: list[Parsed]) -> bool:
        """Between the calls of a section, and at its end."""
        self._take(len(self._buffer) - len(self._buffer.lstrip(self._between)))
        if self._buffer.startswith(self._end):
            self._take(len(self._end))
            self._state = self._text
        elif self._header.match(self._buffer):
            self._state = self._head
        elif len(self._buffer) > MAX_HEADER:
            self._state = self._text
        else:
            return False
        return True

    def _take(self, size: int) -> str:
        """Removes what is decided from the beginning of the buffer."""
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        self.position += size
        return taken

    def _emit(self, parsed: list[Parsed], text: str) -> None:
        """Text that the buffer begins with."""
        if text:
            parsed.append(ParsedText(text, self.position))
            self._started = self._started or bool(text.strip())


class ArgumentsReader(Protocol):
    """Reads the arguments of one call as they come.

    Attributes:
        complete: they have ended.
    """

    complete: bool

    def read(self, text: str) -> tuple[int, str]:
        """Characters of `text` that are done with, and what they add to the JSON of the arguments."""
        ...


class JsonScanner:
    """Finds where a JSON object or array ends, without building it."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self.complete = False

    def read(self, text: str) -> tuple[int, str]:
        size = self.feed(text)
        return size, text[:size]

    def feed(self, text: str) -> int:
        """How many characters of `text` still belong to the value."""
        for position, char in enumerate(text):
            if self._in_string:
                if self._escaped:
                    self._escaped = False
                elif char == "\\":
                    self._escaped = True
                elif char == '"':
                    self._in_string = False
            elif char == '"':
                self._in_string = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if self._depth <= 0:
                    self.complete = True
                    return position + 1
        return len(text)


def _json_arguments(_: str) -> ArgumentsReader:
    return JsonScanner()
