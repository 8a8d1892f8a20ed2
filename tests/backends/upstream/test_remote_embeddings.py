"""Embeddings and tokens of a remote server: asked for in its words, and every odd reply a typed error."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import struct
import threading
from typing import Any

import msgspec
import pytest

from mm_gateway.backends.upstream.backend import RemoteBackend
from mm_gateway.backends.upstream.replies import embedding_events
from mm_gateway.core import ChatInput, Embedding, EmbeddingInput, GenerationRequest, Message, Rendering, Tokenized, Tool, ToolUse, Usage
from mm_gateway.errors import InvalidRequestError, UnsupportedParameterError, UpstreamError
from tests.support.upstream_server import upstream

TWO = GenerationRequest(request_id="r", model="far", input=EmbeddingInput(("a", (5, 6)), 2), user="u")
CHAT = ChatInput((Message("user", "Hi"),), ToolUse((Tool("clock"),)))


def whole(body: Any, status: str = "200 OK") -> bytes:
    data = json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\nconnection: close\r\n\r\n"
    return head.encode() + data


def reply_of(*vectors: Any) -> bytes:
    return whole({"data": [{"index": i, "embedding": v} for i, v in enumerate(vectors)], "usage": {"prompt_tokens": 3, "total_tokens": 3}})


async def events_of(backend: RemoteBackend, request: GenerationRequest = TWO) -> list[Any]:
    return [event async for event in backend.generate(request)]


@pytest.mark.parametrize("encode", [list, lambda v: base64.b64encode(struct.pack("<2f", *v)).decode()], ids=["numbers", "base64"])
async def test_vectors_are_passed_on_in_either_encoding(encode: Any) -> None:
    async with upstream(reply_of(encode((0.5, 0.5)), encode((1.0, 0.0)))) as (backend, seen):
        events = await events_of(backend)
    assert events == [Embedding.of(0, (0.5, 0.5)), Embedding.of(1, (1.0, 0.0)), Usage(3, 0)]
    first, _, body = seen.requests[0]
    assert first.startswith("POST /v1/embeddings ")
    assert body == {"model": "their-name", "input": ["a", [5, 6]], "encoding_format": "base64", "dimensions": 2, "user": "u"}


async def test_how_inputs_are_read_is_said_to_the_upstream() -> None:
    cut = EmbeddingInput(("a",), add_special_tokens=False, truncate_prompt_tokens=-1, truncation_side="left")
    async with upstream(reply_of((1.0, 0.0))) as (backend, seen):
        await events_of(backend, GenerationRequest(request_id="r", model="far", input=cut))
    said = {"add_special_tokens": False, "truncate_prompt_tokens": -1, "truncation_side": "left"}
    assert seen.requests[0][2] == {"model": "their-name", "input": ["a"], "encoding_format": "base64", **said}


@pytest.mark.parametrize(
    "answer",
    [whole({"data": []}), whole([]), whole({"data": [{"index": 0, "embedding": "a"}, {"index": 1, "embedding": "!"}]}), reply_of([1.0])],
    ids=["none", "list", "base64", "one"],
)
async def test_a_broken_reply_is_an_upstream_error(answer: bytes) -> None:
    async with upstream(answer) as (backend, _):
        with pytest.raises(UpstreamError, match="broken reply"):
            await events_of(backend)


async def test_its_errors_are_passed_on() -> None:
    answer = whole({"error": {"message": "no", "type": "invalid_request_error", "param": "input", "code": None}}, "400 Bad Request")
    async with upstream(answer) as (backend, _):
        with pytest.raises(UpstreamError) as caught:
            await events_of(backend)
    assert (caught.value.status, caught.value.param) == (400, "input")


async def test_tokens_are_asked_for_beside_v1() -> None:
    async with upstream(whole({"count": 2, "max_model_len": 9, "tokens": [1, 2], "token_strs": ["a", "b"]})) as (backend, seen):
        assert await backend.tokenize("ab", add_special_tokens=False) == Tokenized((1, 2), ("a", "b"), 9)
        await backend.tokenize(msgspec.structs.replace(CHAT, rendering=Rendering(add_generation_prompt=False)))
    (first, _, text), (_, _, chat) = seen.requests
    assert first.startswith("POST /tokenize ")
    assert text == {"model": "their-name", "prompt": "ab", "add_special_tokens": False, "return_token_strs": True}
    assert (chat["messages"], chat["add_generation_prompt"]) == ([{"role": "user", "content": "Hi"}], False)
    assert chat["tools"][0]["function"]["name"] == "clock"
    async with upstream(whole({"prompt": "ab"})) as (backend, _):
        assert await backend.detokenize([1, 2]) == "ab"


@pytest.mark.parametrize("status", ["404 Not Found", "405 Method Not Allowed"])
async def test_a_server_without_them_is_refused_by_name(status: str) -> None:
    async with upstream(whole({"detail": "Not Found"}, status)) as (backend, _):
        with pytest.raises(UnsupportedParameterError, match="no /tokenize") as caught:
            await backend.tokenize("a")
    assert caught.value.param == "model"
    assert isinstance(caught.value, InvalidRequestError)


async def test_a_whole_reply_has_a_deadline_however_its_bytes_come() -> None:
    async def trickle(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.01)

    async with upstream(trickle, timeout_s=0.3) as (backend, _):
        with pytest.raises(UpstreamError, match="in time") as caught:
            await asyncio.wait_for(events_of(backend), 20)
    assert caught.value.status == 504


async def test_a_whole_reply_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mm_gateway.backends.upstream.connection.MAX_REPLY_BYTES", 2**20)
    async with upstream(reply_of([0.5] * 300_000, [0.5])) as (backend, _):
        with pytest.raises(UpstreamError, match="more than 1 MiB") as caught:
            await events_of(backend)
    assert caught.value.status == 502


async def test_a_large_reply_is_decoded_off_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []

    def decode(reply: bytes, inputs: int) -> list[Any]:
        threads.append(threading.current_thread().name)
        return embedding_events(reply, inputs)

    monkeypatch.setattr("mm_gateway.backends.upstream.backend.embedding_events", decode)
    for size in (2, 200_000):
        async with upstream(reply_of([0.5] * size, [0.5])) as (backend, _):
            assert len(await events_of(backend)) == 3
    assert threads[0] == threading.current_thread().name
    assert threads[1].startswith("bodies")
