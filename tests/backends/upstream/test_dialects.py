"""Upstream servers that speak responses or messages, asked by clients of every endpoint: scripted servers on loopback, and a gateway."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from litestar.testing import AsyncTestClient

from mm_gateway.api.app import create_app
from mm_gateway.catalog import Catalog
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import Settings
from mm_gateway.core import (
    ChatInput,
    ChoiceFinished,
    CompletionInput,
    GenerationConfig,
    GenerationRequest,
    Grammar,
    Ignored,
    Message,
    MessageFields,
    Reasoning,
    ReasoningDelta,
    Rendering,
    TextDelta,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolUse,
    UrlCitation,
    Usage,
    UsageSoFar,
)
from mm_gateway.errors import UnsupportedParameterError, UpstreamError
from tests.support.scripted_backend import ScriptedBackend
from tests.support.scripted_backend import app_over as app_over_scripted
from tests.support.served import served
from tests.support.upstream_server import backend_of, kept_alive, sse_body, upstream

APIS = ("responses", "messages")
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
F = Tool("f", "Does.", SCHEMA)
CONVERSATION = (
    Message("system", "Be brief."),
    Message("user", "Hi"),
    Message("assistant", "I look.", reasoning="Hm.", tool_calls=(ToolCall("c1", "f", '{"a": 1}'), ToolCall("c2", "f", "{}"))),
    Message("tool", "2", tool_call_id="c1"),
    Message("tool", "3", tool_call_id="c2"),
    Message("user", "And?"),
)


def asking(
    messages: tuple[Message, ...] = (Message("user", "Hi"),), config: GenerationConfig | None = None, **input: Any
) -> GenerationRequest:
    return GenerationRequest(request_id="r", model="far", input=ChatInput(messages, **input), config=config or GenerationConfig())


def _response(*events: dict[str, Any], status: str = "completed", **fields: Any) -> bytes:
    usage = {
        "input_tokens": 9,
        "output_tokens": 5,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens_details": {"reasoning_tokens": 2},
    }
    last = {"type": f"response.{status}", "response": {"status": status, "usage": usage, **fields}}
    return kept_alive(sse_body([{"type": "response.created", "response": {}}, *events, last], done=False))


def _text(text: str) -> dict[str, Any]:
    return {"type": "response.output_text.delta", "output_index": 0, "delta": text}


def _message(*events: dict[str, Any], reason: str = "end_turn", stop: str | None = None) -> bytes:
    usage = {"input_tokens": 3, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 2, "output_tokens": 1}
    start = {"type": "message_start", "message": {"usage": usage}}
    end = {
        "type": "message_delta",
        "delta": {"stop_reason": reason, "stop_sequence": stop},
        "usage": {"output_tokens": 5, "output_tokens_details": {"reasoning_tokens": 2}},
    }
    return kept_alive(sse_body([start, {"type": "ping"}, *events, end, {"type": "message_stop"}], done=False))


def _block(number: int, block: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"type": "content_block_start", "index": number, "content_block": block},
        *({"type": "content_block_delta", "index": number, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": number},
    ]


THOUGHT_AND_CALLS = {
    "responses": _response(
        {"type": "response.output_item.added", "output_index": 0, "item": {"type": "reasoning", "id": "rs_1"}},
        {"type": "response.reasoning_summary_text.delta", "output_index": 0, "delta": "Hm"},
        {"type": "response.reasoning_summary_text.delta", "output_index": 0, "delta": "."},
        {
            "type": "response.output_item.done",
            "output_index": 0,
            "item": {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "sealed"},
        },
        {"type": "response.content_part.added", "output_index": 1, "part": {"type": "output_text"}},
        _text("I "),
        _text("look."),
        {
            "type": "response.output_item.added",
            "output_index": 2,
            "item": {"type": "function_call", "call_id": "c1", "name": "f", "arguments": ""},
        },
        {"type": "response.function_call_arguments.delta", "output_index": 2, "delta": '{"a"'},
        {"type": "response.function_call_arguments.delta", "output_index": 2, "delta": ": 1}"},
        {
            "type": "response.output_item.done",
            "output_index": 2,
            "item": {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a": 1}'},
        },
        {
            "type": "response.output_item.done",
            "output_index": 3,
            "item": {"type": "function_call", "call_id": "c2", "name": "f", "arguments": "{}"},
        },
    ),
    "messages": _message(
        *_block(
            0,
            {"type": "thinking", "thinking": ""},
            {"type": "thinking_delta", "thinking": "Hm"},
            {"type": "thinking_delta", "thinking": "."},
            {"type": "signature_delta", "signature": "sealed"},
        ),
        *_block(1, {"type": "text", "text": ""}, {"type": "text_delta", "text": "I "}, {"type": "text_delta", "text": "look."}),
        *_block(
            2,
            {"type": "tool_use", "id": "c1", "name": "f", "input": {}},
            {"type": "input_json_delta", "partial_json": '{"a"'},
            {"type": "input_json_delta", "partial_json": ": 1}"},
        ),
        *_block(3, {"type": "tool_use", "id": "c2", "name": "f", "input": {}}, {"type": "input_json_delta", "partial_json": "{}"}),
        reason="tool_use",
    ),
}


async def events_of(backend: Any, request: GenerationRequest) -> list[Any]:
    return [event async for event in backend.generate(request) if not isinstance(event, UsageSoFar)]


@pytest.mark.parametrize("api", APIS)
async def test_thoughts_texts_calls_and_usage_are_told_as_they_come(api: str) -> None:
    async with upstream(THOUGHT_AND_CALLS[api], api=api) as (backend, _):
        events = await events_of(backend, asking(tools=ToolUse((F,))))
    calls = [event for event in events if isinstance(event, ToolCallDelta)]
    assert events[:4] == [ReasoningDelta(0, "Hm"), ReasoningDelta(0, "."), TextDelta(0, "I "), TextDelta(0, "look.")]
    assert [(call.call, call.id) for call in calls if call.id] == [(0, "c1"), (1, "c2")]
    assert ["".join(call.arguments for call in calls if call.call == number) for number in (0, 1)] == ['{"a": 1}', "{}"]
    assert events[-2:] == [ChoiceFinished(0, "tool_calls"), Usage(9, 5, 4, 2)]


@pytest.mark.parametrize("api", APIS)
async def test_a_conversation_is_said_in_its_words_and_a_thought_comes_back_with_its_seal(api: str) -> None:
    async with upstream(THOUGHT_AND_CALLS[api], api=api) as (backend, seen):
        await events_of(backend, asking(tools=ToolUse((F,))))
        await events_of(
            backend, asking(CONVERSATION, GenerationConfig(max_new_tokens=50), tools=ToolUse((F,), required=True, parallel=False))
        )
    body = seen.requests[1][2]
    if api == "responses":
        assert body["input"] == [
            {"type": "message", "role": "system", "content": "Be brief."},
            {"type": "message", "role": "user", "content": "Hi"},
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "sealed"},
            {"type": "message", "role": "assistant", "content": "I look."},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a": 1}'},
            {"type": "function_call", "call_id": "c2", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "2"},
            {"type": "function_call_output", "call_id": "c2", "output": "3"},
            {"type": "message", "role": "user", "content": "And?"},
        ]
        tool = {"type": "function", "name": "f", "description": "Does.", "parameters": SCHEMA, "strict": False}
        assert (body["max_output_tokens"], body["store"], body["tools"]) == (50, False, [tool])
        assert (body["tool_choice"], body["parallel_tool_calls"]) == ("required", False)
        return
    assert body["system"] == "Be brief." and body["max_tokens"] == 50
    assert body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "sealed"},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}},
                {"type": "tool_use", "id": "c2", "name": "f", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "2"},
                {"type": "tool_result", "tool_use_id": "c2", "content": "3"},
                {"type": "text", "text": "And?"},
            ],
        },
    ]
    assert body["tools"] == [{"name": "f", "description": "Does.", "input_schema": SCHEMA}]
    assert body["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}


@pytest.mark.parametrize("api", APIS)
async def test_a_thought_whose_seal_is_not_known_is_not_brought_back(api: str) -> None:
    async with upstream(THOUGHT_AND_CALLS[api], api=api) as (backend, seen):
        await events_of(backend, asking(CONVERSATION))
    assert "Hm." not in json.dumps(seen.requests[0][2])


@pytest.mark.parametrize(
    ("api", "headers"),
    [
        ("responses", {"authorization": "bearer secret"}),
        ("messages", {"x-api-key": "secret", "anthropic-version": "2023-06-01"}),
    ],
)
async def test_the_key_goes_where_the_api_wants_it(api: str, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEIR_KEY", "secret")
    async with upstream(THOUGHT_AND_CALLS[api], api=api, api_key_env="THEIR_KEY") as (backend, seen):
        await events_of(backend, asking(tools=ToolUse((F,))))
    first, given, body = seen.requests[0]
    assert first.startswith(f"POST /v1/{api} ") and body["model"] == "their-name" and body["stream"] is True
    assert headers.items() <= given.items() and ("authorization" in given) == ("authorization" in headers)


SAID: list[tuple[str, GenerationRequest, dict[str, Any]]] = [
    ("responses", asking(config=GenerationConfig(temperature=0.5, top_p=0.9)), {"temperature": 0.5, "top_p": 0.9}),
    ("responses", asking(config=GenerationConfig(logprobs=3)), {"top_logprobs": 3}),
    ("responses", asking(config=GenerationConfig(grammar=Grammar("json_object"))), {"text": {"format": {"type": "json_object"}}}),
    ("responses", asking(reasoning=Reasoning(effort="low")), {"reasoning": {"effort": "low"}}),
    ("responses", asking(tools=ToolUse((F,), required=True, only="f", parallel=False)), {"tool_choice": {"type": "function", "name": "f"}}),
    ("responses", asking(truncate=True), {"truncation": "auto"}),
    ("messages", asking(config=GenerationConfig(temperature=0.5, top_p=0.9, top_k=4)), {"temperature": 0.5, "top_p": 0.9, "top_k": 4}),
    ("messages", asking(config=GenerationConfig(stop=("x",))), {"stop_sequences": ["x"]}),
    ("messages", asking(), {"max_tokens": 8192}),
    ("messages", asking(reasoning=Reasoning(thinking_budget=2000)), {"thinking": {"type": "enabled", "budget_tokens": 2000}}),
    ("messages", asking(reasoning=Reasoning(effort="none")), {"thinking": {"type": "disabled"}}),
    ("messages", asking(reasoning=Reasoning(effort="high")), {"output_config": {"effort": "high"}}),
    (
        "messages",
        asking(tools=ToolUse((F,), required=True, only="f", parallel=False)),
        {"tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True}},
    ),
    (
        "messages",
        asking(config=GenerationConfig(grammar=Grammar("json_schema", json.dumps(SCHEMA)))),
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
    ),
    (
        "messages",
        asking(
            (Message("user", "Hi"), Message("assistant", "So")),
            rendering=Rendering(add_generation_prompt=False, continue_final_message=True),
        ),
        {},
    ),
]


@pytest.mark.parametrize(("api", "request_", "fields"), SAID)
async def test_what_the_api_has_words_for_is_said(api: str, request_: GenerationRequest, fields: dict[str, Any]) -> None:
    async with upstream(THOUGHT_AND_CALLS[api], api=api) as (backend, seen):
        await events_of(backend, request_)
    body = seen.requests[0][2]
    assert {name: body.get(name) for name in fields} == fields


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (asking(config=GenerationConfig(seed=1)), "seed"),
        (asking(config=GenerationConfig(n=2)), "n"),
        (asking(config=GenerationConfig(frequency_penalty=1)), "frequency_penalty"),
        (asking(config=GenerationConfig(grammar=Grammar("regex", "a", "guided_regex"))), "guided_regex"),
        (asking(rendering=Rendering(variables={"enable_thinking": False})), "chat_template_kwargs"),
        (asking(echo=True), "echo"),
        (GenerationRequest(request_id="r", model="far", input=CompletionInput(("a",))), "model"),
    ],
)
async def test_what_it_has_no_words_for_is_refused_by_name(api: str, request_: GenerationRequest, param: str) -> None:
    async with upstream(THOUGHT_AND_CALLS[api], api=api) as (backend, seen):
        with pytest.raises(UnsupportedParameterError) as raised:
            await events_of(backend, request_)
    assert raised.value.param == param and not seen.requests


async def test_what_changes_no_text_is_left_out_and_named() -> None:
    tool = Tool("note", "", {"type": "object"}, input_grammar=Grammar("regex", "a", "tools[0].format.definition"))
    async with upstream(THOUGHT_AND_CALLS["responses"], api="responses") as (backend, _):
        events = await events_of(backend, asking(reasoning=Reasoning(thinking_budget=5), tools=ToolUse((tool,))))
    assert events[0] == Ignored(("thinking_budget", "tools[0].format.definition"))


@pytest.mark.parametrize(
    ("api", "answer", "expected"),
    [
        (
            "responses",
            _response(_text("a"), status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
            ChoiceFinished(0, "length"),
        ),
        (
            "responses",
            _response(_text("a"), status="incomplete", incomplete_details={"reason": "content_filter"}),
            ChoiceFinished(0, "content_filter"),
        ),
        ("responses", _response({"type": "response.refusal.delta", "delta": "No."}), MessageFields(0, {"refusal": "No."})),
        (
            "responses",
            _response(
                _text("a b"),
                {
                    "type": "response.output_text.annotation.added",
                    "annotation": {"type": "url_citation", "start_index": 0, "end_index": 1, "title": "T", "url": "http://t"},
                },
            ),
            UrlCitation(0, 0, 1, "T", "http://t"),
        ),
        ("messages", _message(*_block(0, {"type": "text", "text": "a"}), reason="max_tokens"), ChoiceFinished(0, "length")),
        ("messages", _message(*_block(0, {"type": "text", "text": "a"}), reason="stop_sequence", stop="x"), ChoiceFinished(0, "stop", "x")),
        ("messages", _message(*_block(0, {"type": "text", "text": "a"}), reason="refusal"), ChoiceFinished(0, "content_filter")),
    ],
)
async def test_how_a_reply_ends_and_what_else_it_says(api: str, answer: bytes, expected: Any) -> None:
    async with upstream(answer, api=api) as (backend, _):
        assert expected in await events_of(backend, asking())


def refusal(status: int, body: Any, extra: str = "") -> bytes:
    data = json.dumps(body).encode()
    return f"HTTP/1.1 {status} X\r\ncontent-length: {len(data)}\r\nconnection: close\r\n{extra}\r\n".encode() + data


@pytest.mark.parametrize("api", APIS)
async def test_refusals_keep_their_status_message_and_retry_after(api: str) -> None:
    inner = {"type": "rate_limit_error", "message": "slower"}
    body = {"type": "error", "error": inner} if api == "messages" else {"error": inner}
    async with upstream(refusal(429, body, "retry-after: 7\r\n"), api=api) as (backend, _):
        with pytest.raises(UpstreamError, match="slower") as raised:
            await events_of(backend, asking())
    assert (raised.value.status, raised.value.retry_after_s) == (429, 7)


@pytest.mark.parametrize(
    ("api", "events", "message"),
    [
        ("responses", [_text("a"), {"type": "error", "message": "died", "code": "server_error"}], "died"),
        (
            "responses",
            [_text("a"), {"type": "response.failed", "response": {"status": "failed", "error": {"code": "x", "message": "died"}}}],
            "died",
        ),
        ("responses", [_text("a")], "before the reply was complete"),
        ("responses", [{"type": "response.function_call_arguments.delta", "output_index": 9, "delta": "a"}], "broken stream"),
        ("messages", [{"type": "error", "error": {"type": "overloaded_error", "message": "died"}}], "died"),
        ("messages", [{"type": "message_start", "message": {}}], "before the reply was complete"),
        ("messages", [{"type": "message_delta", "delta": None}], "broken stream"),
    ],
)
async def test_a_stream_that_breaks_off_says_why(api: str, events: list[dict[str, Any]], message: str) -> None:
    async with upstream(kept_alive(sse_body(events, done=False)), api=api) as (backend, _):
        with pytest.raises(UpstreamError, match=message):
            await events_of(backend, asking())


async def test_a_whole_reply_in_the_place_of_a_stream_is_refused() -> None:
    async with upstream(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}", api="messages") as (
        backend,
        _,
    ):
        with pytest.raises(UpstreamError, match="answered a streaming request"):
            await events_of(backend, asking())


# A gateway in front of a gateway, in every pair of APIs: the one behind speaks all three.

CALLS: list[Any] = [
    ReasoningDelta(0, "Hm."),
    TextDelta(0, "I look."),
    ToolCallDelta(0, 0, id="c1", name="f"),
    ToolCallDelta(0, 0, arguments='{"a": 1}'),
    ChoiceFinished(0, "tool_calls"),
    Usage(9, 5, 4, 2),
]


@asynccontextmanager
async def in_front(api: str) -> AsyncIterator[tuple[AsyncTestClient[Any], ScriptedBackend]]:
    behind = ScriptedBackend(CALLS)
    with served(app_over_scripted(behind)) as port:
        config = ModelConfig(model_name="scripted", backend="remote", base_url=f"http://127.0.0.1:{port}/v1", api=api)  # type: ignore[arg-type]
        app = create_app(Settings(), Catalog({"far": backend_of(config)}))
        async with AsyncTestClient(app) as client:
            yield client, behind


async def streamed_text(client: AsyncTestClient[Any], path: str, body: dict[str, Any]) -> str:
    reply: httpx.Response = await client.post(path, json=body | {"stream": True})
    assert reply.status_code == 200 and reply.headers["content-type"].startswith("text/event-stream"), reply.text
    return reply.text


@pytest.mark.parametrize("api", ["chat", *APIS])
async def test_clients_of_every_endpoint_reach_it(api: str) -> None:
    function = {"name": "f", "description": "Does.", "parameters": SCHEMA}
    async with in_front(api) as (client, behind):
        chat = {"model": "far", "messages": [{"role": "user", "content": "Hi"}], "tools": [{"type": "function", "function": function}]}
        found = (await client.post("/v1/chat/completions", json=chat)).json()
        (choice,) = found["choices"]
        assert (choice["message"]["content"], choice["message"]["reasoning_content"], choice["finish_reason"]) == (
            "I look.",
            "Hm.",
            "tool_calls",
        )
        assert choice["message"]["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a": 1}'}
        assert (found["usage"]["prompt_tokens"], found["usage"]["prompt_tokens_details"]["cached_tokens"]) == (9, 4)
        assert "I look." in await streamed_text(client, "/v1/chat/completions", chat)

        responses = {"model": "far", "input": "Hi", "tools": [{"type": "function", **function, "strict": False}]}
        found = (await client.post("/v1/responses", json=responses)).json()
        assert [item["type"] for item in found["output"]] == ["reasoning", "message", "function_call"]
        assert found["usage"]["input_tokens"] == 9 and found["output"][2]["arguments"] == '{"a": 1}'
        assert "response.completed" in await streamed_text(client, "/v1/responses", responses)

        tool = {"name": "f", "description": "Does.", "input_schema": SCHEMA}
        messages = {"model": "far", "max_tokens": 99, "messages": [{"role": "user", "content": "Hi"}], "tools": [tool]}
        found = (await client.post("/v1/messages", json=messages)).json()
        assert [block["type"] for block in found["content"]] == ["thinking", "text", "tool_use"]
        assert found["usage"]["input_tokens"] == 5 and found["usage"]["cache_read_input_tokens"] == 4
        assert "message_stop" in await streamed_text(client, "/v1/messages", messages)
    for request in behind.requests:
        assert isinstance(request.input, ChatInput) and request.input.tools is not None
        assert request.input.messages[-1] == Message("user", "Hi") and request.input.tools.tools[0].name == "f"
