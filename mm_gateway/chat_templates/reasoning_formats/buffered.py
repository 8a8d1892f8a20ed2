"""What all readers of thoughts do with a text that comes in pieces."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

from mm_gateway.chat_templates.reasoning_formats.format import Piece, State


class BufferedReader(ABC):
    """A ThoughtReader without what is its format's.

    Args:
        state: where the text begins.
    """

    def __init__(self, state: State) -> None:
        self.state: State = state
        self._buffer = ""

    def feed(self, text: str) -> list[Piece]:
        self._buffer += text
        pieces: list[Piece] = []
        while self._buffer and self._read(pieces):
            pass
        return pieces

    def begin_answer(self) -> None:
        self.state = "answer"

    @abstractmethod
    def _read(self, pieces: list[Piece]) -> bool:
        """Takes what is certain of the buffer; whether more may be, now."""

    def _take(self, pieces: list[Piece], part: Literal["thought", "mark", "answer"], size: int) -> None:
        """So many characters that the buffer begins with."""
        if size:
            pieces.append(Piece(part, self._buffer[:size]))
            self._buffer = self._buffer[size:]
