"""Reads thoughts between two literals, at the beginning of a text: `<think>…</think>` and its like."""

from __future__ import annotations

from mm_gateway.chat_templates.reasoning_formats.buffered import BufferedReader
from mm_gateway.chat_templates.reasoning_formats.format import Piece, State
from mm_gateway.text import begun_at_end


class TagReader(BufferedReader):
    """A ThoughtReader. White space around a thought is part of neither it nor the answer; that of a text without a thought stays.

    Args:
        state: where the text begins.
    """

    state: State

    def __init__(self, opening: str, closing: str, state: State) -> None:
        super().__init__(state)
        self._opening, self._closing = opening, closing
        self._thinks = False  # more than white space of the thought has come

    @property
    def is_closing(self) -> bool:
        return self.state == "thought" and begun_at_end(self._buffer, self._closing) > 0

    def end(self) -> list[Piece]:
        pieces: list[Piece] = []
        part = "thought" if self.state == "thought" else "mark" if self.state == "between" else "answer"
        self._take(pieces, part, len(self._buffer))
        return pieces

    def _read(self, pieces: list[Piece]) -> bool:
        """Takes what is certain; whether the state is another one now."""
        buffer = self._buffer
        blank = len(buffer) - len(buffer.lstrip())
        match self.state:
            case "undecided":
                begun = buffer[blank:]
                if begun.startswith(self._opening):
                    self._take(pieces, "mark", blank + len(self._opening))
                    self.state = "thought"
                    return True
                if self._opening.startswith(begun):
                    return False
                self.state = "answer"
                return True
            case "thought":
                if not self._thinks:
                    self._take(pieces, "mark", blank)
                    buffer = self._buffer
                at = buffer.find(self._closing)
                # What may be the beginning of the closing is held back, and white space, which belongs to the closing if that follows.
                size = at if at >= 0 else len(buffer) - begun_at_end(buffer, self._closing)
                size = len(buffer[:size].rstrip())
                self._thinks = self._thinks or size > 0
                self._take(pieces, "thought", size)
                if at >= 0:
                    self._take(pieces, "mark", at - size + len(self._closing))
                    self.state = "between"
                return at >= 0
            case "between":
                self._take(pieces, "mark", blank)
                if self._buffer:
                    self.state = "answer"
                return bool(self._buffer)
            case "answer":
                self._take(pieces, "answer", len(buffer))
                return False
