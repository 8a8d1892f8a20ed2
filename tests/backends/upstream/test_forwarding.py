"""What a client sends for a remote model arrives at its server as it was sent, and what that server says comes back whole."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from mm_gateway.api.app import create_app
from mm_gateway.catalog import Catalog
from mm_gateway.configuration.settings import Settings, StorageSettings
from tests.support.upstream_server import Upstream, kept_alive, sse_body, upstream

CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"
USER = {"role": "user", "content": "Hi"}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "detail": "low"}}
SOUND = {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}
PICTURE_ITEM = {"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "low"}
A_FILE, FILE = {"type": "input_file", "file_id": "f"}, {"type": "file", "file": {"file_id": "f"}}
CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
CALLED = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
}
SCHEMA = {"name": "n", "description": "d", "strict": False, "schema": {"type": "object", "uniqueItems": True}}
TOOL = {"type": "function", "function": {"name": "f", "strict": False, "parameters": {"type": "object"}}}
LOOSE_TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}  # strict has to be asked for in chat
END = [
    {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
]
TEXT_END = [{"choices": [{"index": 0, "text": "a", "finish_reason": "stop"}]}]
STREAMED = {"model": "their-name", "stream": True, "stream_options": {"include_usage": True}}


@asynccontextmanager
async def gateway(answer: bytes, tmp_path: Any, **settings: Any) -> AsyncIterator[tuple[httpx.AsyncClient, Upstream]]:
    async with upstream(answer) as (backend, seen):
        storage = StorageSettings(folder=str(tmp_path))
        app = create_app(Settings(storage=storage, **settings), Catalog({"far": backend}, default_model="far"))
        transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client, seen
        await app.state.responses.close()


def stream(chunks: list[Any]) -> bytes:
    return kept_alive(sse_body(chunks))


CHAT_FIELDS: list[dict[str, Any]] = [
    {"max_completion_tokens": 7},
    {"max_tokens": 7, "temperature": 1, "top_p": 0.5, "seed": 2**63, "logit_bias": {"5": 1}},
    {"response_format": {"type": "json_schema", "json_schema": SCHEMA}},
    {"tools": [TOOL, {"type": "web_search"}, {"type": "custom", "custom": {"name": "c"}}], "tool_choice": "auto"},
    {"tools": [TOOL], "tool_choice": {"type": "web_search"}, "parallel_tool_calls": True},
    {"functions": [{"name": "f"}], "function_call": {"name": "f"}},
    {"service_tier": "flex", "store": True, "metadata": {"a": "b"}, "prompt_cache_key": "k", "prompt_cache_retention": "24h", "user": "u"},
    {"reasoning_effort": "high", "verbosity": "low", "web_search_options": {}, "moderation": {"model": "m"}},
    {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}, "prediction": {"type": "content", "content": "x"}},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, PICTURE, SOUND]}]},
    {"messages": [USER, {"role": "assistant", "content": None, "reasoning_details": [{"a": 1}]}, {"role": "function", "name": "f"}]},
    {"top_k": -1, "min_tokens": 3, "stop_token_ids": [1], "chat_template_kwargs": {"enable_thinking": False}, "guided_regex": "a"},
    {"structured_outputs": {"regex": "a"}, "keep_alive": "5m", "thinking": {"type": "enabled"}, "never_heard_of": [None, {"x": 1.50}]},
    {"temperature": 5, "frequency_penalty": -9, "stop": ["a"] * 100, "messages": []},
]


@pytest.mark.parametrize("fields", CHAT_FIELDS, ids=lambda fields: next(iter(fields)))
async def test_every_field_of_chat_arrives_as_it_was_sent(fields: dict[str, Any], tmp_path: Any) -> None:
    async with gateway(stream(END), tmp_path) as (client, seen):
        reply = await client.post(CHAT, json={"model": "far", "messages": [USER]} | fields)
    assert reply.status_code == 200, reply.text
    assert seen.requests[0][2] == {"messages": [USER]} | fields | STREAMED
    assert reply.json()["model"] == "far"


async def test_what_a_client_says_of_its_stream_is_kept(tmp_path: Any) -> None:
    options = {"include_usage": False, "continuous_usage_stats": True}
    async with gateway(stream(END), tmp_path) as (client, seen):
        await client.post(CHAT, json={"model": "far", "messages": [USER], "stream": True, "stream_options": options})
    assert seen.requests[0][2]["stream_options"] == options | {"include_usage": True}


@pytest.mark.parametrize(
    "fields",
    [{"suffix": "b", "echo": True, "max_tokens": 0}, {"prompt": [1, 2]}, {"prompt_embeds": "AA", "use_beam_search": True, "best_of": 1}],
    ids=lambda fields: next(iter(fields)),
)
async def test_every_field_of_completions_arrives_as_it_was_sent(fields: dict[str, Any], tmp_path: Any) -> None:
    async with gateway(stream(TEXT_END), tmp_path) as (client, seen):
        reply = await client.post(COMPLETIONS, json={"model": "far", "prompt": "a"} | fields)
    assert reply.status_code == 200, reply.text
    assert seen.requests[0][2] == {"prompt": "a"} | fields | STREAMED


@pytest.mark.parametrize(("prompt", "n", "choices"), [("a", 2, 2), ([1, 2, 3], 1, 1), (["a", "b"], 2, 4), ([[1], [2]], 1, 2)])
async def test_choices_are_counted_by_prompts(prompt: Any, n: int, choices: int, tmp_path: Any) -> None:
    script = [{"choices": [{"index": index, "text": "a", "finish_reason": "stop"}]} for index in range(choices)]
    async with gateway(stream(script), tmp_path) as (client, _):
        reply = await client.post(COMPLETIONS, json={"model": "far", "prompt": prompt, "n": n})
    assert [choice["text"] for choice in reply.json()["choices"]] == ["a"] * choices


async def test_every_field_of_embeddings_arrives_as_it_was_sent(tmp_path: Any) -> None:
    body = {"input": [{"image": "AA"}, "b"], "input_type": "query", "truncate_prompt_tokens": -1, "dimensions": 2, "user": "u"}
    answer = json.dumps({"data": [{"index": index, "embedding": [1.0, 0.0]} for index in range(2)]}).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(answer)
    async with gateway(head + answer, tmp_path) as (client, seen):
        reply = await client.post(EMBEDDINGS, json={"model": "far"} | body)
    assert [item["embedding"] for item in reply.json()["data"]] == [[1.0, 0.0]] * 2
    assert seen.requests[0][2] == body | {"model": "their-name", "encoding_format": "base64"}


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (CHAT, {"n": 0}, "n"),
        (CHAT, {"n": "x"}, "n"),
        (CHAT, {"stream": "yes"}, "stream"),
        (CHAT, {"stream_options": {"include_usage": True}}, "stream_options"),
        (COMPLETIONS, {"prompt": "a", "best_of": 2}, "best_of"),
        (COMPLETIONS, {"prompt": ["a"] * 2000, "n": 2}, "prompt"),
        (EMBEDDINGS, {"input": "a", "encoding_format": "int8"}, "encoding_format"),
    ],
)
async def test_what_the_gateway_must_understand_is_checked(path: str, fields: dict[str, Any], param: str, tmp_path: Any) -> None:
    async with gateway(stream(END), tmp_path) as (client, seen):
        reply = await client.post(path, json={"model": "far"} | fields)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)
    assert seen.requests == []


@pytest.mark.parametrize("body", [b"[1]", b'{"model": "far", "messages": [}', b'{"model": "far", "user": "\xff"}'])
async def test_what_is_no_json_object_stays_here(body: bytes, tmp_path: Any) -> None:
    async with gateway(stream(END), tmp_path) as (client, seen):
        reply = await client.post(CHAT, content=body)
    assert reply.status_code == 400
    assert seen.requests == []


async def test_a_body_without_a_model_goes_to_the_default_one(tmp_path: Any) -> None:
    async with gateway(stream(END), tmp_path) as (client, seen):
        reply = await client.post(CHAT, json={"messages": [USER]})
    assert reply.json()["model"] == "far"
    assert seen.requests[0][2] == {"messages": [USER]} | STREAMED


RESPONSE_FIELDS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {"max_output_tokens": 5, "temperature": 0.5, "top_p": 0.5, "metadata": {"a": "b"}, "service_tier": "flex", "user": "u"},
        {"max_tokens": 5, "temperature": 0.5, "top_p": 0.5, "metadata": {"a": "b"}, "service_tier": "flex", "user": "u"},
    ),
    ({"prompt_cache_key": "k", "safety_identifier": "s", "store": False}, {"prompt_cache_key": "k", "safety_identifier": "s"}),
    (
        {"reasoning": {"effort": "high", "summary": "auto"}, "text": {"verbosity": "low", "format": {"type": "json_object"}}},
        {"reasoning_effort": "high", "verbosity": "low", "response_format": {"type": "json_object"}},
    ),
    (
        {"text": {"format": {"type": "json_schema", **SCHEMA}}},
        {"response_format": {"type": "json_schema", "json_schema": SCHEMA}},
    ),
    (
        {"tools": [{"type": "web_search"}, {"type": "function", **TOOL["function"]}], "tool_choice": {"type": "function", "name": "f"}},  # type: ignore[dict-item]
        {"tools": [LOOSE_TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}},
    ),
    ({"top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
    (
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": "data:"}]}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "data:"}}]}]},
    ),
    (
        {"input": [{"role": "user", "content": [SOUND, {"type": "input_file", "filename": "a.pdf", "file_data": "data:"}, A_FILE]}]},
        {"messages": [{"role": "user", "content": [SOUND, {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:"}}, FILE]}]},
    ),
    (
        {"input": [USER, CALL, {"type": "function_call_output", "call_id": "c", "output": [PICTURE_ITEM]}]},
        {"messages": [USER, CALLED, {"role": "tool", "content": [PICTURE], "tool_call_id": "c"}]},
    ),
]


@pytest.mark.parametrize(("fields", "sent"), RESPONSE_FIELDS, ids=lambda fields: next(iter(fields)))
async def test_a_response_is_asked_for_in_the_words_of_chat(fields: dict[str, Any], sent: dict[str, Any], tmp_path: Any) -> None:
    async with gateway(stream(END), tmp_path) as (client, seen):
        reply = await client.post(RESPONSES, json={"model": "far", "input": "Hi"} | fields)
    assert reply.status_code == 200, reply.text
    assert seen.requests[0][2] == {"messages": [USER]} | sent | STREAMED


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"reasoning": {"mode": "pro"}}, "reasoning.mode"),
        ({"conversation": "c"}, "conversation"),
        ({"truncation": "auto"}, "truncation"),
        ({"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}}, "tool_choice.type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]}, "input[0].content[0].file_id"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "http://x/a.pdf"}]}]}, "input[0].content[0].file_url"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_chat_has_no_words_for_is_refused_by_name(fields: dict[str, Any], param: str, tmp_path: Any) -> None:
    async with gateway(stream(END), tmp_path) as (client, seen):
        reply = await client.post(RESPONSES, json={"model": "far", "input": "Hi"} | fields)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param), reply.text
    assert seen.requests == []


async def test_a_turn_after_one_that_was_thought_about_is_asked_without_the_thought(tmp_path: Any) -> None:
    thinking = [{"choices": [{"index": 0, "delta": {"reasoning_content": "Hm"}, "finish_reason": None}]}, *END]
    async with gateway(stream(thinking), tmp_path) as (client, seen):
        first = (await client.post(RESPONSES, json={"model": "far", "input": "Hi"})).json()
        stored = await client.post(RESPONSES, json={"model": "far", "input": "Hi", "previous_response_id": first["id"]})
        sent_back = await client.post(RESPONSES, json={"model": "far", "input": [USER, *first["output"], USER]})
    assert [item["type"] for item in first["output"]] == ["reasoning", "message"]
    assert (stored.status_code, sent_back.status_code) == (200, 200), sent_back.text
    assert [request[2]["messages"] for request in seen.requests[1:]] == [[USER, {"role": "assistant", "content": "a"}, USER]] * 2
    assert sent_back.headers["x-mm-gateway-ignored"] == "input[1]"


async def test_a_thought_goes_with_what_followed_the_last_question(tmp_path: Any) -> None:
    thought = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "Hm"}]}
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    async with gateway(stream(END), tmp_path) as (client, seen):
        items = [USER, thought, call, {"type": "function_call_output", "call_id": "c", "output": "1"}]
        reply = await client.post(RESPONSES, json={"model": "far", "input": items})
    assert reply.status_code == 200, reply.text
    assert seen.requests[0][2]["messages"][1]["reasoning_content"] == "Hm"
    assert "x-mm-gateway-ignored" not in reply.headers
