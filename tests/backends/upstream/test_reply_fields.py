"""What a remote server's reply holds beyond text and calls arrives at the client, streamed and whole."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from mm_gateway.api.app import create_app
from mm_gateway.api.replies.chat import ChatReply
from mm_gateway.api.replies.completion import CompletionReply
from mm_gateway.catalog import Catalog
from mm_gateway.configuration.price import Price
from mm_gateway.configuration.settings import Settings
from mm_gateway.core import ChatInput, GenerationRequest, Message
from mm_gateway.errors import UpstreamError
from tests.support.upstream_server import kept_alive, sse_body, upstream

HELLO = GenerationRequest(request_id="r", model="far", input=ChatInput((Message("user", "Hi"),)))
END = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
SPEECH = [{"id": "a", "data": "AA", "transcript": "He"}, {"data": "BB", "transcript": "y"}, {"expires_at": 9}]
AUDIO = [{"audio": piece} for piece in SPEECH]
DETAILS = [{"reasoning_details": [{"index": 0, "type": "t", "text": part}]} for part in ("a", "b")]
FILE = {"type": "file_citation", "file": "x"}
SITE = {"start_index": 0, "end_index": 1, "title": "T", "url": "https://example.org/"}
LINK = {"type": "url_citation", "url_citation": SITE}
IMAGE = {"type": "image_url", "image_url": {"url": "data:"}}

REPLIES: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "refusal": ([{"refusal": "I can"}, {"refusal": "not"}], {"content": None, "refusal": "I cannot"}),
    "reasoning_content": (
        [{"reasoning_content": "Hm"}, {"reasoning_content": "m"}, {"content": "4"}],
        {"content": "4", "reasoning_content": "Hmm"},
    ),
    "reasoning": ([{"content": "", "reasoning": "Hm"}, {"content": "4"}], {"content": "4", "reasoning": "Hm"}),
    "details by index": (DETAILS, {"content": None, "reasoning_details": [{"index": 0, "type": "t", "text": "ab"}]}),
    "audio": (AUDIO, {"content": None, "audio": {"id": "a", "data": "AABB", "transcript": "Hey", "expires_at": 9}}),
    "content as a list": (
        [{"content": [{"type": "text", "text": "a"}, IMAGE]}, {"content": [{"type": "text", "text": "b"}]}],
        {"content": "ab", "content_parts": [IMAGE]},
    ),
    "annotations of two kinds": ([{"content": "x", "annotations": [LINK, FILE]}], {"content": "x", "annotations": [LINK, FILE]}),
    "custom calls": (
        [
            {"tool_calls": [{"index": 0, "id": "c", "type": "custom", "custom": {"name": "sql", "input": "SEL"}}]},
            {"tool_calls": [{"index": 0, "custom": {"input": "ECT"}}]},
        ],
        {"content": None, "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "sql", "input": "SELECT"}}]},
    ),
    "unknown": ([{"content": "x", "mood": {"level": 3}}], {"content": "x", "mood": {"level": 3}}),
}


def reply() -> ChatReply:
    return ChatReply(id="c", created=1, model="far", choices=1, logprobs=False, include_usage=False)


@pytest.mark.parametrize("count", [-1_000_000, 10**18, -(10**18)])
@pytest.mark.parametrize("name", ["prompt_tokens", "completion_tokens", "prompt_tokens_details", "completion_tokens_details"])
async def test_counts_that_cannot_be_give_nobody_back_what_was_used(name: str, count: int) -> None:
    value = {"cached_tokens": count, "reasoning_tokens": count} if name.endswith("details") else count
    usage = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1, name: value}}
    async with upstream(kept_alive(sse_body([{"choices": [{"index": 0, "delta": {"content": "x"}}]}, END, usage]))) as (backend, _):
        with pytest.raises(UpstreamError, match="is no number of tokens"):
            _ = [event async for event in backend.generate(HELLO)]


def test_no_price_is_negative_where_more_is_cached_than_was_asked() -> None:
    assert Price(input=2.0, cached_input=0.5).cost(10, 1000, 0) == Price(input=2.0, cached_input=0.5).cost(10, 10, 0) > 0


@pytest.mark.parametrize("kind", REPLIES)
async def test_fields_of_a_message_arrive_whole_and_piece_by_piece(kind: str) -> None:
    deltas, wanted = REPLIES[kind]
    script = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    async with upstream(kept_alive(sse_body([*script, END]))) as (backend, _):
        events = [event async for event in backend.generate(HELLO)]
    message = json.loads(await reply().fold(events))["choices"][0]["message"]
    assert {name: message[name] for name in wanted} == wanted
    streamed = b"".join(map(reply().chunk, events)).decode()
    for name in wanted.keys() - {"content"}:
        assert f'"{name}":' in streamed


async def test_a_message_in_place_of_a_delta_is_read() -> None:
    whole = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hey", "refusal": None}, "finish_reason": "stop"}]}
    async with upstream(kept_alive(sse_body([whole]))) as (backend, _):
        events = [event async for event in backend.generate(HELLO)]
    assert json.loads(await reply().fold(events))["choices"][0]["message"]["content"] == "Hey"


FINGERPRINT, SOURCES = {"system_fingerprint": "fp_theirs", "service_tier": "flex"}, {"citations": ["https://example.org/"]}
BESIDE: list[dict[str, Any]] = [
    FINGERPRINT | {"obfuscation": "xx", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
    FINGERPRINT | SOURCES | {"choices": [{"index": 0, "delta": {"content": "a"}, "token_ids": [1], "content_filter_results": {"x": 1}}]},
    FINGERPRINT | SOURCES | {"choices": [{"index": 0, "delta": {"content": "b"}, "token_ids": [2, 3], "logprobs": None}]},
    FINGERPRINT | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": 7, "native_finish_reason": "STOP"}]},
    {"choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5, "cost": 0.5}, "timings": {"ms": 1}},
]


async def told(script: list[dict[str, Any]], reply: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The whole reply, and the chunks of the streamed one."""
    async with upstream(kept_alive(sse_body(script))) as (backend, _):
        answered = [event async for event in backend.generate(HELLO)]
    whole = json.loads(await reply().fold(answered))
    streamed = reply()
    lines = b"".join(map(streamed.chunk, answered)) + await streamed.end(None)
    return whole, [json.loads(line[6:]) for line in lines.decode().splitlines() if line.startswith("data: {")]


async def test_fields_beside_the_message_arrive_whole() -> None:
    whole, _ = await told(BESIDE, reply)
    assert {name: whole[name] for name in ("system_fingerprint", "service_tier", "citations", "timings")} == (
        FINGERPRINT | SOURCES | {"timings": {"ms": 1}}
    )
    assert "obfuscation" not in whole
    choice = whole["choices"][0]
    assert (choice["token_ids"], choice["stop_reason"], choice["native_finish_reason"]) == ([1, 2, 3], 7, "STOP")
    assert choice["content_filter_results"] == {"x": 1}
    assert (whole["usage"]["cost"], whole["usage"]["total_tokens"]) == (0.5, 5)


async def test_fields_beside_the_message_arrive_with_their_chunks() -> None:
    _, chunks = await told(BESIDE, reply)
    assert {(chunk["system_fingerprint"], chunk["service_tier"]) for chunk in chunks} == {("fp_theirs", "flex")}
    assert [chunk["citations"] for chunk in chunks if "citations" in chunk] == list(SOURCES.values()), "once"
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert [choice.get("token_ids") for choice in choices] == [[1], [2, 3], None]
    assert (choices[-1]["stop_reason"], choices[-1]["finish_reason"]) == (7, "stop")
    assert chunks[-1]["timings"] == {"ms": 1}, "though no chunk of text came after it"


async def test_fields_beside_the_text_of_a_completion_arrive() -> None:
    script = [{"provider": "P", "choices": [{"index": 0, "text": "a", "finish_reason": "stop", "stop_reason": "x"}]}]

    def reply() -> CompletionReply:
        return CompletionReply(id="c", created=1, model="far", choices=1, logprobs=None, include_usage=False)

    whole, chunks = await told(script, reply)
    assert (whole["provider"], whole["choices"][0]["stop_reason"]) == ("P", "x")
    assert {chunk["provider"] for chunk in chunks} == {"P"}
    assert [choice.get("stop_reason") for chunk in chunks for choice in chunk["choices"]] == [None, "x"]


@pytest.mark.parametrize("asked", [True, False])
async def test_the_usage_that_a_server_tells_with_each_chunk_is_told_to_who_asked_for_it(asked: bool) -> None:
    def chunk(delta: dict[str, Any], tokens: int, reason: str | None = None) -> dict[str, Any]:
        usage = {"prompt_tokens": 5, "completion_tokens": tokens, "total_tokens": 5 + tokens}
        return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}], "usage": usage}

    script = [chunk({"role": "assistant", "content": ""}, 0), chunk({"content": "a"}, 1), chunk({"content": "b"}, 4), chunk({}, 4, "stop")]
    script.append({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9}})
    async with upstream(kept_alive(sse_body(script))) as (backend, _):
        transport = httpx.ASGITransport(create_app(Settings(), Catalog({"far": backend})))  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            options = {"include_usage": True, "continuous_usage_stats": asked}
            body = {"model": "far", "messages": [{"role": "user", "content": "Hi"}], "stream": True, "stream_options": options}
            lines = (await client.post("/v1/chat/completions", json=body)).text.splitlines()
    *chunks, last = [json.loads(line[6:])["usage"] for line in lines if line.startswith("data: {")]
    assert last["total_tokens"] == 9
    assert [usage and usage["completion_tokens"] for usage in chunks[1:]] == ([1, 4, 4] if asked else [None] * 3)
    assert not asked or all(usage["total_tokens"] == 5 + usage["completion_tokens"] for usage in chunks[1:])


async def test_a_fingerprint_of_another_server_is_in_every_chunk() -> None:
    """The role is sent with the first event of the text, so that what was said before it is known."""
    async with upstream(kept_alive(sse_body(BESIDE))) as (backend, _):
        transport = httpx.ASGITransport(create_app(Settings(), Catalog({"far": backend})))  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            body = {"model": "far", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
            lines = (await client.post("/v1/chat/completions", json=body)).text.splitlines()
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert {chunk["system_fingerprint"] for chunk in chunks} == {"fp_theirs"}


async def test_what_a_server_wants_back_with_a_call_is_part_of_the_call() -> None:
    """Gemini's thought signatures."""
    google = {"google": {"thought_signature": "S"}}
    calls = [
        {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{"}, "extra_content": google},
        {"index": 0, "function": {"arguments": "}"}},
        {"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]
    whole, chunks = await told([{"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]} for call in calls] + [END], reply)
    message = whole["choices"][0]["message"]
    assert message["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}, "extra_content": google},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]
    pieces = [piece for chunk in chunks for piece in chunk["choices"][0]["delta"].get("tool_calls", ())]
    assert [piece["index"] for piece in pieces if "extra_content" in piece] == [0]
