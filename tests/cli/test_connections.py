"""Clients that are slow or say nothing, on real sockets: each has a deadline, and none takes the place of another."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import pytest

from mm_gateway.api.app import create_app
from mm_gateway.api.pump import MAX_BUFFERED_EVENTS
from mm_gateway.catalog import Catalog
from mm_gateway.cli.connections import WaitingConnections
from mm_gateway.configuration.server_settings import LimitSettings
from mm_gateway.configuration.settings import Settings
from mm_gateway.core import ChoiceFinished, GenerationEvent, GenerationRequest, TextDelta, Usage
from tests.support.scripted_backend import ScriptedBackend
from tests.support.served import post, raw_reply, served, until

PATH = "/v1/chat/completions"
CHAT = json.dumps({"model": "scripted", "messages": [{"role": "user", "content": "Hi"}]}).encode()
STREAM = CHAT[:-1] + b',"stream":true}'
HEAD = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
ANSWER = [TextDelta(0, "a"), ChoiceFinished(0, "stop"), Usage(1, 1)]


@contextmanager
def gateway(backend: ScriptedBackend | None = None, *, max_requests: int = 2048, waiting: int = 1024, **deadlines: float) -> Iterator[int]:
    app = create_app(Settings(limits=LimitSettings(max_requests=max_requests)), Catalog({"scripted": backend or ScriptedBackend(ANSWER)}))
    with served(app, LimitSettings(max_waiting_connections=waiting), port=0, **deadlines) as port:
        yield port


@asynccontextmanager
async def connection(port: int, data: bytes = b"") -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        yield reader, writer
    finally:
        writer.close()


async def rest(reader: asyncio.StreamReader) -> bytes:
    """Everything until the server closes."""
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    except ConnectionResetError:
        return b""


async def chats(port: int) -> bool:
    return (await raw_reply(port, post(PATH, CHAT)))[0] == 200


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", None),
        (b"\r\n\r\n", b"headers took longer"),
        (b"POST /v1/chat", b"headers took longer"),
        (HEAD.encode(), b"headers took longer"),
        (f"{HEAD}content-length: 10\r\n\r\n".encode(), b"body took longer"),
        (f"{HEAD}content-length: 10\r\n\r\n{{".encode(), b"body took longer"),
        (f"{HEAD}transfer-encoding: chunked\r\n\r\n5\r\nab".encode(), b"body took longer"),
        (post(PATH, CHAT) + HEAD.encode(), b"headers took longer"),
    ],
)
async def test_what_does_not_arrive_in_time_is_told_so_and_disconnected(data: bytes, says: bytes | None) -> None:
    with gateway(head_timeout_s=0.3, body_timeout_s=0.3) as port:
        async with connection(port, data) as (reader, _):
            said = await rest(reader)
            assert said == b"" if says is None else (b"HTTP/1.1 408 " in said and says in said)
        assert await chats(port)


async def test_an_honest_upload_over_a_slow_line_passes() -> None:
    with gateway(body_timeout_s=0.3) as port:
        async with connection(port, f"{HEAD}connection: close\r\ncontent-length: {len(CHAT) + 20_000}\r\n\r\n".encode()) as (
            reader,
            writer,
        ):
            for _ in range(20):  # four times as long as the deadline, at 20 kB/s
                writer.write(b" " * 1000)
                await asyncio.sleep(0.06)
            writer.write(CHAT)
            assert (await rest(reader)).startswith(b"HTTP/1.1 200 ")


async def test_an_idle_connection_is_closed_and_empty_lines_do_not_keep_it() -> None:
    with gateway(head_timeout_s=0.3, keep_alive_timeout_s=0.3) as port:
        async with connection(port, post(PATH, CHAT)) as (reader, _):
            assert (await rest(reader)).startswith(b"HTTP/1.1 200 ")
        async with connection(port, post(PATH, CHAT)) as (reader, writer):
            await reader.readuntil(b"}]")
            writer.write(b"\r\n")
            await rest(reader)


async def test_a_request_that_runs_long_is_no_idle_one() -> None:
    backend = ScriptedBackend([TextDelta(0, "a"), 0.8, *ANSWER])
    with gateway(backend, head_timeout_s=0.2, body_timeout_s=0.2, keep_alive_timeout_s=0.2, write_timeout_s=0.2) as port:
        async with connection(port, post(PATH, STREAM, "connection: close\r\n") + b"GET") as (reader, _):
            assert b"data: [DONE]" in await rest(reader)


async def test_half_a_body_takes_no_place_among_the_requests() -> None:
    with gateway(max_requests=4) as port:
        async with asyncio.TaskGroup() as group:
            done = asyncio.Event()

            async def half_a_body() -> None:
                async with connection(port, f"{HEAD}content-length: 10\r\n\r\n{{".encode()):
                    await done.wait()

            for _ in range(40):
                group.create_task(half_a_body())
            for _ in range(20):
                assert await chats(port)
            done.set()


async def test_connections_that_say_nothing_shut_nobody_out() -> None:
    with gateway(waiting=8) as port:
        connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(64)]
        for half in connections:
            half.sendall(b"POST /v1")
        assert await chats(port)
        for half in connections[:32]:
            half.settimeout(10)
            with suppress(ConnectionResetError):
                assert half.recv(1) == b""
        for half in connections:
            half.close()


async def test_those_who_never_end_large_bodies_leave_room_for_small_ones() -> None:
    app = create_app(Settings(), Catalog({"scripted": ScriptedBackend(ANSWER)}))
    with served(app, LimitSettings(max_held_bytes=200_000)) as port, socket.create_connection(("127.0.0.1", port)) as smaller:
        smaller.sendall(f"{HEAD}content-length: 90000\r\n\r\n".encode() + b" " * 40_000)
        smaller.setblocking(False)
        for _ in range(5):
            status, headers, body = await raw_reply(port, f"{HEAD}content-length: 999999\r\n\r\n".encode() + b" " * 300_000)
            assert (status, headers["retry-after"]) == (429, "1")
            assert json.loads(body)["error"]["code"] == "rate_limit_exceeded"
            assert await chats(port)
        with pytest.raises(BlockingIOError):  # it is open, and nothing was said
            smaller.recv(1)


class Listed:
    def __init__(self, waiting: WaitingConnections, address: str) -> None:
        self.waiting = waiting
        self.address = address
        self.open = True
        waiting.add(self, address)

    def give_up(self) -> None:
        self.open = False
        self.waiting.discard(self, self.address)


def test_a_flood_from_one_address_costs_that_address() -> None:
    waiting = WaitingConnections(10)
    quiet = [Listed(waiting, f"10.0.0.{number}") for number in range(4)]
    flood = [Listed(waiting, "10.9.9.9") for _ in range(100)]
    assert all(connection.open for connection in quiet)
    assert [connection.open for connection in flood] == [False] * 94 + [True] * 6
    networks = [Listed(waiting, f"2001:db8::{number:x}") for number in range(100)]  # one client's network
    assert all(connection.open for connection in quiet)
    assert sum(connection.open for connection in [*flood, *networks]) == 6


class Endless(ScriptedBackend):
    """Counts what is taken of a stream without end."""

    def __init__(self) -> None:
        super().__init__([])
        self.given = 0
        self.ended = False

    async def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        try:
            while True:
                self.given += 1
                yield TextDelta(0, "x" * 1000)
                await asyncio.sleep(0)
        finally:
            self.ended = True


async def test_a_reader_that_takes_nothing_holds_back_the_model_and_is_left_in_the_end() -> None:
    backend = Endless()
    with gateway(backend, write_timeout_s=1.5) as port, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", port))
        client.sendall(post(PATH, STREAM))
        last = -1
        while last != backend.given or not last:  # until it stands still
            last = backend.given
            await asyncio.sleep(0.2)
        # The kernel's buffers take some megabytes, the rest is held back.
        assert backend.given < 10_000 + MAX_BUFFERED_EVENTS
        assert not backend.ended
        await until(lambda: backend.ended)
