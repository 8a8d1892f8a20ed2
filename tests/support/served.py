"""The application on a real socket, run as the command line runs it, and requests that no client would send."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import uvicorn

from mm_gateway.api.app import GatewayApp
from mm_gateway.cli.gateway_server import uvicorn_config
from mm_gateway.configuration.server_settings import LimitSettings, ServerSettings


@contextmanager
def served(
    app: GatewayApp,
    limits: LimitSettings = LimitSettings(),  # noqa: B008 - it is frozen
    /,
    *,
    port: int = 0,
    **settings: float,
) -> Iterator[int]:
    """A port that answers. port: 0: any free one. settings: of `server:`."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))
        listener.listen()
        config = msgspec.structs.replace(ServerSettings(log_level="error", shutdown_grace_s=1), **settings)
        server = uvicorn.Server(uvicorn_config(app, config, limits))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def post(path: str, body: bytes, headers: str = "") -> bytes:
    """A request, byte by byte."""
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{headers}content-length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def raw_reply(port: int, data: bytes, timeout_s: float = 10.0) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of what is answered to these bytes; the server may answer before it has read all of them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        async with asyncio.timeout(timeout_s):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            if data.startswith(b"HEAD ") or " 204 " in status:
                return int(status.split()[1]), headers, b""
            if "content-length" in headers:
                body = await reader.readexactly(int(headers["content-length"]))
            else:
                body = await reader.readuntil(b"0\r\n\r\n")
    finally:
        writer.close()
    return int(status.split()[1]), headers, body


async def until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
