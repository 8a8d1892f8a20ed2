"""Reads server-sent events off a byte stream; knows the lines, not what is in them (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from __future__ import annotations

from collections.abc import AsyncIterator

MAX_EVENT_BYTES = 16 * 2**20


class EventStreamError(ValueError):
    """The stream holds an event that is too large."""


async def data_lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The `data` of each event, several lines of it joined; comments and other fields are left out.

    The work is linear in the bytes, however small the pieces are.

    Raises:
        EventStreamError: an event exceeds MAX_EVENT_BYTES.
    """
    event = _Event()
    async for line in _lines(pieces):
        if line.startswith(b"data:"):
            event.add(line[5:].removeprefix(b" "))
        elif line.startswith(b"error:"):
            # No field of the standard, but how llama.cpp's server says that a stream failed.
            event.add(line[6:].removeprefix(b" "))
        elif not line and event.lines:
            yield event.data()
            event = _Event()
    if event.lines:  # servers that close without the last line end
        yield event.data()


class _Event:
    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self._size = 0

    def add(self, line: bytes) -> None:
        self._size += len(line)
        if self._size > MAX_EVENT_BYTES:
            raise _too_large()
        self.lines.append(line)

    def data(self) -> bytes:
        return b"\n".join(self.lines)


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Lines without their ends; the last one may have had none."""
    # Joined once per line, and never searched again: a large event may come in many thousand pieces.
    begun = bytearray()
    async for piece in pieces:
        first, *others = piece.split(b"\n")
        begun += first
        if others:
            # A lone CR as a line end is allowed by the standard and sent by nobody.
            yield bytes(begun).removesuffix(b"\r")
            for line in others[:-1]:
                yield line.removesuffix(b"\r")
            begun = bytearray(others[-1])
        if len(begun) > MAX_EVENT_BYTES:
            raise _too_large()
    if begun:
        yield bytes(begun).strip()


def _too_large() -> EventStreamError:
    return EventStreamError(f"an event of more than {MAX_EVENT_BYTES} bytes")
