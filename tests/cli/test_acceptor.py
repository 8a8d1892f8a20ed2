"""How many connections a turn of the event loop takes, on the loop that the server runs on."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Coroutine
from typing import Any

import pytest
import uvloop

from mm_gateway.cli import acceptor
from mm_gateway.cli.acceptor import PER_TURN, Acceptor


class Poor(socket.socket):
    """A listener of a process that has all the files open that it may have, for the first few tries."""

    tries_left = 3

    def accept(self) -> tuple[socket.socket, Any]:
        if self.tries_left:
            self.tries_left -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


class Served(asyncio.Protocol):
    """Counts connections, says one word on each, and hangs up."""

    count = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        type(self).count += 1
        transport.write(b"welcome")
        transport.close()


def listening(listener: socket.socket) -> socket.socket:
    listener.bind(("127.0.0.1", 0))
    listener.setblocking(False)
    return listener


def on_uvloop(test: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test)


def test_a_crowd_is_taken_in_a_few_turns_and_not_in_one() -> None:
    async def test() -> None:
        class Protocol(Served): ...

        taker = Acceptor(listener := listening(socket.socket()), Protocol, 2048)
        clients = [socket.create_connection(listener.getsockname()) for _ in range(3 * PER_TURN)]
        most = turns = 0
        while Protocol.count < len(clients):
            before = Protocol.count
            await asyncio.sleep(0)
            most = max(most, Protocol.count - before)
            turns += 1
        assert most <= PER_TURN
        assert turns < PER_TURN
        taker.close()
        await asyncio.sleep(0.01)  # the loop writes what it was given
        for client in clients:
            client.settimeout(10)
            assert client.recv(10) == b"welcome"  # those that were taken are served on
            client.close()
        await asyncio.sleep(0.01)

    on_uvloop(test())


def test_nothing_is_taken_after_the_end() -> None:
    async def test() -> None:
        taker = Acceptor(listener := listening(socket.socket()), Served, 2048)
        address = listener.getsockname()
        taker.close()
        taker.close()
        await taker.wait_closed()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)

    on_uvloop(test())


def test_where_no_file_can_be_opened_it_tries_again_later(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(acceptor, "PAUSE_S", 0.01)

    async def test() -> None:
        listener = Poor()
        taker = Acceptor(listening(listener), Served, 2048)
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        assert await reader.readexactly(7) == b"welcome"
        writer.close()
        taker.close()

    on_uvloop(test())
    assert [record.message for record in caplog.records] == ["no new connections for 0.01 s: [Errno 24] Too many open files"] * 3
