"""What is too much is refused with the field, the limit and the number that came; what is large keeps nobody else waiting."""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from litestar.testing import AsyncTestClient

from mm_gateway.api import chat
from mm_gateway.api.endpoint import LARGE_BODY_BYTES
from mm_gateway.core import ChatInput, ChoiceFinished, GenerationEvent, TextDelta, TokenLogprob, ToolCallDelta, Usage
from mm_gateway.core.limits import (
    MAX_BAD_WORD_CHARACTERS,
    MAX_BAD_WORDS,
    MAX_CONTENT_PARTS,
    MAX_CONVERSATION_TOOL_CALLS,
    MAX_GUIDED_CHOICES,
    MAX_ITEMS,
    MAX_JSON_DEPTH,
    MAX_JSON_OBJECTS,
    MAX_JSON_VALUES,
    MAX_LOGIT_BIAS,
    MAX_LOGPROB_ENTRIES,
    MAX_MESSAGES,
    MAX_METADATA,
    MAX_METADATA_VALUE_CHARACTERS,
    MAX_PROMPTS,
    MAX_STOP_CHARACTERS,
    MAX_STOP_STRINGS,
    MAX_STOP_TOKEN_IDS,
    MAX_TOKEN_IDS,
    MAX_TOOL_CALLS,
    MAX_TOOLS,
)
from tests.support.scripted_backend import ScriptedBackend, app_over
from tests.support.stalls import stalls

ANSWER = [TextDelta(0, "a"), ChoiceFinished(0, "stop"), Usage(1, 1)]
USER = {"role": "user", "content": "Hi"}
LONGEST_STALL_S = 0.25


def call(id: str, arguments: str = "{}") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": "f", "arguments": arguments}}


def calls(count: int, per_message: int = MAX_TOOL_CALLS) -> list[dict[str, Any]]:
    """A conversation with so many calls, each message's results in reverse order."""
    turns: list[dict[str, Any]] = [USER]
    for begin in range(0, count, per_message):
        ids = [f"call_{index}" for index in range(begin, min(begin + per_message, count))]
        turns.append({"role": "assistant", "tool_calls": [call(id) for id in ids]})
        turns += [{"role": "tool", "tool_call_id": id, "content": "1"} for id in reversed(ids)]
    return turns


def function_items(count: int) -> list[dict[str, Any]]:
    return [
        item
        for index in range(count)
        for item in (
            {"type": "function_call", "call_id": f"c{index}", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": f"c{index}", "output": "1"},
        )
    ]


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def tools(count: int) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": f"f{index}"}} for index in range(count)]


CHAT, TEXT, RESPONSES, VECTORS = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings"
SENT = {CHAT: {"messages": [USER]}, TEXT: {"prompt": "Hi"}, RESPONSES: {"input": "Hi"}, VECTORS: {"input": "Hi"}, "/detokenize": {}}


async def post(path: str, fields: dict[str, Any], backend: ScriptedBackend | None = None) -> Any:
    async with AsyncTestClient(app_over(backend or ScriptedBackend(ANSWER))) as client:
        return await client.post(path, json={"model": "scripted", **SENT[path], **fields})


def refused(path: str, fields: Callable[[], dict[str, Any]], field: str, limit: int) -> Any:
    return pytest.param(path, fields, field, limit, id=f"{path} {field} {limit}")


@pytest.mark.parametrize(
    ("path", "fields", "field", "limit"),
    [
        refused(CHAT, lambda: {"messages": [USER] * (MAX_MESSAGES + 1)}, "messages", MAX_MESSAGES),
        refused(
            CHAT,
            lambda: {"messages": [USER | {"content": [{"type": "text", "text": "a"}] * (MAX_CONTENT_PARTS + 1)}]},
            "messages[0].content",
            MAX_CONTENT_PARTS,
        ),
        refused(CHAT, lambda: {"messages": calls(10_000, 10_000)}, "messages", MAX_MESSAGES),
        refused(CHAT, lambda: {"messages": calls(600, 600)}, "messages[1].tool_calls", MAX_TOOL_CALLS),
        refused(CHAT, lambda: {"tools": tools(MAX_TOOLS + 1)}, "tools", MAX_TOOLS),
        refused(CHAT, lambda: {"logit_bias": dict.fromkeys(map(str, range(MAX_LOGIT_BIAS + 1)), 1)}, "logit_bias", MAX_LOGIT_BIAS),
        refused(CHAT, lambda: {"logit_bias": dict.fromkeys(map(str, range(300_000)), 1)}, "logit_bias", MAX_JSON_OBJECTS),
        refused(CHAT, lambda: {"stop": ["a"] * (MAX_STOP_STRINGS + 1)}, "stop", MAX_STOP_STRINGS),
        refused(CHAT, lambda: {"stop": ["a", "b" * (MAX_STOP_CHARACTERS + 1)]}, "stop[1]", MAX_STOP_CHARACTERS),
        refused(CHAT, lambda: {"stop": "b" * 1_000_000}, "stop", MAX_STOP_CHARACTERS),
        refused(CHAT, lambda: {"stop_token_ids": [1] * (MAX_STOP_TOKEN_IDS + 1)}, "stop_token_ids", MAX_STOP_TOKEN_IDS),
        refused(CHAT, lambda: {"bad_words": ["a"] * (MAX_BAD_WORDS + 1)}, "bad_words", MAX_BAD_WORDS),
        refused(CHAT, lambda: {"bad_words": ["b" * (MAX_BAD_WORD_CHARACTERS + 1)]}, "bad_words[0]", MAX_BAD_WORD_CHARACTERS),
        refused(CHAT, lambda: {"metadata": dict.fromkeys(map(str, range(MAX_METADATA + 1)), "a")}, "metadata", MAX_METADATA),
        refused(CHAT, lambda: {"metadata": {"a": "b" * 513}}, "metadata", MAX_METADATA_VALUE_CHARACTERS),
        refused(CHAT, lambda: {"guided_choice": ["a"] * (MAX_GUIDED_CHOICES + 1)}, "guided_choice", MAX_GUIDED_CHOICES),
        refused(CHAT, lambda: {"n": 128, "logprobs": True, "top_logprobs": 20}, "top_logprobs", MAX_LOGPROB_ENTRIES),
        refused(CHAT, lambda: {"workflow": {"a": [1] * (MAX_JSON_VALUES + 1)}}, "workflow", MAX_JSON_VALUES),
        refused(CHAT, lambda: {"workflow": {"a": [{}] * (MAX_JSON_OBJECTS + 1)}}, "workflow", MAX_JSON_OBJECTS),
        refused(CHAT, lambda: {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"a": nested(250)}}}]}, "tools", 100),
        refused(CHAT, lambda: {"web_search_options": nested(500)}, "web_search_options", MAX_JSON_DEPTH),
        refused(
            CHAT,
            lambda: {"messages": [USER, {"role": "assistant", "tool_calls": [call("c", "[" * 1000 + "]" * 1000)]}]},
            "messages[1].tool_calls[0].function.arguments",
            MAX_JSON_DEPTH,
        ),
        refused(TEXT, lambda: {"prompt": [1] * (MAX_TOKEN_IDS + 1)}, "prompt", MAX_TOKEN_IDS),
        refused(TEXT, lambda: {"prompt": [[1], [1] * (MAX_TOKEN_IDS + 1)]}, "prompt[1]", MAX_TOKEN_IDS),
        refused(TEXT, lambda: {"prompt": ["a"] * 20, "best_of": 128, "n": 1}, "prompt", MAX_PROMPTS),
        refused(TEXT, lambda: {"prompt": ["a"] * 16, "n": 128, "logprobs": 20, "max_tokens": 100}, "logprobs", MAX_LOGPROB_ENTRIES),
        refused(VECTORS, lambda: {"input": ["a"] * (MAX_PROMPTS + 1)}, "input", MAX_PROMPTS),
        refused(VECTORS, lambda: {"input": [1] * (MAX_TOKEN_IDS + 1)}, "input", MAX_TOKEN_IDS),
        refused("/detokenize", lambda: {"tokens": [1] * (MAX_TOKEN_IDS + 1)}, "tokens", MAX_TOKEN_IDS),
        refused("/detokenize", lambda: {"tokens": [1] * 3_000_000}, "tokens", MAX_JSON_VALUES),
        refused(RESPONSES, lambda: {"input": [USER] * (MAX_ITEMS + 1)}, "input", MAX_ITEMS),
        refused(RESPONSES, lambda: {"input": function_items(15_000)}, "input", MAX_ITEMS),
        refused(RESPONSES, lambda: {"tools": [{"type": "function"}] * (MAX_TOOLS + 1)}, "tools", MAX_TOOLS),
        refused(
            RESPONSES,
            lambda: {"input": [USER | {"content": [{"type": "input_text", "text": "a"}] * (MAX_CONTENT_PARTS + 1)}]},
            "input[0].content",
            MAX_CONTENT_PARTS,
        ),
        refused(
            RESPONSES,
            lambda: {"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "[" * 200 + "]" * 200}]},
            "input[0].arguments",
            MAX_JSON_DEPTH,
        ),
    ],
)
async def test_what_is_too_much_is_refused_by_field_and_limit(
    path: str, fields: Callable[[], dict[str, Any]], field: str, limit: int
) -> None:
    backend = ScriptedBackend(ANSWER)
    reply = await post(path, fields(), backend)
    error = reply.json()["error"]
    assert (reply.status_code, error["param"]) == (400, field), error
    assert str(limit) in error["message"] and field in error["message"]
    assert len(reply.content) < 1000
    assert backend.requests == []


async def test_a_conversation_of_all_the_calls_that_are_allowed_is_read_whole() -> None:
    backend = ScriptedBackend(ANSWER)
    # Fewer a message, so that the results fit among the messages.
    turns = calls(7000)
    assert (await post(CHAT, {"messages": turns}, backend)).status_code == 200
    given = backend.requests[0].input
    assert isinstance(given, ChatInput) and len(given.messages) == len(turns)
    backend = ScriptedBackend(ANSWER)
    assert (await post(RESPONSES, {"input": function_items(MAX_ITEMS // 2), "store": False}, backend)).status_code == 200
    given = backend.requests[0].input
    assert isinstance(given, ChatInput)
    assert sum(len(message.tool_calls) for message in given.messages) == MAX_ITEMS // 2


async def test_a_call_too_many_in_all_messages_is_refused() -> None:
    turns = [{"role": "assistant", "tool_calls": [call(f"c{index}") for index in range(MAX_TOOL_CALLS)]}]
    reply = await post(CHAT, {"messages": turns * (MAX_CONVERSATION_TOOL_CALLS // MAX_TOOL_CALLS + 1)})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "messages")
    assert str(MAX_CONVERSATION_TOOL_CALLS) in reply.json()["error"]["message"]


async def test_results_answer_calls_of_one_id_once_each() -> None:
    twice = [USER, {"role": "assistant", "tool_calls": [call("c"), call("c")]}]
    result = {"role": "tool", "tool_call_id": "c", "content": "1"}
    assert (await post(CHAT, {"messages": [*twice, result, result]})).status_code == 200
    reply = await post(CHAT, {"messages": [*twice, result]})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "messages[1].tool_calls")
    reply = await post(CHAT, {"messages": [*twice, result, result, result]})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "messages[4].tool_call_id")


@pytest.mark.parametrize(
    "fields",
    [
        {"stop": [f"stop {index}" for index in range(14)]},
        {"messages": [USER] * 900},
        {"tools": tools(MAX_TOOLS)},
        {"logit_bias": dict.fromkeys(map(str, range(2000)), -100)},
        {"n": 2, "logprobs": True, "top_logprobs": 20},
        {"logprobs": True, "top_logprobs": 20, "max_completion_tokens": 32_000},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"a": nested(50)}}}]},
        {"messages": [USER | {"content": '{"a": ["' + "\\" * 3 + '"]}, ' * 50_000}]},
    ],
    ids=lambda fields: str(fields)[:40],
)
async def test_what_agents_and_editors_send_is_taken(fields: dict[str, Any]) -> None:
    reply = await post(CHAT, fields)
    assert reply.status_code == 200, reply.text


@pytest.mark.parametrize("value", [{}, [], "", 0, False], ids=repr)
@pytest.mark.parametrize("field", ["audio", "moderation", "function_call"])
async def test_a_field_that_is_not_served_is_refused_when_it_is_empty_too(field: str, value: Any) -> None:
    reply = await post(CHAT, {field: value})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "unsupported_parameter")
    assert reply.json()["error"]["param"] == field


async def test_a_key_of_logit_bias_that_is_no_token_id_is_refused() -> None:
    for key in ("9" * 5000, "-1", "٣", "1e3", "x"):
        reply = await post(CHAT, {"logit_bias": {key: 1}})
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "logit_bias"), reply.text


LARGE: dict[str, tuple[str, Callable[[], dict[str, Any]]]] = {
    "results in reverse order": (CHAT, lambda: {"messages": calls(7000)}),
    "too many calls": (CHAT, lambda: {"messages": calls(20_000, 20_000)}),
    "logit_bias": (CHAT, lambda: {"logit_bias": dict.fromkeys(map(str, range(1_000_000)), 1)}),
    "messages": (CHAT, lambda: {"messages": [USER] * 100_000}),
    "stops": (CHAT, lambda: {"stop": ["a" * 1_000_000] * 4}),
    "objects": (CHAT, lambda: {"workflow": {"a": [{}] * 4_000_000}}),
    "quotes": (CHAT, lambda: {"user": '"\\' * 4_000_000}),
    "depth": (CHAT, lambda: {"workflow": {"a": [nested(90)] * 2000}}),
    "items": (RESPONSES, lambda: {"input": function_items(8000), "store": False}),
    "too many items": (RESPONSES, lambda: {"input": function_items(30_000)}),
    "ids": ("/detokenize", lambda: {"tokens": [1] * 3_000_000}),
    "prompts of ids": (TEXT, lambda: {"prompt": [[1] * 3000] * 2048}),
}


@pytest.fixture
def small_heap() -> Iterator[None]:
    """What the tests have loaded is left out of garbage collections, as it is in a server, which holds less."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("small_heap")
@pytest.mark.parametrize("name", LARGE)
async def test_a_large_body_keeps_nobody_waiting(name: str) -> None:
    path, fields = LARGE[name]
    body = json.dumps({"model": "scripted", **SENT[path], **fields()}, separators=(",", ":")).encode()
    # In the loop of the test, which is the one that is watched.
    transport = httpx.ASGITransport(app_over(ScriptedBackend(ANSWER)))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client, stalls() as seen:
        reply = await client.post(path, content=body, headers={"content-type": "application/json"})
    assert reply.status_code in (200, 400)
    assert seen.longest_cpu_s < LONGEST_STALL_S


def echo(tokens: int) -> TextDelta:
    """A prompt that is scored: one event, however long it is."""
    top = tuple((f"other {rank}", tuple(b"other"), -1.0 - rank) for rank in range(20))
    return TextDelta(0, "token" * tokens, logprobs=(TokenLogprob("token", tuple(b"token"), -0.5, top),) * tokens)


REPLIES: dict[str, tuple[str, dict[str, Any], list[GenerationEvent]]] = {
    "chat": (CHAT, {"logprobs": True, "top_logprobs": 20, "max_tokens": 10}, [echo(10_000)]),
    "completions": (TEXT, {"logprobs": 20, "echo": True}, [echo(10_000)]),
    "responses": (RESPONSES, {"top_logprobs": 20, "max_output_tokens": 10, "store": False}, [echo(10_000)]),
    "a long call": (
        CHAT,
        {},
        [ToolCallDelta(0, 0, id="c", name="f"), *[ToolCallDelta(0, 0, arguments="argument " * 10)] * 30_000],
    ),
}


@pytest.mark.usefixtures("small_heap")
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", REPLIES)
async def test_a_large_reply_keeps_nobody_waiting(name: str, stream: bool) -> None:
    path, fields, events = REPLIES[name]
    if stream and name == "a long call":
        pytest.skip("a stream sends each piece by itself")
    transport = httpx.ASGITransport(app_over(ScriptedBackend([*events, *ANSWER[1:]])))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client, stalls() as seen:
        reply = await client.post(path, json={"model": "scripted", **SENT[path], **fields, "stream": stream})
    assert reply.status_code == 200, reply.text[:300]
    assert len(reply.content) > 1_000_000
    assert seen.longest_cpu_s < LONGEST_STALL_S


async def test_small_bodies_are_read_where_they_come_and_large_ones_on_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []
    read = chat.chat_request

    def noted(body: Any, id: str, ignored: list[str], **given: Any) -> Any:
        threads.append(threading.current_thread().name)
        return read(body, id, ignored, **given)

    monkeypatch.setattr(chat, "chat_request", noted)
    transport = httpx.ASGITransport(app_over(ScriptedBackend(ANSWER)))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for size in (100, LARGE_BODY_BYTES):
            assert (await client.post(CHAT, json={"model": "scripted", "messages": [USER], "user": "x" * size})).status_code == 200
    assert threads[0] == threading.current_thread().name
    assert threads[1].startswith("bodies")
