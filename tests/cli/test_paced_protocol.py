"""How much one turn of the event loop does of what clients send: the protocol over transports that the test writes to."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from mm_gateway.cli.paced_protocol import PIECE_BYTES, PacedProtocol
from mm_gateway.cli.turns import ProtocolTurns, Turns

HEAD = b"POST / HTTP/1.1\r\nhost: x\r\n"


class Application:
    """Reads the body of each request and answers 200."""

    def __init__(self) -> None:
        self.begun = 0
        self.bodies: list[bytes] = []
        self.left = 0

    async def __call__(self, scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        self.begun += 1
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.left += 1
                return
            body += message["body"]
            if not message["more_body"]:
                break
        self.bodies.append(body)
        await receive()  # until the client hangs up
        self.left += 1


class PatientApplication(Application):
    """Answers once `answers` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = asyncio.Event()

    async def __call__(self, scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        self.begun += 1
        await self.answers.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


class Wire(asyncio.Transport):
    """What a client is to its protocol."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = True
        self.closing = False
        self.written = b""

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def write(self, data: Any) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True


class Server:
    """Protocols of one application and their shared turns."""

    def __init__(self, app: Application | None = None, /, **turns: int) -> None:
        self.app = app or Application()
        self.turns = ProtocolTurns(**{name: Turns(per_turn) for name, per_turn in turns.items()})
        self._config = uvicorn.Config(self.app, ws="none", lifespan="off", log_config=None)
        self._state = ServerState()

    def connect(self) -> tuple[PacedProtocol, Wire]:
        protocol = PacedProtocol(turns=self.turns, max_body_bytes=2**20, config=self._config, server_state=self._state, app_state={})
        wire = Wire()
        protocol.connection_made(wire)
        return protocol, wire


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_request_that_is_not_whole_does_not_reach_the_application() -> None:
    server = Server()
    protocol, _ = server.connect()
    protocol.data_received(HEAD + b"content-length: 4\r\n\r\nab")
    other, other_wire = server.connect()
    other.data_received(HEAD + b"content-length: 4\r\n\r\nab")
    await turns(10)
    assert server.app.begun == 0
    other_wire.close()
    other.connection_lost(None)
    protocol.data_received(b"cd")
    await turns(10)
    assert (server.app.begun, server.app.bodies) == (1, [b"abcd"])


async def test_of_a_large_body_the_application_gets_the_beginning_since_it_may_refuse_it() -> None:
    server = Server()
    protocol, _ = server.connect()
    protocol.data_received(HEAD + b"content-length: 1000000\r\n\r\n" + b"x" * 60_000)
    await turns(40)
    assert server.app.begun == 0
    protocol.data_received(b"x" * 10_000)
    await turns(40)
    assert server.app.begun == 1


async def test_a_large_body_is_parsed_in_pieces_with_turns_of_others_between() -> None:
    server = Server(reads=2)
    body = b"".join(b"1\r\n%c\r\n" % (65 + index % 26) for index in range(10_000))
    protocol, wire = server.connect()
    protocol.data_received(HEAD + b"transfer-encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n")
    assert not wire.reading
    for _ in range(len(body) // (2 * PIECE_BYTES)):
        before = len(protocol.cycle.body) if protocol.cycle is not None else 0
        await turns(1)
        assert 0 < len(protocol.cycle.body) - before <= 2 * PIECE_BYTES // 6 + 1
        assert server.app.begun == 0
    await turns(10)
    assert wire.reading
    assert server.app.bodies == [bytes(65 + index % 26 for index in range(10_000))]


async def test_what_arrives_while_pieces_wait_comes_after_them() -> None:
    server = Server(reads=1)
    protocol, _ = server.connect()
    protocol.data_received(HEAD + b"content-length: 20000\r\n\r\n" + b"a" * 15_000)
    protocol.data_received(b"b" * 5_000)
    await turns(20)
    assert server.app.bodies == [b"a" * 15_000 + b"b" * 5_000]


async def test_requests_that_arrive_at_one_moment_begin_a_few_a_turn_and_lookups_do_not_wait_for_them() -> None:
    server = Server(requests=3)
    for _ in range(30):
        server.connect()[0].data_received(HEAD + b"content-length: 2\r\n\r\n{}")
    server.connect()[0].data_received(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
    begun = [0]
    for _ in range(12):
        await turns(1)
        begun.append(server.app.begun)
    assert [later - earlier for earlier, later in itertools.pairwise(begun)] == [4] + [3] * 9 + [0, 0]  # first the lookup among them


async def test_clients_that_hang_up_at_one_moment_are_told_to_the_application_a_few_a_turn() -> None:
    server = Server(ends=2, requests=100)
    connections = [server.connect() for _ in range(10)]
    for protocol, _ in connections:
        protocol.data_received(HEAD + b"content-length: 2\r\n\r\n{}")
    await turns(5)
    assert len(server.app.bodies) == 10
    for protocol, wire in connections:
        wire.close()
        protocol.connection_lost(ConnectionResetError())
    left = [0]
    for _ in range(8):
        await turns(1)
        left.append(server.app.left)
    assert max(later - earlier for earlier, later in itertools.pairwise(left)) <= 2
    assert left[-1] == 10


async def test_a_client_that_left_before_its_turn_is_not_answered() -> None:
    server = Server(requests=1)
    connections = [server.connect() for _ in range(3)]
    for protocol, _ in connections:
        protocol.data_received(HEAD + b"content-length: 2\r\n\r\n{}")
    protocol, wire = connections[2]
    wire.close()
    protocol.connection_lost(None)
    await turns(10)
    assert server.app.begun == 2


async def test_when_the_server_ends_the_application_has_what_is_not_whole_and_can_end_it() -> None:
    server = Server()
    protocol, _ = server.connect()
    protocol.data_received(HEAD + b"content-length: 4\r\n\r\nab")
    protocol.shutdown()
    await turns(3)
    assert server.app.begun == 1
    protocol.data_received(b"cd")
    await turns(3)
    assert server.app.bodies == [b"abcd"]


@pytest.mark.parametrize(("length", "told"), [(100, b"HTTP/1.1 100 Continue\r\n\r\n"), (2**21, b"")])
async def test_who_asks_before_sending_is_told_to_go_on_unless_it_is_too_much(length: int, told: bytes) -> None:
    server = Server()
    protocol, wire = server.connect()
    protocol.data_received(HEAD + b"content-length: %d\r\nexpect: 100-continue\r\n\r\n" % length)
    assert wire.written == told
    await turns(3)
    assert server.app.begun == (0 if told else 1)


LOOKUP = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


async def test_of_requests_that_are_sent_ahead_only_a_piece_waits_parsed_and_all_are_answered() -> None:
    app = PatientApplication()
    protocol, wire = Server(app).connect()
    protocol.data_received(LOOKUP * 1000)
    await turns(100)
    assert app.begun == 1
    assert len(protocol.pipeline) < PIECE_BYTES / len(LOOKUP)
    assert not wire.reading
    app.answers.set()
    for _ in range(10_000):
        await turns(1)
    assert wire.written.count(b"HTTP/1.1 200 OK") == app.begun == 1000
    assert wire.reading


async def test_whoever_hangs_up_with_requests_sent_ahead_is_missed_by_the_one_that_runs() -> None:
    server = Server()
    protocol, wire = server.connect()
    protocol.data_received(LOOKUP * 3)
    await turns(5)
    wire.close()
    protocol.connection_lost(None)
    await turns(5)
    assert (server.app.begun, server.app.left) == (1, 1)
