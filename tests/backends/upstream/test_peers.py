"""Servers that stream in ways of their own: their replies come out as the one reply that was meant, or as an error."""

from __future__ import annotations

from typing import Any

import pytest

from mm_gateway.backends.upstream.backend import RemoteBackend
from mm_gateway.core import ChatInput, ChoiceFinished, GenerationConfig, GenerationRequest, Message, TextDelta, ToolCallDelta
from mm_gateway.errors import UpstreamError
from tests.support.upstream_server import CALLS, FAILURES, REFUSALS, kept_alive, sse_body, upstream

HELLO = GenerationRequest(request_id="r", model="far", input=ChatInput((Message("user", "Hi"),)))


async def events_of(backend: RemoteBackend, request: GenerationRequest = HELLO) -> list[Any]:
    return [event async for event in backend.generate(request)]


def text(content: str, reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": reason}]}


async def test_an_empty_finish_reason_ends_nothing() -> None:
    script = sse_body([text("a", ""), text("b", ""), text("", "length")])
    async with upstream(kept_alive(script)) as (backend, _):
        events = await events_of(backend)
    assert events[:-1] == [TextDelta(0, "a"), TextDelta(0, "b"), ChoiceFinished(0, "length")]


@pytest.mark.parametrize("reason", ["max_tokens", "model_length"])
async def test_other_words_for_the_end_are_understood(reason: str) -> None:
    async with upstream(kept_alive(sse_body([text("a", reason)]))) as (backend, _):
        assert ChoiceFinished(0, "length") in await events_of(backend)


@pytest.mark.parametrize("peer", CALLS)
async def test_pieces_of_calls_come_to_the_call_that_they_belong_to(peer: str) -> None:
    pieces, wanted = CALLS[peer]
    script = [{"choices": [{"index": 0, "delta": {"tool_calls": [piece]}, "finish_reason": None}]} for piece in pieces]
    calls: dict[int, list[str]] = {}
    ids: list[str] = []
    async with upstream(kept_alive(sse_body([*script, text("", "tool_calls")]))) as (backend, _):
        for event in await events_of(backend):
            if isinstance(event, ToolCallDelta):
                assert (event.id is None) == (event.call in calls), "id and name come with the first piece, once"
                ids += [event.id] if event.id is not None else []
                calls.setdefault(event.call, [event.name or "", ""])[1] += event.arguments
    assert [tuple(call) for call in calls.values()] == wanted
    assert list(calls) == list(range(len(wanted)))
    assert all(ids)
    assert len(set(ids)) == len(wanted)


@pytest.mark.parametrize("peer", FAILURES)
async def test_a_stream_that_does_not_end_well_is_an_error(peer: str) -> None:
    lines, says = FAILURES[peer]
    async with upstream(kept_alive(lines)) as (backend, _):
        with pytest.raises(UpstreamError, match=says) as caught:
            await events_of(backend)
    assert caught.value.status >= 400


async def test_a_cut_connection_is_an_error() -> None:
    cut = kept_alive(sse_body([text("a")], done=False)).removesuffix(b"0\r\n\r\n")
    async with upstream(cut.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1)) as (backend, _):
        with pytest.raises(UpstreamError, match="broke off"):
            await events_of(backend)


@pytest.mark.parametrize(("index", "n"), [(1, 1), (2, 2), (-1, 1), (10**30, 1)])
async def test_a_choice_that_nobody_asked_for_is_the_upstreams_fault(index: int, n: int) -> None:
    script = sse_body([{"choices": [{"index": index, "delta": {"content": "a"}, "finish_reason": "stop"}]}])
    request = GenerationRequest(request_id="r", model="far", input=HELLO.input, config=GenerationConfig(n=n))
    async with upstream(kept_alive(script)) as (backend, _):
        with pytest.raises(UpstreamError, match="broken stream") as caught:
            await events_of(backend, request)
    assert caught.value.status == 502


@pytest.mark.parametrize("shape", REFUSALS)
async def test_the_upstreams_words_survive_in_every_shape(shape: str) -> None:
    body, says = REFUSALS[shape]
    head = f"HTTP/1.1 429 X\r\ncontent-length: {len(body)}\r\nretry-after: 7\r\n\r\n"
    async with upstream(head.encode() + body) as (backend, _):
        with pytest.raises(UpstreamError, match=says) as caught:
            await events_of(backend)
    assert (caught.value.status, caught.value.retry_after_s, caught.value.type) == (429, 7, "rate_limit_error")


async def test_requests_one_after_the_other_share_a_connection() -> None:
    async with upstream(kept_alive(sse_body([text("a", "stop")]))) as (backend, seen):
        for _ in range(3):
            await events_of(backend)
    assert len(seen.requests) == 3
    assert seen.connections == 1
