"""What the tests of LangChain share."""

from __future__ import annotations

from collections.abc import Iterable

from langchain_core.messages import AIMessageChunk, BaseMessage, BaseMessageChunk


def sum_of(pieces: Iterable[BaseMessage]) -> AIMessageChunk:
    """A streamed message, added up as applications do."""
    total: BaseMessageChunk = AIMessageChunk(content="")
    for piece in pieces:
        assert isinstance(piece, BaseMessageChunk)
        total += piece
    assert isinstance(total, AIMessageChunk)
    return total
