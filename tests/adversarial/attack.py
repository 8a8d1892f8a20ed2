"""What an attack is, and what it needs to reach the gateway: a name, something to send, and what may be answered."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec

CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"
ADMIN_KEY = "of-the-operator"

OK = frozenset({200})
REFUSED = frozenset({400})
SERVED_OR_REFUSED = frozenset({200, 400, 413, 429})
"""Where it is ours to choose, and any clear answer will do."""

Json = Any
Send = Callable[["Target"], Awaitable[Collection[int]]]


@dataclass(frozen=True)
class Target:
    """A gateway under attack.

    Attributes:
        client: has its address and its admin key; waits as long as the attack may take. site: address of a web site that misbehaves.
        storage: the folder of its SQLite files.
    """

    port: int
    client: httpx.AsyncClient
    site: str
    storage: Path

    async def post(self, path: str, body: Json) -> int:
        """The status. body: JSON, or bytes as they are."""
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        return (await self.client.post(path, content=content, headers={"content-type": "application/json"})).status_code

    async def posts(self, path: str, bodies: Collection[Json]) -> list[int]:
        """All at a time."""
        return await asyncio.gather(*(self.post(path, body) for body in bodies))

    async def hang_up(self, path: str, body: Json, *, after_bytes: int = 0, after_s: float = 0.0) -> None:
        """Send a request; reset its connection after so many bytes of the reply, or so many seconds without any."""
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        reader, writer = await self.connect()
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        writer.write(head.encode() + content)
        try:
            if after_bytes:
                await reader.readexactly(after_bytes)
            else:
                await writer.drain()
                await asyncio.sleep(after_s)
        except (OSError, asyncio.IncompleteReadError):
            pass  # it was refused first
        finally:
            writer.transport.abort()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def raw(self, data: bytes, *, timeout_s: float = 60.0) -> int:
        """The status that these bytes get; 0: the connection was closed without one."""
        reader, writer = await self.connect()
        try:
            async with asyncio.timeout(timeout_s):
                sending = asyncio.ensure_future(_drained(writer, data))
                head = await reader.readline()
                sending.cancel()
                return int(head.split()[1]) if head.startswith(b"HTTP/") else 0
        except ConnectionError:
            return 0
        finally:
            writer.transport.abort()

    async def admin(self, model: str, action: str) -> int:
        return (await self.client.post(f"/admin/models/{model}/{action}")).status_code

    def locked_storage(self) -> sqlite3.Connection:
        """Holds the lock of what the gateway stores until it is closed."""
        connection = sqlite3.connect(self.storage / "gateway.sqlite", isolation_level=None, timeout=5, check_same_thread=False)
        connection.execute("BEGIN EXCLUSIVE")
        return connection


async def _drained(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    with contextlib.suppress(ConnectionError):  # the reply is there first
        await writer.drain()


@dataclass(frozen=True)
class Attack:
    """One hostile input.

    Attributes:
        name: begins with its kind in the list of faults (H1 to H9, S1 to S11), or with the room that it is aimed at.
        send: returns the statuses that came back; none where nobody waits for a reply.
        answers: the statuses that are right. limit_s: beyond it, it hangs.
        quick: one of the few that run with every `make test`.
        pause_s: how long the stream of another client may pause meanwhile. memory_mib: how much the gateway may grow.
    """

    name: str
    send: Send
    answers: frozenset[int] = SERVED_OR_REFUSED
    limit_s: float = 60.0
    quick: bool = False
    pause_s: float = 5.0
    memory_mib: int = 768


def posting(
    name: str,
    body: Callable[[], Json],
    answers: frozenset[int] = SERVED_OR_REFUSED,
    *,
    path: str = CHAT,
    limit_s: float = 60.0,
    quick: bool = False,
    memory_mib: int = 768,
) -> Attack:
    """One request. body: made when it is sent, since some are large."""

    async def send(target: Target) -> list[int]:
        # Made on a thread, so that a large one does not delay what this process reads.
        content = await asyncio.to_thread(lambda: made if isinstance(made := body(), bytes) else msgspec.json.encode(made))
        return [await target.post(path, content)]

    return Attack(name, send, answers, limit_s, quick, memory_mib=memory_mib)


def chat(content: str = "Hello", model: str = "mock", **fields: Json) -> Json:
    return {"model": model, "messages": [{"role": "user", "content": content}], **fields}


def asking(content: str = "Hello", **fields: Json) -> Json:
    """A chat of the small model, a few tokens long unless it says otherwise."""
    return chat(content, **({"model": "tiny-chat", "max_tokens": 8} | fields))
