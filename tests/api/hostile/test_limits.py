"""What is too much is refused with the field, the limit and the number that came; what is much and allowed is taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from mm_gateway.core import ChatInput, ChoiceFinished, TextDelta, Usage
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
from tests.support.large_bodies import CHAT, RESPONSES, SENT, TEXT, USER, VECTORS, call, calls, function_items, nested
from tests.support.scripted_backend import ScriptedBackend, app_over

ANSWER = [TextDelta(0, "a"), ChoiceFinished(0, "stop"), Usage(1, 1)]


def tools(count: int) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": f"f{index}"}} for index in range(count)]


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
