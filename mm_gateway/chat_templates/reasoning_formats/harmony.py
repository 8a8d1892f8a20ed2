"""Reads GPT-OSS's messages: thoughts in the channel `analysis`, answers in `final`, calls in messages to a recipient.

Source: https://cookbook.openai.com/articles/openai-harmony
"""

from __future__ import annotations

import re

from mm_gateway.chat_templates.reasoning_formats.buffered import BufferedReader
from mm_gateway.chat_templates.reasoning_formats.format import Piece, State

START, CHANNEL, MESSAGE, END = "<|start|>", "<|channel|>", "<|message|>", "<|end|>"
MARKS = (START, CHANNEL, MESSAGE, END, "<|constrain|>", "<|call|>", "<|return|>")

RECIPIENT = " to="
"""In a header: whom the message is for. It may come before the channel, so a reply behind `<|start|>assistant` may begin with it."""

_HEADERS = (START, CHANNEL, RECIPIENT)
_MAX_HEADER = 200
"""Characters after which what has no end is taken for no header."""
_CLOSINGS = (END, START, "<|call|>", "<|return|>")
_ENDS = re.compile("|".join(map(re.escape, _CLOSINGS)))
_LONGEST = max(map(len, _CLOSINGS))


class HarmonyReader(BufferedReader):
    """A ThoughtReader. A message to a recipient, which is a call, is part of the answer from the recipient in its header to its end.

    Args:
        state: where the text begins; `undecided`: with a header.
    """

    state: State

    def __init__(self, state: State) -> None:
        super().__init__(state)
        self._is_call = False

    @property
    def is_closing(self) -> bool:
        return self.state == "thought" and self._begun() > 0

    def end(self) -> list[Piece]:
        pieces: list[Piece] = []
        begun = self._buffer and any(mark.startswith(self._buffer) for mark in (START, CHANNEL))
        header = self.state == "undecided" and bool(begun or self._buffer.startswith(_HEADERS))
        self._take(pieces, "mark" if header else "thought" if self.state == "thought" else "answer", len(self._buffer))
        return pieces

    def _read(self, pieces: list[Piece]) -> bool:
        return self._header(pieces) if self.state == "undecided" else self._message(pieces)

    def _header(self, pieces: list[Piece]) -> bool:
        buffer = self._buffer
        if not any(buffer.startswith(mark) or mark.startswith(buffer) for mark in _HEADERS):
            self.state = "answer"  # no message at all
            return True
        at = buffer.find(MESSAGE)
        if at < 0:
            if len(buffer) > _MAX_HEADER:
                self.state = "answer"
            return len(buffer) > _MAX_HEADER
        header = buffer[:at]
        self._is_call = RECIPIENT in header
        if self._is_call:
            self.state = "answer"
            before = header.index(RECIPIENT) + 1
            self._take(pieces, "mark", before)
            self._take(pieces, "answer", at - before + len(MESSAGE))
        else:
            self.state = "thought" if "analysis" in header.rpartition(CHANNEL)[2] else "answer"
            self._take(pieces, "mark", at + len(MESSAGE))
        return True

    def _message(self, pieces: list[Piece]) -> bool:
        part = "thought" if self.state == "thought" else "answer"
        match = _ENDS.search(self._buffer)
        if match is None:
            self._take(pieces, part, len(self._buffer) - self._begun())
            return False
        self._take(pieces, part, match.start())
        if match[0] != START:  # which begins the next header
            self._take(pieces, "answer" if self._is_call else "mark", len(match[0]))
        self._is_call = False
        self.state = "undecided"
        return True

    def _begun(self) -> int:
        """Characters at the end of what waits that may become the end of the message."""
        tail = self._buffer[-_LONGEST:]
        at = tail.rfind("<")
        return len(tail) - at if at >= 0 and any(mark.startswith(tail[at:]) for mark in _CLOSINGS) else 0
