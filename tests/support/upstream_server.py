"""A scripted upstream server on loopback, and a remote backend that asks it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from mm_gateway.backends.upstream.backend import RemoteBackend
from mm_gateway.configuration.settings import ModelConfig

Answer = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]


class Upstream:
    """What arrived at a scripted server."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.left = asyncio.Event()


@asynccontextmanager
async def upstream(
    answer: bytes | Callable[[asyncio.StreamWriter], Awaitable[None]], **config: Any
) -> AsyncIterator[tuple[RemoteBackend, Upstream]]:
    """A server that answers every request with the same bytes, and a backend that asks it."""
    seen = Upstream()
    writers: list[asyncio.StreamWriter] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        seen.requests.append((first, headers, body))
        if isinstance(answer, bytes):
            writer.write(answer)
            await writer.drain()
        else:
            await answer(writer)
            await reader.read()  # until the other side goes
            seen.left.set()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = ModelConfig(model_name="their-name", backend="remote", base_url=f"http://127.0.0.1:{port}/v1", **config)
    backend = RemoteBackend("far", settings, created=0)
    try:
        yield backend, seen
    finally:
        await backend.close()
        server.close()
        for writer in writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)
