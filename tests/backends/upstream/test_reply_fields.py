"""What a remote server's reply holds beyond text and calls arrives at the client, streamed and whole."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mm_gateway.api.replies.chat import ChatReply
from mm_gateway.core import ChatInput, GenerationRequest, Message
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
    "unknown": ([{"content": "x", "mood": {"level": 3}}], {"content": "x", "mood": {"level": 3}}),
}


def reply() -> ChatReply:
    return ChatReply(id="c", created=1, model="far", choices=1, logprobs=False, include_usage=False)


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
