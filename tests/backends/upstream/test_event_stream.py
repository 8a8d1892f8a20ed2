"""Server-sent events come out whole however small their pieces are; the work is linear in the bytes, and bounded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

import pytest

from mm_gateway.backends.upstream.event_stream import MAX_EVENT_BYTES, EventStreamError, data_lines

STREAM = b": hello\r\ndata: one\r\n\r\nevent: x\ndata: two\ndata:three\n\ndata: last"


async def pieces_of(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
async def test_events_come_out_whole_whatever_the_pieces(size: int) -> None:
    pieces = [STREAM[at : at + size] for at in range(0, len(STREAM), size)]
    assert [data async for data in data_lines(pieces_of(pieces))] == [b"one", b"two\nthree", b"last"]


async def test_a_large_event_in_small_pieces_is_not_copied_with_each_of_them() -> None:
    copied = 0

    class Piece(bytes):
        def __radd__(self, before: bytes) -> bytes:
            nonlocal copied
            copied += len(before)
            return bytes(before) + bytes(self)

    pieces = [Piece(b"data: "), *[Piece(b"x" * 100)] * 1000, Piece(b"\n\n")]
    (event,) = [data async for data in data_lines(pieces_of(pieces))]
    assert len(event) == 100_000
    assert copied <= 2 * len(event)


@pytest.mark.parametrize("line", [b"x" * 2**16, b"data: " + b"x" * 2**16 + b"\n"])
async def test_an_event_without_an_end_is_refused(line: bytes) -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += len(line)
            yield line

    with pytest.raises(EventStreamError, match="more than"):
        _ = [data async for data in data_lines(endless())]
    assert taken <= 2 * MAX_EVENT_BYTES
