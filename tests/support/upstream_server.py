"""A scripted upstream server on loopback, a remote backend that asks it, and what servers are reported to do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from mm_gateway.backends.upstream.backend import RemoteBackend
from mm_gateway.backends.upstream.translated import TranslatedBackend
from mm_gateway.configuration.model_config import ModelConfig

Answer = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]


class Upstream:
    """A scripted server: what arrived at it, and what it answers from now on. die: takes and holds no connection any more."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.connections = 0
        self.left = asyncio.Event()
        self.die: Callable[[], Awaitable[None]]


@asynccontextmanager
async def upstream(answer: Answer, **config: Any) -> AsyncIterator[tuple[Any, Upstream]]:
    """A server that answers every request with the same bytes, and a backend that asks it."""
    seen = Upstream(answer)
    writers: list[asyncio.StreamWriter] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        seen.connections += 1
        try:
            while await answered(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the other side left
        writer.close()

    async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection takes another request."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        length = int(headers.get("content-length", 0))
        body = json.loads(await reader.readexactly(length)) if length else None
        seen.requests.append((first, headers, body))
        answer = seen.answer
        if isinstance(answer, bytes):
            writer.write(answer)
            await writer.drain()
            return bool(answer) and b"connection: close" not in answer.partition(b"\r\n\r\n")[0]
        await answer(writer)
        await reader.read()  # until the other side goes
        seen.left.set()
        return False

    async def die() -> None:
        server.close()
        for writer in writers:
            writer.transport.abort()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    seen.die = die
    port = server.sockets[0].getsockname()[1]
    settings = ModelConfig(model_name="their-name", backend="remote", base_url=f"http://127.0.0.1:{port}/v1", **config)
    backend = backend_of(settings)
    try:
        yield backend, seen
    finally:
        await backend.close()
        server.close()
        for writer in writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)


def backend_of(settings: ModelConfig) -> RemoteBackend | TranslatedBackend:
    return (RemoteBackend if settings.api == "chat" else TranslatedBackend)("far", settings, created=0)


def sse_body(chunks: Sequence[Any], *, done: bool = True) -> bytes:
    """The events of a stream."""
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + (b"data: [DONE]\n\n" if done else b"")


def kept_alive(body: bytes) -> bytes:
    """A stream as servers send it that take another request after it."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


def _piece(arguments: Any = None, **fields: Any) -> dict[str, Any]:
    function = {name: fields.pop(name) for name in ("name",) if name in fields} | {"arguments": arguments}
    return {**fields, "function": function}


_WHOLE = '{"a":1}'
_F_AND_G = [("f", _WHOLE), ("g", _WHOLE)]

CALLS: dict[str, tuple[list[dict[str, Any]], list[tuple[str, str]]]] = {
    "OpenAI": (
        [
            _piece("", index=0, id="x", name="f"),
            _piece('{"a"', index=0),
            _piece(":1}", index=0),
            _piece("", index=1, id="y", name="g"),
            _piece(_WHOLE, index=1),
        ],
        _F_AND_G,
    ),
    "without an index": (
        [_piece("", id="x", name="f"), _piece('{"a"'), _piece(":1}"), _piece(_WHOLE, id="y", name="g")],
        _F_AND_G,
    ),
    "index null": ([_piece(_WHOLE, index=None, id="x", name="f"), _piece(_WHOLE, index=None, id="y", name="g")], _F_AND_G),
    "all of index 0 with ids": (
        [_piece(_WHOLE, index=0, id="x", name="f"), _piece(_WHOLE, index=0, id="y", name="f")],
        [("f", _WHOLE), ("f", _WHOLE)],
    ),
    "all of index 0 without ids": ([_piece(_WHOLE, index=0, id="", name="f"), _piece(_WHOLE, index=0, name="f")], [("f", _WHOLE)] * 2),
    "ids interleaved": (
        [
            _piece('{"a"', index=0, id="x", name="f"),
            _piece('{"a"', index=0, id="y", name="g"),
            _piece(":1}", index=0, id="x"),
            _piece(":1}", index=0, id="y"),
        ],
        _F_AND_G,
    ),
    "the name in every piece": (
        [_piece('{"a"', index=0, id="x", name="f"), _piece(":1", index=0, id="x", name="f"), _piece("}", index=0, id="x", name="f")],
        [("f", _WHOLE)],
    ),
    "the name in every piece, no id": ([_piece('{"a"', index=0, name="f"), _piece(":1}", index=0, name="f")], [("f", _WHOLE)]),
    "a new id in every piece": (
        [_piece("", index=0, id="x", name="f"), _piece('{"a"', index=0, id="y"), _piece(":1}", index=0, id="z")],
        [("f", _WHOLE)],
    ),
    "the id before the name": ([{"index": 0, "id": "x"}, _piece("", index=0, name="f"), _piece(_WHOLE, index=0)], [("f", _WHOLE)]),
    "indices from 1": ([_piece(_WHOLE, index=1, id="x", name="f"), _piece(_WHOLE, index=2, id="y", name="g")], _F_AND_G),
    "arguments as an object": ([_piece({"a": 1}, index=0, id="x", name="f")], [("f", _WHOLE)]),
    "no arguments": ([_piece(None, index=0, id="x", name="f")], [("f", "")]),
}
"""How servers stream calls: their pieces, and (name, arguments) of the calls that are meant."""

_TEXT = {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}]}
_END = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}

FAILURES: dict[str, tuple[bytes, str]] = {
    "no finish_reason before [DONE]": (sse_body([_TEXT]), "before the reply was complete"),
    "an empty finish_reason before [DONE]": (
        sse_body([{"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": ""}]}]),
        "before the reply was complete",
    ),
    "nothing before [DONE]": (sse_body([]), "before the reply was complete"),
    "finish_reason error": (sse_body([{"choices": [{"index": 0, "delta": {}, "finish_reason": "error"}]}]), "finish_reason error"),
    "finish_reason abort": (sse_body([{"choices": [{"index": 0, "delta": {}, "finish_reason": "abort"}]}]), "finish_reason abort"),
    "OpenAI": (sse_body([_TEXT, {"error": {"message": "died"}}]), "died"),
    "OpenRouter": (
        sse_body([{"error": {"code": 529, "message": "died"}, "choices": [{"index": 0, "delta": {}, "finish_reason": "error"}]}]),
        "died",
    ),
    "vLLM": (sse_body([_TEXT, {"object": "error", "message": "died", "code": 400}]), "died"),
    "Google": (sse_body([_TEXT, [{"error": {"code": 503, "message": "died", "status": "UNAVAILABLE"}}]]), "died"),
    "TGI": (sse_body([_TEXT, {"error": "died", "error_type": "overloaded"}]), "died"),
    "FastAPI": (sse_body([_TEXT, {"detail": "died"}]), "died"),
    "llama.cpp": (sse_body([_TEXT], done=False) + b'error: {"code":500,"message":"died","type":"server_error"}\n\n', "died"),
    "an error after the finish": (sse_body([_TEXT, _END, {"error": {"message": "died"}}]), "died"),
}
"""Streams that break off, and what is to be said of it."""

REFUSALS: dict[str, tuple[bytes, str]] = {
    "OpenAI": (b'{"error":{"message":"too much","type":"rate_limit_error"}}', "too much"),
    "vLLM": (b'{"object":"error","message":"too much","type":"rate_limit_error","param":null,"code":429}', "too much"),
    "Google": (b'[{"error":{"code":429,"message":"too much","status":"RESOURCE_EXHAUSTED"}}]', "too much"),
    "FastAPI": (b'{"detail":"too much"}', "too much"),
    "FastAPI, validation": (b'{"detail":[{"loc":["body","n"],"msg":"too much","type":"value_error"}]}', "n: too much"),
    "TGI": (b'{"error":"too much","error_type":"rate_limit_error"}', "too much"),
    "bare": (b'{"message":"too much"}', "too much"),
    "text": (b"too much", "too much"),
}
"""Bodies of a 429, and what is to be said of it."""
