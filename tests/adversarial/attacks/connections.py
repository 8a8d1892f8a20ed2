"""HTTP as no client should speak it: half requests, slow readers, floods, framing."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import Awaitable, Callable

import msgspec

from tests.adversarial.attack import CHAT, OK, SERVED_OR_REFUSED, Attack, Target, chat

JSON_HEAD = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
HELLO = msgspec.json.encode(chat("!mock tokens=2"))
_BOMB = gzip.compress(b" " * 20_000_000, 9)
ANY = frozenset(range(200, 500)) | {0, 501, 505}
"""Any status but ours to blame, or a closed connection: this is no HTTP, and what matters is that the others are served."""


def framed(name: str, data: Callable[[], bytes], answers: frozenset[int] = ANY, *, quick: bool = False) -> Attack:
    async def send(target: Target) -> list[int]:
        return [await target.raw(data())]

    return Attack(f"HTTP: {name}", send, answers, quick=quick)


def _with_body(headers: str, body: bytes) -> bytes:
    return f"{JSON_HEAD}{headers}\r\n".encode() + body


async def _open(target: Target, count: int, data: bytes) -> list[asyncio.StreamWriter]:
    """So many connections that sent this, as far as the gateway takes them."""
    writers = []
    for start in range(0, count, 100):
        opened = await asyncio.gather(*(target.connect() for _ in range(min(100, count - start))), return_exceptions=True)
        for one in opened:
            if not isinstance(one, BaseException):
                one[1].write(data)
                writers.append(one[1])
    return writers


def _abort(writers: list[asyncio.StreamWriter]) -> None:
    for writer in writers:
        writer.transport.abort()


async def _half_bodies(target: Target) -> list[int]:
    writers = await _open(target, 2048, _with_body("content-length: 100\r\n", b"{"))
    try:
        return [await target.post(CHAT, HELLO) for _ in range(5)]
    finally:
        _abort(writers)


async def _half_heads(target: Target) -> list[int]:
    writers = await _open(target, 5120, b"POST /v1/chat/completions HT")
    try:
        return [await target.raw(_with_body(f"content-length: {len(HELLO)}\r\n", HELLO)) for _ in range(5)]
    finally:
        _abort(writers)


async def _silent(target: Target) -> list[int]:
    writers = await _open(target, 3000, b"")
    try:
        return [await target.raw(_with_body(f"content-length: {len(HELLO)}\r\n", HELLO)) for _ in range(5)]
    finally:
        _abort(writers)


async def _dribbled(target: Target) -> list[int]:
    """A byte at a time, 200 clients."""
    writers = await _open(target, 200, JSON_HEAD.encode())
    try:
        for _ in range(100):
            for writer in writers:
                writer.write(b"x")
            await asyncio.sleep(0.02)
        return [await target.post(CHAT, HELLO)]
    finally:
        _abort(writers)


async def _slow_readers(target: Target) -> list[int]:
    """Twenty who read a byte now and then of long streams."""
    body = msgspec.json.encode(chat("!mock tokens=30000", stream=True, logprobs=True, top_logprobs=20, max_tokens=30_000))
    connections = await asyncio.gather(*(target.connect() for _ in range(20)))
    statuses: list[int] = []
    try:
        for reader, writer in connections:
            reader._transport.pause_reading()  # type: ignore[attr-defined]  # asyncio would read ahead of us
            writer.write(_with_body(f"content-length: {len(body)}\r\n", body))
        for _ in range(20):
            await asyncio.sleep(0.25)
            statuses = [await target.post(CHAT, HELLO)]
        return statuses
    finally:
        _abort([writer for _, writer in connections])


async def _unread_replies(target: Target) -> list[int]:
    """Whole replies of some MB that nobody reads."""
    body = msgspec.json.encode({"model": "tiny-chat", "prompt": "word " * 52_000, "return_token_strs": True})
    head = f"POST /tokenize HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    connections = await asyncio.gather(*(target.connect() for _ in range(20)))
    try:
        for reader, writer in connections:
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(head + body)
        await asyncio.sleep(3)
        return [await target.post(CHAT, HELLO)]
    finally:
        _abort([writer for _, writer in connections])


async def _pipelined(target: Target) -> list[int]:
    """5,000 requests in one go, whose replies nobody reads until they are all sent."""
    reader, writer = await target.connect()
    try:
        writer.write(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n" * 5000)
        return [int((await reader.readline()).split()[1])]
    finally:
        writer.transport.abort()


async def _pipelined_chats(target: Target) -> list[int]:
    reader, writer = await target.connect()
    try:
        writer.write(_with_body(f"content-length: {len(HELLO)}\r\n", HELLO) * 2000)
        return [int((await reader.readline()).split()[1])]
    finally:
        writer.transport.abort()


async def _resets(target: Target) -> list[int]:
    """1,000 who connect and reset, in every state of a request."""
    pieces = [
        b"",
        b"G",
        b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n",
        _with_body("content-length: 9\r\n", b"{"),
        _with_body(f"content-length: {len(HELLO)}\r\n", HELLO),
    ]
    for _ in range(20):
        writers: list[asyncio.StreamWriter] = []
        for piece in pieces:
            writers += await _open(target, 10, piece)
        _abort(writers)
    return [await target.post(CHAT, HELLO)]


async def _half_closed(target: Target) -> list[int]:
    """A client that ends its side after its request still gets the reply."""
    reader, writer = await target.connect()
    try:
        writer.write(_with_body(f"content-length: {len(HELLO)}\r\nconnection: close\r\n", HELLO))
        writer.write_eof()
        head = await reader.readline()
        return [int(head.split()[1]) if head else 0]
    finally:
        writer.transport.abort()


async def _small_chunks(target: Target) -> list[int]:
    """A body of 300,000 chunks of one byte."""
    body = b"".join(b"1\r\n%c\r\n" % byte for byte in HELLO + b" " * 300_000) + b"0\r\n\r\n"
    return [await target.raw(_with_body("transfer-encoding: chunked\r\n", body))]


async def _many_streams(target: Target) -> list[int]:
    """500 streams at a time, all read."""
    return await target.posts(CHAT, [chat("!mock tokens=50 delay=0.05", stream=True)] * 500)


async def _many_new_connections(target: Target) -> list[int]:
    async def one() -> int:
        with contextlib.suppress(OSError):
            return await target.raw(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        return 0

    statuses: list[int] = []
    for _ in range(10):
        statuses += await asyncio.gather(*(one() for _ in range(200)))
    return statuses


def _attack(
    name: str, send: Callable[[Target], Awaitable[list[int]]], answers: frozenset[int] = OK, *, quick: bool = False, limit_s: float = 90
) -> Attack:
    return Attack(name, send, answers, limit_s, quick)


CONNECTIONS = (
    _attack("S7 2,048 bodies of one byte", _half_bodies),
    _attack("S7 5,120 half heads", _half_heads, quick=True),
    _attack("S7 3,000 that say nothing", _silent),
    _attack("S7 200 heads, a byte at a time", _dribbled),
    _attack("S8 20 who hardly read long streams", _slow_readers),
    _attack("S8 20 who do not read large replies", _unread_replies),
    _attack("HTTP: 5,000 requests in one go", _pipelined, quick=True),
    _attack("HTTP: 2,000 chats in one go", _pipelined_chats),
    _attack("HTTP: 1,000 resets", _resets),
    _attack("HTTP: half closed", _half_closed, OK | {0}),
    _attack("HTTP: 300,000 chunks of one byte", _small_chunks, SERVED_OR_REFUSED, quick=True),
    _attack("HTTP: 500 streams at a time", _many_streams, OK | {429}),
    _attack("HTTP: 2,000 connections, 200 at a time", _many_new_connections, OK),
    framed("a head of 10 MB", lambda: b"GET /health HTTP/1.1\r\nx: " + b"y" * 10_000_000, quick=True),
    framed("100,000 headers", lambda: b"GET /health HTTP/1.1\r\n" + b"a: b\r\n" * 100_000 + b"\r\n"),
    framed("a path of 1 MB", lambda: b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n"),
    framed("a query of 50 kB", lambda: b"GET /v1/models?" + b"a=b&" * 12_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n"),
    framed("a path of 20,000 segments", lambda: b"GET " + b"/a" * 20_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n"),
    framed("a path of escapes that are none", lambda: b"GET /v1/models/%ff%00%zz%2e%2e%2f HTTP/1.1\r\nhost: x\r\n\r\n"),
    framed("no HTTP: the hello of TLS", lambda: bytes.fromhex("16030100f8010000f40303") + b"\x00" * 200),
    framed("no HTTP: the preface of HTTP/2", lambda: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    framed("no HTTP: HTTP/0.9", lambda: b"GET /health\r\n\r\n"),
    framed("no HTTP: HTTP/9.9", lambda: b"GET /health HTTP/9.9\r\nhost: x\r\n\r\n"),
    framed("no HTTP: 1 MB of NUL", lambda: b"\x00" * 1_000_000),
    framed("two lengths", lambda: _with_body("content-length: 5\r\ncontent-length: 900\r\n", b"{}   ")),
    framed("length and chunks", lambda: _with_body("content-length: 5\r\ntransfer-encoding: chunked\r\n", b"0\r\n\r\n")),
    framed("a negative length", lambda: _with_body("content-length: -1\r\n", b"{}")),
    framed("a length of 1e30", lambda: _with_body("content-length: " + "9" * 30 + "\r\n", b"{}")),
    framed("a chunk of 1e15 bytes", lambda: _with_body("transfer-encoding: chunked\r\n", b"FFFFFFFFFFFFF\r\n{}")),
    framed(
        "a chunk's extension of 1 MB",
        lambda: _with_body("transfer-encoding: chunked\r\n", b"1;" + b"x" * 1_000_000 + b"\r\n{\r\n0\r\n\r\n"),
    ),
    framed("trailers of 1 MB", lambda: _with_body("transfer-encoding: chunked\r\n", b"2\r\n{}\r\n0\r\n" + b"a: b\r\n" * 150_000 + b"\r\n")),
    framed("a compressed body that grows", lambda: _with_body(f"content-encoding: gzip\r\ncontent-length: {len(_BOMB)}\r\n", _BOMB)),
    framed(
        "an upgrade to websockets",
        lambda: (
            b"GET /v1/chat/completions HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
        ),
    ),
    framed("CONNECT", lambda: b"CONNECT 127.0.0.1:1 HTTP/1.1\r\nhost: x\r\n\r\n"),
    framed("TRACE and a method of 64 kB", lambda: b"X" * 65_536 + b" /health HTTP/1.1\r\nhost: x\r\n\r\n"),
    framed(
        "a body where there should be none",
        lambda: b"GET /health HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n" + b"x" * 1_000_000,
    ),
    framed("a header of control characters", lambda: b"GET /health HTTP/1.1\r\nhost: x\r\nauthorization: Bearer \x00\x01\xff\r\n\r\n"),
    framed("a key of 60 kB", lambda: b"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer " + b"k" * 60_000 + b"\r\n\r\n"),
    framed("no host, many hosts", lambda: b"GET /health HTTP/1.1\r\nhost: a\r\nhost: b\r\nhost: c\r\n\r\n"),
    framed("lines without a carriage return", lambda: b"GET /health HTTP/1.1\nhost: x\n\n"),
    framed(
        "a form where JSON is due",
        lambda: (
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary="
            + b"b" * 70
            + b"\r\ncontent-length: 9\r\n\r\n"
            + b"--bbbbbbb"
        ),
    ),
)
