"""Cuts a text into passages of bounded size, at the best places that there are: blank lines, then line and sentence ends."""

from __future__ import annotations

import re
from collections.abc import Iterator

_PARAGRAPH_END = re.compile(r"\n\s*\n")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？；])|\n")


def split_passages(text: str, max_bytes: int) -> list[str]:
    """Passages in their order, none empty.

    Args:
        max_bytes: of each, in UTF-8, where a Chinese character counts 3 as it about does in tokens.
    """
    passages: list[str] = []
    gathered = ""
    for paragraph in _PARAGRAPH_END.split(text):
        for piece, joint in _pieces(paragraph.strip("\n").rstrip(), max_bytes):
            joined = gathered + (joint if gathered else "") + piece
            if gathered and _size(joined) > max_bytes:
                passages.append(gathered)
                joined = piece
            gathered = joined
    if gathered:
        passages.append(gathered)
    return passages


def _pieces(paragraph: str, max_bytes: int) -> Iterator[tuple[str, str]]:
    """(piece that fits, what joins it to the one before it)."""
    if _size(paragraph) <= max_bytes:
        if paragraph.strip():
            yield paragraph, "\n\n"
        return
    joint = "\n\n"
    start = 0
    ends = [match.span() for match in _SENTENCE_END.finditer(paragraph)]
    for end, next_start in [*ends, (len(paragraph), len(paragraph))]:
        for piece in _hard_pieces(paragraph[start:end], max_bytes):
            yield piece, joint
            joint = ""
        joint = paragraph[end:next_start] or joint
        start = next_start


def _hard_pieces(sentence: str, max_bytes: int) -> Iterator[str]:
    start = 0
    while start < len(sentence):
        # A slice by characters first, because the sentence may be a whole book without an end of line.
        piece = sentence[start : start + max_bytes].encode()[:max_bytes].decode(errors="ignore") or sentence[start]
        if start + len(piece) < len(sentence) and (blank := piece.rfind(" ", len(piece) // 2)) > 0:
            piece = piece[: blank + 1]
        start += len(piece)
        if piece.strip():
            yield piece


def _size(text: str) -> int:
    return len(text.encode())
