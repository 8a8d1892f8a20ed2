"""Bytes that no client would send, over real sockets: an answer in the envelope with its headers, never more than a little of it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator

import pytest

from mm_gateway.cli.http_protocol import MAX_HEAD_BYTES
from mm_gateway.core import ChoiceFinished, TextDelta, Usage
from tests.support.scripted_backend import ScriptedBackend, app_over
from tests.support.served import post, raw_reply, served, until

CHAT = json.dumps({"model": "scripted", "messages": [{"role": "user", "content": "Hi"}]}).encode()
PATH = "/v1/chat/completions"


def request(line: str, headers: str = "", body: bytes = b"") -> bytes:
    return f"{line} HTTP/1.1\r\nhost: x\r\n{headers}\r\n".encode("latin-1") + body


def chunked(size: int) -> bytes:
    return b"".join(b"400\r\n" + b" " * 1024 + b"\r\n" for _ in range(size // 1024)) + b"0\r\n\r\n"


JSON = "content-type: application/json\r\n"
CHUNKED = f"{JSON}transfer-encoding: chunked\r\n"
UPGRADE = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with served(app_over(ScriptedBackend([TextDelta(0, "a"), ChoiceFinished(0, "stop"), Usage(1, 1)]), max_body_bytes=200_000)) as port:
        yield port


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request("GET /v1/nowhere"), 404),
        (request("OPTIONS /v1/nowhere"), 404),
        (request(f"GET {PATH}"), 405),
        (request(f"PUT {PATH}"), 405),
        (request("TRACE /v1/models"), 405),
        (request(f"GET {PATH}", UPGRADE), 405),
        (request("GET /a-socket", UPGRADE), 404),
        (request("GET /v1/models/%zz"), 404),
        (request("GET /v1/models/%ff%fe"), 404),
        (request("GET /v1/models/a%00b"), 404),
        (request("GET /v1/models/../../etc/passwd"), 404),
        (request("GET /v1/models/" + "y" * 60_000), 404),
        (post(PATH, b""), 400),
        (post(PATH, b"{"), 400),
        (post(PATH, b"[]"), 400),
        (post(PATH, b'{"model":"\xff"}'), 400),
        (post(PATH, b"[" * 100_000), 400),
        (post(PATH, b'{"model":"scripted","metadata":' + b'{"a":' * 20_000 + b"1" + b"}" * 20_001), 400),
        (post(PATH, b"\x1f\x8b\x08", "content-encoding: gzip\r\n"), 415),
        (request(f"POST {PATH}", "content-type: text/plain\r\ncontent-length: 2\r\n", b"{}"), 415),
        (post(PATH, b" " * 200_001), 413),
        (request(f"POST {PATH}", f"{JSON}content-length: 99999999999\r\n"), 413),
        (request(f"POST {PATH}", CHUNKED, chunked(300_000)), 413),
        (request(f"POST {PATH}", CHUNKED, b"zz\r\nabc\r\n"), 400),
        (request(f"POST {PATH}", f"{CHUNKED}content-length: 3\r\n", b"0\r\n\r\n"), 400),
        (request(f"POST {PATH}", f"{JSON}content-length: many\r\n"), 400),
        (request(f"POST {PATH}", f"{JSON}content-length: -1\r\n"), 400),
        (request("BREW /v1/models"), 400),
        (request("CONNECT x:443"), 400),
        (request("GET /v1/models/é"), 400),
        (b"HELLO\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 100_000, 431),
        (b"GET /" + b"y" * 1_000_000, 431),
        (request(f"POST {PATH}", CHUNKED, b"2\r\n{}\r\n0\r\n" + b"x: trailer\r\n" * 50_000), 431),
        (request(f"POST {PATH}", CHUNKED, b"2\r\n{}\r\n0\r\nx: " + b"y" * 500_000), 431),
        (request(f"POST {PATH}", CHUNKED, b"2\r\n{}\r\n2;x=" + b"y" * 500_000), 431),
        (request(f"POST {PATH}", CHUNKED) + b"\r\n" * 250_000, 400),
    ],
    ids=lambda value: repr(value[:45]) if isinstance(value, bytes) else None,
)
async def test_every_refusal_is_in_the_envelope(port: int, data: bytes, status: int) -> None:
    found, headers, body = await raw_reply(port, data)
    assert found == status, body
    assert headers["content-type"] == "application/json"
    assert headers["x-request-id"].startswith("req_")
    assert headers["openai-processing-ms"].isdigit()
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], bool(error["message"])) == ("invalid_request_error", True)
    assert len(body) < 4000


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request("HEAD /health"), 200),
        (request("HEAD /v1/models"), 405),
        (request(f"OPTIONS {PATH}"), 204),
        (post(f"{PATH}/", CHAT), 200),
        (post(f"/{PATH}", CHAT), 200),
        (request("GET http://x/v1/models"), 200),
        (b"GET /v1/models HTTP/1.0\r\n\r\n", 200),
        (request(f"POST {PATH}", f"content-length: {len(CHAT)}\r\n", CHAT), 200),
        (request(f"POST {PATH}", CHUNKED, b"%x\r\n" % len(CHAT) + CHAT + b"\r\n0\r\n" + b"x: trailer\r\n" * 3 + b"\r\n"), 200),
    ],
    ids=lambda value: repr(value[:45]) if isinstance(value, bytes) else None,
)
async def test_what_is_unusual_but_right_is_answered(port: int, data: bytes, status: int) -> None:
    assert (await raw_reply(port, data))[0] == status


async def test_a_405_says_what_is_allowed(port: int) -> None:
    _, headers, _ = await raw_reply(port, request(f"GET {PATH}"))
    assert "POST" in headers["allow"]


async def test_a_connection_serves_many_requests_of_any_size(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    large = post(PATH, CHAT + b" " * 150_000)  # a body may be larger than a head
    for _ in range(3):
        for data in (large, post(PATH, CHAT, "x-filler: " + "y" * (MAX_HEAD_BYTES // 3) + "\r\n")):
            writer.write(data)
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            assert head.startswith("HTTP/1.1 200")
            length = next(int(line.split(": ")[1]) for line in head.split("\r\n") if line.startswith("content-length"))
            await reader.readexactly(length)
    writer.close()


async def test_rubbish_behind_a_request_does_not_get_into_its_reply(caplog: pytest.LogCaptureFixture) -> None:
    backend = ScriptedBackend([TextDelta(0, "a"), 0.3, ChoiceFinished(0, "stop"), Usage(1, 1)])
    with served(app_over(backend)) as port, caplog.at_level(logging.ERROR):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post(PATH, CHAT[:-1] + b', "stream": true}'))
        await reader.readuntil(b'"content":"a"')
        writer.write(b"rubbish\r\n\r\n")
        rest = await reader.read()
        assert b"Invalid HTTP" not in rest and b"[DONE]" not in rest
        writer.close()
        await until(lambda: backend.closed == 1)
    assert "unexpected error" not in caplog.text


async def test_a_stream_to_an_http_1_0_client_has_no_chunks_and_ends_with_the_connection() -> None:
    backend = ScriptedBackend([TextDelta(0, "a"), TextDelta(0, "b"), ChoiceFinished(0, "stop"), Usage(1, 2)])
    request = post(PATH, CHAT[:-1] + b', "stream": true}').replace(b"HTTP/1.1", b"HTTP/1.0")
    with served(app_over(backend)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        head, _, body = (await asyncio.wait_for(reader.read(), 10)).partition(b"\r\n\r\n")
        writer.close()
    assert b"transfer-encoding" not in head.lower()
    assert body.startswith(b"data: {") and body.endswith(b"data: [DONE]\n\n")
    assert all(line.startswith(b"data: ") for line in body.split(b"\n\n") if line)


async def test_a_whole_reply_to_an_http_1_0_client_has_its_length() -> None:
    backend = ScriptedBackend([TextDelta(0, "a"), ChoiceFinished(0, "stop"), Usage(1, 1)])
    with served(app_over(backend)) as port:
        status, headers, body = await raw_reply(port, post(PATH, CHAT).replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert status == 200 and int(headers["content-length"]) == len(body)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
async def test_line_separators_of_unicode_are_escaped_in_streams(path: str) -> None:
    text = "one\u2028two\u2029three\x85four"
    backend = ScriptedBackend([TextDelta(0, text), ChoiceFinished(0, "stop"), Usage(1, 1)])
    body = CHAT[:-1] + b', "stream": true}' if "chat" in path else b'{"model": "scripted", "input": "a", "stream": true}'
    with served(app_over(backend)) as port:
        _, _, stream = await raw_reply(port, post(path, body))
    raw = stream.decode()
    assert not {"\u2028", "\u2029", "\x85"} & set(raw) and r"one\u2028two\u2029three\u0085four" in raw
