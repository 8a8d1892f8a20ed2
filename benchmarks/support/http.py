"""A lean HTTP/1.1 client for generating load: keep-alive connections, bodies in pieces as they arrive; knows nothing of JSON or models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

READ_BYTES = 256 * 1024


class Dechunker:
    """Undoes `Transfer-Encoding: chunked`, whatever the pieces that the bytes arrive in.

    Attributes:
        done: the last chunk, and the blank line after it, has been seen.
    """

    def __init__(self) -> None:
        self._buffer = b""
        self.done = False

    def feed(self, data: bytes) -> bytes:
        """The payload that `data` completes; may be empty. Chunks are passed on whole. Raises ValueError for a broken chunk size."""
        buffer = self._buffer + data if self._buffer else data
        position = 0
        payload: list[bytes] = []
        while (line_end := buffer.find(b"\r\n", position)) >= 0:
            size = int(buffer[position:line_end].partition(b";")[0], 16)
            end = line_end + 2 + size
            if len(buffer) < end + 2:
                break
            position = end + 2
            if size == 0:
                self.done = True
                break
            payload.append(buffer[line_end + 2 : end])
        self._buffer = buffer[position:]
        return b"".join(payload)


class EventSplitter:
    """Cuts a stream of bytes into the data of server-sent events of one line each, which is how OpenAI's API sends them."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The data of each event line that `data` completes; comments and other fields are dropped."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line[5:].strip() for line in lines if line.startswith(b"data:")]


class Reply:
    """One answer; its body must be read to the end before the connection is used again."""

    def __init__(self, status: int, headers: dict[str, str], reader: asyncio.StreamReader) -> None:
        self.status = status
        self.headers = headers
        self._reader = reader

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises ConnectionError where it ends too early."""
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            dechunker = Dechunker()
            while not dechunker.done:
                if payload := dechunker.feed(await self._read(READ_BYTES)):
                    yield payload
            return
        length = self.headers.get("content-length")
        left = int(length) if length is not None else None
        while left is None or left > 0:
            try:
                data = await self._read(READ_BYTES if left is None else left)
            except ConnectionError:
                if left is None:  # without a length, the end of the connection is the end of the body
                    return
                raise
            left = None if left is None else left - len(data)
            yield data

    async def read(self) -> bytes:
        """The whole body."""
        return b"".join([piece async for piece in self.pieces()])

    async def _read(self, limit: int) -> bytes:
        data = await self._reader.read(limit)
        if not data:
            raise ConnectionError("the server closed the connection in the middle of a reply")
        return data


class Connection:
    """One connection to `base_url`, opened on first use and again after the server closed it.

    Args:
        base_url: `http://host:port/prefix`; paths of requests follow the prefix.
        headers: sent with every request.
    """

    def __init__(self, base_url: str, headers: dict[str, str] | None = None) -> None:
        url = urlsplit(base_url)
        self._tls = url.scheme == "https"
        self._host = url.hostname or "127.0.0.1"
        self._port = url.port or (443 if self._tls else 80)
        self._prefix = url.path.rstrip("/")
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in ({"Host": url.netloc} | (headers or {})).items())
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: bytes) -> Reply:
        """Send JSON and return once the head of the answer is here."""
        head = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        return await self._exchange(f"POST {self._prefix}{path} HTTP/1.1\r\n{self._headers}{head}".encode() + body)

    async def get(self, path: str) -> Reply:
        return await self._exchange(f"GET {self._prefix}{path} HTTP/1.1\r\n{self._headers}\r\n".encode())

    def close(self) -> None:
        """Hang up, also in the middle of a reply."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    def abort(self) -> None:
        """Hang up at once: what is not sent yet is dropped, and what the server still sends meets a reset."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def _exchange(self, request: bytes) -> Reply:
        reused = self._streams is not None
        try:
            reader, head = await self._send(request)
        except (ConnectionError, asyncio.IncompleteReadError):
            if not reused:
                raise
            self.close()  # the server had closed a connection that it kept alive
            reader, head = await self._send(request)
        status_line, *lines = head.rstrip("\r\n").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if headers.get("connection", "").lower() == "close":
            self._streams = None
        return Reply(int(status_line.split(" ", 2)[1]), headers, reader)

    async def _send(self, request: bytes) -> tuple[asyncio.StreamReader, str]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port, ssl=self._tls or None, limit=READ_BYTES)
        reader, writer = self._streams
        writer.write(request)
        return reader, (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
