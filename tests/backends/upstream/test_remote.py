"""The remote backend against upstream servers on loopback: requests in their words, streams passed on, every failure typed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from mm_gateway.backends.upstream.backend import RemoteBackend
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.core import (
    ChatInput,
    ChoiceFinished,
    CompletionInput,
    GenerationConfig,
    GenerationRequest,
    Grammar,
    Message,
    TextDelta,
    TokenLogprob,
    UrlCitation,
    Usage,
)
from mm_gateway.errors import ConfigurationError, UnsupportedParameterError, UpstreamError
from tests.support.upstream_server import upstream

HELLO = GenerationRequest(request_id="r", model="far", input=ChatInput((Message("user", "Hi"),)))
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


def sse(*chunks: Any, done: bool = True) -> bytes:
    lines = [b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks]
    return STREAM + b"".join(lines) + (b"data: [DONE]\n\n" if done else b"")


def delta(text: str | None = None, *, reason: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    content = {} if text is None else {"content": text}
    return {"id": "x", "object": "chat.completion.chunk", "choices": [{"index": index, "delta": content, "finish_reason": reason, **more}]}


def refusal(status: int, body: Any, **headers: str) -> bytes:
    data = json.dumps(body).encode() if not isinstance(body, bytes) else body
    extra = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} X\r\ncontent-length: {len(data)}\r\nconnection: close\r\n{extra}\r\n".encode() + data


async def events_of(backend: RemoteBackend, request: GenerationRequest = HELLO) -> list[Any]:
    return [event async for event in backend.generate(request)]


async def test_a_stream_is_passed_on_event_by_event() -> None:
    usage = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}}
    script = sse(
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}, delta("He"), delta("y 世"), delta(reason="stop"), usage
    )
    async with upstream(script) as (backend, _):
        assert await events_of(backend) == [
            TextDelta(0, "He"),
            TextDelta(0, "y 世"),
            ChoiceFinished(0, "stop"),
            Usage(9, 2, cached_tokens=4),
        ]


async def test_citations_are_passed_on() -> None:
    cited = {"start_index": 3, "end_index": 6, "title": "T", "url": "https://example.org/"}
    annotated = {"choices": [{"index": 0, "delta": {"annotations": [{"type": "url_citation", "url_citation": cited}, {"type": "other"}]}}]}
    async with upstream(sse(delta("So [1]"), annotated, delta(reason="stop"))) as (backend, _):
        assert UrlCitation(0, 3, 6, "T", "https://example.org/") in await events_of(backend)


async def test_a_call_without_a_name_is_the_upstreams_fault() -> None:
    call = {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}}]}
    async with upstream(sse(call, delta(reason="tool_calls"))) as (backend, _):
        with pytest.raises(UpstreamError, match="before its name"):
            await events_of(backend)


async def test_the_request_arrives_in_the_upstreams_words_with_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAR_KEY", "k-1")
    config = GenerationConfig(max_new_tokens=7, temperature=0.5, top_k=3, stop=("a",), seed=1, n=2, logit_bias={5: 1.0}, logprobs=2)
    request = GenerationRequest(
        request_id="r", model="far", input=ChatInput((Message("system", "S"), Message("user", "Hi"))), config=config
    )
    async with upstream(sse(delta("a", reason="stop")), api_key_env="FAR_KEY") as (backend, seen):
        await events_of(backend, request)
    first, headers, body = seen.requests[0]
    assert first == "POST /v1/chat/completions HTTP/1.1"
    assert headers["authorization"] == "bearer k-1"
    assert body == {
        "model": "their-name",
        "messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "Hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 7,
        "temperature": 0.5,
        "top_k": 3,
        "stop": ["a"],
        "seed": 1,
        "n": 2,
        "logit_bias": {"5": 1.0},
        "logprobs": True,
        "top_logprobs": 2,
    }


@pytest.mark.parametrize(
    ("grammar", "sent"),
    [
        (Grammar("json_object"), {"response_format": {"type": "json_object"}}),
        (
            Grammar("json_schema", '{"type":"integer"}', "response_format.json_schema.schema"),
            {"response_format": {"type": "json_schema", "json_schema": {"name": "reply", "schema": {"type": "integer"}, "strict": True}}},
        ),
        (Grammar("json_schema", '{"type":"integer"}', "guided_json"), {"guided_json": {"type": "integer"}}),
        (Grammar("choice", '["a"]', "guided_choice"), {"guided_choice": ["a"]}),
        (Grammar("regex", "a+", "guided_regex"), {"guided_regex": "a+"}),
        (
            Grammar("json_schema", '{"type":"integer"}', "text.format.schema"),
            {"response_format": {"type": "json_schema", "json_schema": {"name": "reply", "schema": {"type": "integer"}, "strict": True}}},
        ),
        (Grammar("lark", "start: x", "guided_grammar"), {"guided_grammar": "start: x"}),
    ],
    ids=lambda value: value.kind if isinstance(value, Grammar) else "",
)
async def test_grammars_are_passed_on_in_the_words_they_came_in(grammar: Grammar, sent: dict[str, Any]) -> None:
    request = GenerationRequest(request_id="r", model="far", input=HELLO.input, config=GenerationConfig(grammar=grammar))
    async with upstream(sse(delta("1", reason="stop"))) as (backend, seen):
        await events_of(backend, request)
    assert {name: value for name, value in seen.requests[0][2].items() if name in sent} == sent


async def test_completions_and_their_logprobs() -> None:
    logprobs = {"tokens": ["a", "b"], "token_logprobs": [None, -1.0], "top_logprobs": [None, {"b": -1.0}], "text_offset": [0, 1]}
    script = sse({"choices": [{"index": 0, "text": "ab", "logprobs": logprobs, "finish_reason": "length"}]})
    request = GenerationRequest(
        request_id="r",
        model="far",
        input=CompletionInput(("a", (1, 2)), echo=True),
        config=GenerationConfig(logprobs=1, prompt_logprobs=1, max_new_tokens=1),
    )
    async with upstream(script) as (backend, seen):
        events = await events_of(backend, request)
    first, _, body = seen.requests[0]
    assert first == "POST /v1/completions HTTP/1.1"
    assert (body["prompt"], body["echo"], body["logprobs"]) == (["a", [1, 2]], True, 1)
    tokens = (TokenLogprob("a", (97,), None), TokenLogprob("b", (98,), -1.0, (("b", (98,), -1.0),)))
    assert events == [TextDelta(0, "ab", logprobs=tokens), ChoiceFinished(0, "length"), Usage(0, 1)]


@pytest.mark.parametrize(
    ("answer", "status", "says"),
    [
        (refusal(400, {"error": {"message": "no", "type": "t", "param": "p", "code": "c"}}), 400, "no"),
        (refusal(429, {"error": {"message": "slow down"}}, retry_after="4"), 429, "slow down"),
        (refusal(500, b"<html>oops</html>"), 500, "500"),
        (refusal(401, {"error": {"message": "bad key k-1"}}), 502, "key"),
        (refusal(200, {"choices": []}), 502, "streaming"),
        (sse(delta("a"), {"error": {"message": "died", "type": "server_error"}}), 502, "died"),
        (sse(delta("a"), done=False), 502, "before the reply was complete"),
        (STREAM + b"data: {broken\n\n", 502, "broken stream"),
        (b"", 502, "Is it running"),
    ],
    ids=["400", "429", "500", "401", "not a stream", "error event", "cut off", "broken JSON", "hang up"],
)
async def test_every_failure_is_typed(answer: bytes, status: int, says: str) -> None:
    async with upstream(answer) as (backend, _):
        with pytest.raises(UpstreamError, match=says) as caught:
            await events_of(backend)
    assert caught.value.status == status
    if status == 429:
        assert caught.value.retry_after_s == 4
    if status == 400:
        assert (caught.value.type, caught.value.param, caught.value.code) == ("t", "p", "c")


async def test_an_upstream_that_is_not_there_or_silent_is_said() -> None:
    nowhere = RemoteBackend("far", ModelConfig(model_name="m", backend="remote", base_url="http://127.0.0.1:9/v1"), created=0)
    with pytest.raises(UpstreamError, match="Is it running") as caught:
        await events_of(nowhere)
    assert caught.value.status == 502

    async def silence(_: asyncio.StreamWriter) -> None:
        return

    async with upstream(silence, timeout_s=0.1) as (backend, _):
        with pytest.raises(UpstreamError, match="in time") as caught:
            await events_of(backend)
    assert caught.value.status == 504


async def test_closing_the_generator_closes_the_connection() -> None:
    async def one_token(writer: asyncio.StreamWriter) -> None:
        writer.write(sse(delta("a"), done=False))
        await writer.drain()

    async with upstream(one_token) as (backend, seen):
        events = backend.generate(HELLO)
        assert await anext(events) == TextDelta(0, "a")
        assert isinstance(events, AsyncGenerator)
        await events.aclose()
        await asyncio.wait_for(seen.left.wait(), 5)


async def test_a_missing_key_is_named_before_anything_is_sent() -> None:
    async with upstream(b"", api_key_env="MM_TEST_NOT_SET") as (backend, seen):
        with pytest.raises(ConfigurationError, match="MM_TEST_NOT_SET"):
            await events_of(backend)
    assert seen.requests == []


async def test_best_of_is_refused_by_name() -> None:
    request = GenerationRequest(request_id="r", model="far", input=CompletionInput(("a",)), best_of=2)
    async with upstream(b"") as (backend, _):
        with pytest.raises(UnsupportedParameterError) as caught:
            await events_of(backend, request)
    assert caught.value.param == "best_of"


async def test_turns_cannot_be_left_out_by_a_remote_model() -> None:
    request = GenerationRequest(request_id="r", model="far", input=ChatInput((Message("user", "Hi"),), truncate=True))
    async with upstream(b"") as (backend, seen):
        with pytest.raises(UnsupportedParameterError, match="truncation"):
            await events_of(backend, request)
    assert seen.requests == []
