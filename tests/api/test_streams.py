"""The order and shape of chunks, the whole reply as their fold, heartbeats, and what happens to work that nobody waits for."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from mm_gateway.core import ChoiceFinished, Progress, TextDelta, TokenLogprob, Usage
from mm_gateway.errors import EngineError, ModelLoadError
from tests.support.scripted_backend import ScriptedBackend, Step, app_over
from tests.support.served import served, until

CHAT = {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}]}
COMPLETION = {"model": "scripted", "prompt": "Hi"}
HELLO: list[Step] = [
    Progress("loading", "scripted: 40%", 0.4),
    TextDelta(0, 'He"l'),
    TextDelta(0, "lo 世"),
    ChoiceFinished(0, "stop"),
    Usage(3, 2, cached_tokens=1),
]
SCORED = TokenLogprob("世", tuple("世".encode()), -0.25, (("世", tuple("世".encode()), -0.25), ("\ufffd", (0xE4,), -2.0)))


async def events_of(script: list[Step], path: str, body: dict[str, Any], **server: Any) -> list[Any]:
    """Comments as text, data as objects."""
    async with AsyncTestClient(app_over(ScriptedBackend(script), **server)) as client:
        reply = await client.post(path, json={**body, "stream": True})
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.text.endswith("\n\n")
    lines = reply.text[:-2].split("\n\n")
    return [json.loads(line[6:]) if line.startswith("data: {") else line for line in lines]


async def reply_of(script: list[Step], path: str, body: dict[str, Any]) -> Any:
    async with AsyncTestClient(app_over(ScriptedBackend(script))) as client:
        reply = await client.post(path, json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def test_chat_chunks_come_in_the_order_of_the_contract() -> None:
    *chunks, done = await events_of(HELLO, "/v1/chat/completions", CHAT)
    assert done == "data: [DONE]"
    assert [chunk["choices"] for chunk in chunks] == [
        [{"index": 0, "delta": {"role": "assistant", "content": "", "refusal": None}, "logprobs": None, "finish_reason": None}],
        [{"index": 0, "delta": {"content": 'He"l'}, "logprobs": None, "finish_reason": None}],
        [{"index": 0, "delta": {"content": "lo 世"}, "logprobs": None, "finish_reason": None}],
        [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop", "stop_reason": None}],
    ]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    for same in ("id", "created", "model", "system_fingerprint"):
        assert len({chunk[same] for chunk in chunks}) == 1
    assert chunks[0]["id"].startswith("chatcmpl-")
    assert not any("usage" in chunk for chunk in chunks)


async def test_usage_comes_last_and_null_before_where_it_is_asked_for() -> None:
    for path, body in (("/v1/chat/completions", CHAT), ("/v1/completions", COMPLETION)):
        *chunks, done = await events_of(HELLO, path, {**body, "stream_options": {"include_usage": True}})
        assert done == "data: [DONE]"
        assert all(chunk["usage"] is None for chunk in chunks[:-1])
        assert chunks[-1]["choices"] == []
        assert chunks[-1]["usage"]["total_tokens"] == 5
        assert chunks[-1]["usage"]["prompt_tokens_details"]["cached_tokens"] == 1


async def test_choices_are_interleaved_as_they_arrive() -> None:
    script = [TextDelta(1, "b"), TextDelta(0, "a"), ChoiceFinished(1, "length"), ChoiceFinished(0, "stop"), Usage(1, 2)]
    *chunks, _ = await events_of(script, "/v1/chat/completions", {**CHAT, "n": 2})
    assert [(choice["index"], choice["delta"].get("role", choice["delta"].get("content"))) for c in chunks for choice in c["choices"]] == [
        (0, "assistant"),
        (1, "assistant"),
        (1, "b"),
        (0, "a"),
        (1, None),
        (0, None),
    ]


async def test_completion_chunks_carry_text_and_the_reason_last() -> None:
    *chunks, _ = await events_of(HELLO, "/v1/completions", COMPLETION)
    assert [chunk["choices"][0]["text"] for chunk in chunks] == ['He"l', "lo 世", ""]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, "stop"]
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}


async def test_whole_replies_are_the_fold_of_the_same_events() -> None:
    chat = await reply_of(HELLO, "/v1/chat/completions", CHAT)
    assert chat["object"] == "chat.completion"
    assert chat["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": 'He"llo 世', "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
            "stop_reason": None,
        }
    ]
    assert chat["usage"]["prompt_tokens"] == 3
    completion = await reply_of(HELLO, "/v1/completions", COMPLETION)
    assert completion["choices"] == [{"index": 0, "text": 'He"llo 世', "logprobs": None, "finish_reason": "stop", "stop_reason": None}]


async def test_logprobs_have_the_shape_of_their_endpoint() -> None:
    script: list[Step] = [
        TextDelta(0, "a", logprobs=(TokenLogprob("a", (97,), None),)),
        TextDelta(0, "世", logprobs=(SCORED,)),
        ChoiceFinished(0, "stop"),
        Usage(1, 1),
    ]
    chat = await reply_of(script[1:], "/v1/chat/completions", {**CHAT, "logprobs": True, "top_logprobs": 2})
    raw = list("世".encode())
    assert chat["choices"][0]["logprobs"] == {
        "content": [
            {
                "token": "世",
                "bytes": raw,
                "logprob": -0.25,
                "top_logprobs": [
                    {"token": "世", "bytes": raw, "logprob": -0.25},
                    {"token": "\ufffd", "bytes": [0xE4], "logprob": -2.0},
                ],
            }
        ],
        "refusal": None,
    }
    completion = await reply_of(script, "/v1/completions", {**COMPLETION, "logprobs": 2, "echo": True})
    expected = {
        "tokens": ["a", "世"],
        "token_logprobs": [None, -0.25],
        "top_logprobs": [None, {"世": -0.25, "bytes:\\xe4": -2.0}],
        "text_offset": [0, 1],
    }
    assert completion["choices"][0]["logprobs"] == expected
    *chunks, _ = await events_of(script, "/v1/completions", {**COMPLETION, "logprobs": 2, "echo": True})
    assert [chunk["choices"][0]["logprobs"]["text_offset"] for chunk in chunks[:2]] == [[0], [1]]


async def test_an_error_before_the_first_event_keeps_its_status() -> None:
    script: list[Step] = [Progress("loading"), 0.05, ModelLoadError("gone")]
    async with AsyncTestClient(app_over(ScriptedBackend(script))) as client:
        for stream in (False, True):
            reply = await client.post("/v1/chat/completions", json={**CHAT, "stream": stream})
            assert reply.status_code == 503
            assert reply.headers["x-should-retry"] == "false"
            assert reply.json()["error"]["message"] == "gone"


async def test_an_error_in_mid_stream_follows_the_text_and_ends_the_stream() -> None:
    *_, text, error, done = await events_of([TextDelta(0, "a"), 0.01, EngineError("broke")], "/v1/chat/completions", CHAT)
    assert text["choices"][0]["delta"] == {"content": "a"}
    assert error == {"error": {"message": "broke", "type": "server_error", "param": None, "code": None}}
    assert done == "data: [DONE]"


async def test_a_stream_that_waits_is_committed_early_and_kept_alive_by_comments() -> None:
    script = [Progress("loading", "scripted: 40%", 0.4), 0.3, *HELLO[1:]]
    comment, *rest = await events_of(script, "/v1/chat/completions", CHAT, early_commit_s=0.05, heartbeat_s=0.05)
    assert comment == ": scripted: 40%"
    chunks = [event for event in rest if isinstance(event, dict)]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert rest[-1] == "data: [DONE]"


async def test_an_error_after_the_early_commit_is_an_event() -> None:
    *_, error, done = await events_of([0.2, ModelLoadError("gone")], "/v1/completions", COMPLETION, early_commit_s=0.05, heartbeat_s=0.05)
    assert error["error"]["message"] == "gone"
    assert done == "data: [DONE]"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("script", [[30.0], [TextDelta(0, "a"), 30.0]], ids=["before the first event", "after it"])
async def test_a_client_that_hangs_up_ends_the_work(stream: bool, script: list[Step]) -> None:
    backend = ScriptedBackend(script)
    body = json.dumps({**CHAT, "stream": stream}).encode()
    with served(app_over(backend)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        writer.write(head % len(body) + body)
        await writer.drain()
        await until(lambda: backend.started == 1)
        if stream and len(script) > 1:
            assert b"200 OK" in await reader.readline()
        writer.close()
        await writer.wait_closed()
        await until(lambda: backend.closed == 1)
        # and the server goes on
        backend.script = HELLO
        again = await asyncio.to_thread(ask, port, body if not stream else json.dumps(CHAT).encode())
        assert again["choices"][0]["finish_reason"] == "stop"


async def test_a_client_that_hangs_up_amid_its_body_is_no_error_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    backend = ScriptedBackend(HELLO)
    with served(app_over(backend)) as port:
        for body in (b"", b'{"model"'):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n"
            writer.write(head + body)
            await writer.drain()
            await asyncio.sleep(0.05)
            writer.close()
            await writer.wait_closed()
        again = await asyncio.to_thread(ask, port, json.dumps(CHAT).encode())
    assert again["choices"][0]["finish_reason"] == "stop"
    assert "unexpected error" not in caplog.text
    assert backend.started == 1


def ask(port: int, body: bytes) -> Any:
    from urllib.request import Request, urlopen

    request = Request(f"http://127.0.0.1:{port}/v1/chat/completions", body, {"content-type": "application/json"})
    with urlopen(request, timeout=10) as reply:
        return json.load(reply)
