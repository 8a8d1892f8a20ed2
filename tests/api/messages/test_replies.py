"""Replies of `/v1/messages`: events in Anthropic's order, the whole message as their fold, stop reasons, errors."""

from __future__ import annotations

import json
from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from mm_gateway.core import (
    ChoiceFinished,
    MessageFields,
    Progress,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    UrlCitation,
    Usage,
    UsageSoFar,
)
from mm_gateway.errors import (
    ContextLengthExceededError,
    EngineError,
    InvalidRequestError,
    ModelLoadError,
    ModelUnavailableError,
    PermissionDeniedError,
    RateLimitError,
    UpstreamError,
)
from tests.support.scripted_backend import ScriptedBackend, Step, app_over

BODY: dict[str, Any] = {"model": "scripted", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}]}
HELLO: list[Step] = [Progress("loading"), TextDelta(0, 'He"l'), TextDelta(0, "lo 世"), ChoiceFinished(0, "stop"), Usage(5, 2, 3)]
CALLS: list[Step] = [
    ReasoningDelta(0, "Let me"),
    ReasoningDelta(0, " see."),
    TextDelta(0, "Wait."),
    ToolCallDelta(0, 0, id="c1", name="f"),
    ToolCallDelta(0, 0, arguments='{"a"'),
    ToolCallDelta(0, 0, arguments=": 1}"),
    ToolCallDelta(0, 1, id="c2", name="g", arguments="{}"),
    ChoiceFinished(0, "tool_calls"),
    Usage(3, 9, reasoning_tokens=4),
]


async def stream_of(script: list[Step], fields: dict[str, Any] | None = None, /, **server: Any) -> list[Any]:
    """Comments as text, events as objects, each named by its type."""
    async with AsyncTestClient(app_over(ScriptedBackend(script), **server)) as client:
        reply = await client.post("/v1/messages", json=BODY | {"stream": True} | (fields or {}))
    assert reply.status_code == 200, reply.text
    found: list[Any] = []
    for block in reply.text[:-2].split("\n\n"):
        if block.startswith(":"):
            found.append(block)
            continue
        name, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


async def whole(script: list[Step], **fields: Any) -> Any:
    async with AsyncTestClient(app_over(ScriptedBackend(script))) as client:
        reply = await client.post("/v1/messages", json=BODY | fields)
    assert reply.status_code == 200, reply.text
    return reply.json()


def assembled(events: list[Any]) -> Any:
    """The message that a client makes of a stream."""
    message: Any = None
    for event in events:
        match event:
            case {"type": "message_start"}:
                message = event["message"]
            case {"type": "content_block_start", "index": index, "content_block": block}:
                assert index == len(message["content"])
                message["content"].append(block | ({"input": ""} if block["type"] == "tool_use" else {}))
            case {"type": "content_block_delta", "index": index, "delta": delta}:
                names = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}
                if delta["type"] == "input_json_delta":
                    message["content"][index]["input"] += delta["partial_json"]
                elif delta["type"] in names:
                    name = names[delta["type"]]
                    message["content"][index][name] = message["content"][index].get(name, "") + delta[name]
            case {"type": "content_block_stop", "index": index}:
                if message["content"][index]["type"] == "tool_use":
                    message["content"][index]["input"] = json.loads(message["content"][index]["input"] or "{}")
            case {"type": "message_delta"}:
                message |= event["delta"] | {"usage": event["usage"]}
            case _:
                pass
    return message


async def test_a_stream_begins_with_the_tokens_of_the_prompt_where_they_are_known() -> None:
    starts = [(await stream_of([*said, *HELLO]))[0] for said in ([UsageSoFar(7, 0)], [])]
    assert [start["message"]["usage"]["input_tokens"] for start in starts] == [7, 0]


async def test_a_text_is_told_in_anthropics_order() -> None:
    events = await stream_of(HELLO)
    assert [event["type"] for event in events] == [
        "message_start",
        "content_block_start",
        "ping",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert events[0]["message"] | {"id": ""} == {
        "type": "message",
        "id": "",
        "role": "assistant",
        "model": "scripted",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": events[0]["message"]["usage"],
    }
    assert events[1]["content_block"] == {"type": "text", "text": ""}
    assert events[3]["delta"] == {"type": "text_delta", "text": 'He"l'}


async def test_the_prompts_tokens_that_were_reused_are_counted_apart() -> None:
    usage = (await whole(HELLO))["usage"]
    assert (usage["input_tokens"], usage["cache_read_input_tokens"], usage["output_tokens"]) == (2, 3, 2)


@pytest.mark.parametrize("script", [HELLO, CALLS, [ChoiceFinished(0, "stop"), Usage(1, 0)]])
async def test_a_whole_message_is_what_its_stream_says(script: list[Step]) -> None:
    streamed, message = assembled(await stream_of(script)), await whole(script)
    for name in ("content", "stop_reason", "stop_sequence", "usage", "role", "type", "model"):
        assert streamed[name] == message[name]


async def test_thoughts_text_and_calls_are_blocks() -> None:
    message = await whole(CALLS)
    thought, text, first, second = message["content"]
    assert thought["type"] == "thinking" and thought["thinking"] == "Let me see." and thought["signature"]
    assert text == {"type": "text", "text": "Wait."}
    assert first == {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}}
    assert second == {"type": "tool_use", "id": "c2", "name": "g", "input": {}}
    assert message["stop_reason"] == "tool_use" and message["usage"]["output_tokens_details"] == {"thinking_tokens": 4}


async def test_the_signature_comes_last_in_a_thought() -> None:
    deltas = [event["delta"]["type"] for event in await stream_of(CALLS) if event["type"] == "content_block_delta" and event["index"] == 0]
    assert deltas == ["thinking_delta", "thinking_delta", "signature_delta"]


@pytest.mark.parametrize("stream", [False, True])
async def test_thoughts_that_are_not_to_be_shown_come_back_in_their_signature(stream: bool) -> None:
    thinking = {"thinking": {"type": "adaptive", "display": "omitted"}}
    message = assembled(await stream_of(CALLS, thinking)) if stream else await whole(CALLS, **thinking)
    block = message["content"][0]
    assert block["thinking"] == "" and block["signature"]
    backend = ScriptedBackend(HELLO)
    async with AsyncTestClient(app_over(backend)) as client:
        history = [*BODY["messages"], {"role": "assistant", "content": [block, message["content"][1]]}, *BODY["messages"]]
        reply = await client.post("/v1/messages", json=BODY | {"messages": history})
    assert reply.status_code == 200 and "x-mm-gateway-ignored" not in reply.headers
    assert backend.requests[0].input.messages[1].reasoning == "Let me see."  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("end", "fields", "reason", "sequence"),
    [
        ([ChoiceFinished(0, "stop"), Usage(1, 1)], {}, "end_turn", None),
        ([ChoiceFinished(0, "stop", "END"), Usage(1, 1)], {"stop_sequences": ["END"]}, "stop_sequence", "END"),
        ([ChoiceFinished(0, "length"), Usage(1, 100)], {}, "max_tokens", None),
        ([ChoiceFinished(0, "length"), Usage(1, 27)], {}, "model_context_window_exceeded", None),
        ([ChoiceFinished(0, "content_filter"), Usage(1, 1)], {}, "refusal", None),
        ([MessageFields(0, {"refusal": "No."}), ChoiceFinished(0, "stop"), Usage(1, 1)], {}, "refusal", None),
    ],
)
async def test_why_a_reply_ended(end: list[Step], fields: dict[str, Any], reason: str, sequence: str | None) -> None:
    message = await whole([TextDelta(0, "a"), *end], **fields)
    assert (message["stop_reason"], message["stop_sequence"]) == (reason, sequence)


async def test_a_function_that_had_to_be_called_is_a_use_of_a_tool() -> None:
    tools = {"tools": [{"name": "f", "input_schema": {"type": "object"}}], "tool_choice": {"type": "tool", "name": "f"}}
    call: list[Step] = [ToolCallDelta(0, 0, "{}", id="c1", name="f"), ChoiceFinished(0, "stop"), Usage(1, 1)]
    assert (await whole(call, **tools))["stop_reason"] == "tool_use"


async def test_an_input_that_was_cut_is_what_there_is_of_it() -> None:
    cut: list[Step] = [ToolCallDelta(0, 0, '{"a": 1, "b": "te', id="c1", name="f"), ChoiceFinished(0, "length"), Usage(1, 100)]
    message = await whole(cut)
    assert message["content"][0]["input"]["a"] == 1 and message["stop_reason"] == "max_tokens"


async def test_an_input_of_another_server_that_is_no_object_is_its_error() -> None:
    script: list[Step] = [ToolCallDelta(0, 0, "[1", id="c1", name="f"), ChoiceFinished(0, "tool_calls"), Usage(1, 1)]
    async with AsyncTestClient(app_over(ScriptedBackend(script))) as client:
        reply = await client.post("/v1/messages", json=BODY)
    assert reply.status_code == 502 and reply.json()["error"]["type"] == "api_error"


async def test_sources_of_a_text_are_its_citations() -> None:
    script: list[Step] = [TextDelta(0, "So."), UrlCitation(0, 0, 2, "Page", "https://a.example/"), ChoiceFinished(0, "stop"), Usage(1, 1)]
    (block,) = (await whole(script))["content"]
    assert block["citations"][0] | {"cited_text": ""} == {
        "type": "web_search_result_location",
        "url": "https://a.example/",
        "title": "Page",
        "cited_text": "",
        "encrypted_index": "",
    }
    assert [event["delta"]["type"] for event in await stream_of(script) if event["type"] == "content_block_delta"] == [
        "text_delta",
        "citations_delta",
    ]


async def test_a_stream_that_waits_sends_pings() -> None:
    events = await stream_of([0.3, *HELLO], early_commit_s=0.05, heartbeat_s=0.05)
    assert next(event["type"] for event in events if isinstance(event, dict)) == "ping"


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (InvalidRequestError("x"), 400, "invalid_request_error"),
        (PermissionDeniedError("x"), 403, "permission_error"),
        (RateLimitError("x", retry_after_s=2.5), 429, "rate_limit_error"),
        (ModelUnavailableError("x", retryable=True), 529, "overloaded_error"),
        (ModelLoadError("x"), 503, "api_error"),
        (EngineError("x"), 500, "api_error"),
        (UpstreamError("x"), 502, "api_error"),
        (RuntimeError("secret"), 500, "api_error"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
async def test_errors_have_anthropics_envelope_in_streams_and_before_them(error: Exception, status: int, kind: str) -> None:
    async with AsyncTestClient(app_over(ScriptedBackend([error]))) as client:
        for stream in (False, True):
            reply = await client.post("/v1/messages", json=BODY | {"stream": stream})
            assert reply.status_code == status
            assert reply.json()["type"] == "error" and reply.json()["error"]["type"] == kind
            assert reply.json()["request_id"] == reply.headers["request-id"]
            assert "secret" not in reply.text
    events = await stream_of([TextDelta(0, "a"), error])
    assert events[-1]["type"] == "error" and events[-1]["error"]["type"] == kind


async def test_a_prompt_that_is_too_long_is_an_error_that_anthropics_clients_know() -> None:
    async with AsyncTestClient(app_over(ScriptedBackend([ContextLengthExceededError(8, 9)]))) as client:
        reply = await client.post("/v1/messages", json=BODY)
    assert (reply.status_code, reply.json()["error"]["message"]) == (400, "prompt is too long: 9 tokens > 8 maximum")


async def test_an_error_names_the_field_in_the_words_of_this_api() -> None:
    error = InvalidRequestError("`uniqueItems` cannot be enforced", param="tools[0].function.parameters.properties.a.uniqueItems")
    async with AsyncTestClient(app_over(ScriptedBackend([error]))) as client:
        reply = await client.post("/v1/messages", json=BODY)
    assert reply.json()["error"]["message"].startswith("tools[0].input_schema.properties.a.uniqueItems: ")


async def test_whoever_sends_anthropics_header_gets_its_errors_and_listings_everywhere() -> None:
    header = {"anthropic-version": "2023-06-01"}
    async with AsyncTestClient(app_over(ScriptedBackend(HELLO), ScriptedBackend(HELLO, "other"))) as client:
        assert (await client.get("/nowhere", headers=header)).json()["error"]["type"] == "not_found_error"
        assert (await client.get("/v1/models/none", headers=header)).json()["error"]["type"] == "not_found_error"
        assert (await client.get("/v1/models/none")).json()["error"]["code"] == "model_not_found"
        assert (await client.get("/v1/models")).json()["object"] == "list"
        first = (await client.get("/v1/models?limit=1", headers=header)).json()
        assert first["data"][0] == {
            "type": "model",
            "id": "scripted",
            "display_name": "scripted",
            "created_at": "2023-11-14T22:13:20Z",
            "max_input_tokens": 128,
            "max_tokens": 128,
            "lifecycle": "active",
        }
        assert first["has_more"] and first["last_id"] == "scripted"
        second = (await client.get("/v1/models?limit=1&after_id=scripted", headers=header)).json()
        assert second["data"][0]["id"] == "other"
        assert (await client.get("/v1/models?limit=5&before_id=other", headers=header)).json()["data"] == first["data"]
        assert (await client.get("/v1/models?limit=0", headers=header)).status_code == 400
        assert (await client.get("/v1/models/an-alias", headers=header)).json()["type"] == "model"
        assert (await client.head("/")).status_code == 200
