"""Cuts sources to what matters for a question, until they fit a model's context; knows of tokens only what a function counts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from mm_gateway.search.full_text import rank
from mm_gateway.search.passages import split_passages
from mm_gateway.work_pools import DOCUMENTS

PIECE_BYTES = 480
MAX_SOURCE_CHARACTERS = 200_000
MAX_PIECES = 16
"""Of one source that are considered."""
MIN_SOURCE_TOKENS = 96
"""Where sources would get less each, the last ones are left out."""

Count = Callable[[Sequence[str]], Awaitable[Sequence[int]]]
"""Tokens of each text."""


class Source(NamedTuple):
    """Something to read."""

    title: str
    text: str


class _Piece(NamedTuple):
    source: int
    position: int
    text: str


async def fit(question: str, sources: Sequence[Source], count: Count, *, room_tokens: int, max_source_tokens: int) -> list[str]:
    """What is left of each source, in their order; fewer than there were where the room is small.

    Args:
        count: by the tokenizer of the model that will read it. room_tokens: for all together, their titles included.
        max_source_tokens: of one source, its title included.
    """
    kept = sources[: max(1, min(len(sources), room_tokens // MIN_SOURCE_TOKENS))]
    if room_tokens <= 0 or not kept:
        return []
    titles = list(await count([f"[10] {source.title}\n\n\n" for source in kept]))
    share = min(room_tokens // len(kept), max_source_tokens)
    # No tokenizer makes more than one token of a byte, so that a piece of so many bytes fits in any case.
    piece_bytes = max(16, min(PIECE_BYTES, share - max(titles)))
    pieces = await DOCUMENTS.run(_best_pieces, question, kept, piece_bytes)
    sizes = await count([f"{piece.text}\n\n" for piece in pieces])
    taken = _take(pieces, sizes, titles, room_tokens, max_source_tokens)
    texts: list[str] = []
    for source in range(len(kept)):
        own = sorted((piece for piece in taken if piece.source == source), key=lambda piece: piece.position)
        texts.append("\n\n".join(piece.text for piece in own))
    return texts


def _best_pieces(question: str, sources: Sequence[Source], piece_bytes: int) -> list[_Piece]:
    """Pieces of all sources, those first that matter most; of a source in which nothing matters, its beginning."""
    pieces = [
        _Piece(number, position, text)
        for number, source in enumerate(sources)
        for position, text in enumerate(split_passages(source.text[:MAX_SOURCE_CHARACTERS], piece_bytes))
    ]
    ranked = rank(question, [(sources[piece.source].title, piece.text) for piece in pieces])
    order = [*ranked, *sorted(set(range(len(pieces))) - set(ranked))]
    counts = [0] * len(sources)
    best: list[_Piece] = []
    for index in order:
        piece = pieces[index]
        counts[piece.source] += 1
        if counts[piece.source] <= MAX_PIECES:
            best.append(piece)
    return best


def _take(pieces: Sequence[_Piece], sizes: Sequence[int], used: list[int], room: int, limit: int) -> list[_Piece]:
    """First to every source its even share, then what is left to the best pieces. used: tokens of each source so far."""
    taken: list[_Piece] = []
    for bound in (min(limit, room // len(used)), limit):
        for piece, size in zip(pieces, sizes, strict=True):
            if piece not in taken and used[piece.source] + size <= bound and sum(used) + size <= room:
                used[piece.source] += size
                taken.append(piece)
    return taken
