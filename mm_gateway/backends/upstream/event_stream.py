"""Reads server-sent events off a byte stream; knows the lines, not what is in them (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from __future__ import annotations

from collections.abc import AsyncIterator

MAX_EVENT_BYTES = 16 * 2**20


class EventStreamError(ValueError):
    """The stream holds an event that is too large."""


async def data_lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The `data` of each event, several lines of it joined; comments and other fields are left out.

    Raises:
        EventStreamError: an event exceeds MAX_EVENT_BYTES.
    """
    rest = b""
    data: list[bytes] = []
    size = 0
    async for piece in pieces:
        # A lone CR as a line end is allowed by the standard and sent by nobody; CRLF is handled by the strip below.
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
                size += len(line)
            elif not line and data:
                yield b"\n".join(data)
                data, size = [], 0
        if size + len(rest) > MAX_EVENT_BYTES:
            raise EventStreamError(f"an event of more than {MAX_EVENT_BYTES} bytes")
    if rest.startswith(b"data:"):  # servers that close without the last line end
        data.append(rest[5:].strip())
    if data:
        yield b"\n".join(data)
