"""Reads calls of the shape `opening, header with the name, JSON arguments, closing` out of streamed text; shared by the formats."""

from __future__ import annotations

import re

from mm_gateway.chat_templates.tool_formats.format import Parsed, ParsedArguments, ParsedCall, ParsedText

MAX_HEADER = 200
"""Characters after which an opening without a header is taken for text."""


class CallParser:
    """A ToolParser.

    Args:
        opening: literal that begins a call.
        header: matches from the opening up to the arguments; its group `name` is the function's.
        closing: matches what follows the arguments.
        only_at_start: calls only begin where the text begins or the call before has ended.
        between: characters that may stand between calls, and are no text there.
    """

    def __init__(
        self, opening: str, header: re.Pattern[str], closing: re.Pattern[str], *, only_at_start: bool = False, between: str = " \n"
    ) -> None:
        self._opening, self._header, self._closing = opening, header, closing
        self._between = between
        self._only_at_start = only_at_start
        self._state = self._text
        self._buffer = ""
        self._scanner = JsonScanner()
        self._started = False  # text came out that is more than white space
        self._calls = 0

    def feed(self, text: str) -> list[Parsed]:
        self._buffer += text
        parsed: list[Parsed] = []
        while self._state(parsed):
            pass
        return parsed

    def end(self) -> list[Parsed]:
        rest, self._buffer = self._buffer, ""
        if self._state == self._close or (self._calls and not rest.strip(self._between)):
            return []
        return [ParsedText(rest)] if rest else []

    # Each state consumes of the buffer what it can, and says whether another state may go on.

    def _text(self, parsed: list[Parsed]) -> bool:
        if self._calls and not self._started:
            self._buffer = self._buffer.lstrip(self._between)
        buffer = self._buffer
        at = -1 if self._only_at_start and self._started else buffer.find(self._opening)
        if at >= 0 and self._only_at_start and buffer[:at].strip():
            at = -1
        if at >= 0:
            self._emit(parsed, buffer[:at].rstrip())
            self._buffer = buffer[at:]
            self._state = self._head
            return True
        searching = not (self._only_at_start and (self._started or not self._opening.startswith(buffer.strip()[: len(self._opening)])))
        free = len(buffer) - (self._begun(buffer) if searching else 0)
        # White space stays too: it goes where a call follows it.
        free = len(buffer[:free].rstrip()) if searching else free
        self._emit(parsed, buffer[:free])
        self._buffer = buffer[free:]
        return False

    def _begun(self, text: str) -> int:
        """Characters at the end of the text that may become an opening, which is a short literal."""
        return next((size for size in range(len(self._opening) - 1, 0, -1) if text.endswith(self._opening[:size])), 0)

    def _head(self, parsed: list[Parsed]) -> bool:
        match = self._header.match(self._buffer)
        if match is not None:
            parsed.append(ParsedCall(match["name"]))
            self._calls += 1
            self._buffer = self._buffer[match.end() :]
            self._scanner = JsonScanner()
            self._state = self._arguments
            return True
        if len(self._buffer) > MAX_HEADER:
            self._emit(parsed, self._opening)
            self._buffer = self._buffer[len(self._opening) :]
            self._state = self._text
            return True
        return False

    def _arguments(self, parsed: list[Parsed]) -> bool:
        size = self._scanner.feed(self._buffer)
        if size:
            parsed.append(ParsedArguments(self._buffer[:size]))
        self._buffer = self._buffer[size:]
        if self._scanner.complete:
            self._state = self._close
        return self._scanner.complete

    def _close(self, _: list[Parsed]) -> bool:
        match = self._closing.match(self._buffer)
        if match is None and len(self._buffer) <= MAX_HEADER:
            return False
        self._buffer = self._buffer[match.end() :] if match is not None else self._buffer
        self._started = False
        self._state = self._text
        return bool(self._buffer)

    def _emit(self, parsed: list[Parsed], text: str) -> None:
        if text:
            parsed.append(ParsedText(text))
            self._started = self._started or bool(text.strip())


class JsonScanner:
    """Finds where a JSON object or array ends, without building it."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self.complete = False

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
