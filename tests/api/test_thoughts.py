"""Thoughts on the wire of chat: what reaches the model, and what of them its clients see."""

from __future__ import annotations

import json
from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from mm_gateway.core import (
    ChatInput,
    ChoiceFinished,
    GenerationEvent,
    Message,
    PromptTokens,
    Reasoning,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from tests.support.scripted_backend import ScriptedBackend, app_over

END: list[GenerationEvent] = [ChoiceFinished(0, "stop"), Usage(3, 5, reasoning_tokens=3)]
SCRIPT: list[GenerationEvent] = [
    PromptTokens(0, (7,)),
    ReasoningDelta(0, "It was", (1, 2)),
    ReasoningDelta(0, " it.", (3,)),
    TextDelta(0, "It.", (4, 5)),
    *END,
]
CHAT: dict[str, Any] = {"model": "scripted", "messages": [{"role": "user", "content": "Which one?"}]}


async def ask(script: list[GenerationEvent] = SCRIPT, **fields: Any) -> tuple[Any, ScriptedBackend]:
    backend = ScriptedBackend(script)
    async with AsyncTestClient(app_over(backend)) as client:
        reply = await client.post("/v1/chat/completions", json=CHAT | fields)
    assert reply.status_code == 200, reply.text
    if not fields.get("stream"):
        return reply.json(), backend
    return [json.loads(line[6:]) for line in reply.text.splitlines() if line.startswith("data: {")], backend


async def test_a_thought_is_told_beside_the_content_under_both_names() -> None:
    reply, _ = await ask()
    message = reply["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"], message["reasoning"]) == ("It.", "It was it.", "It was it.")
    assert reply["usage"]["completion_tokens_details"]["reasoning_tokens"] == 3


async def test_a_stream_tells_the_thought_piece_by_piece() -> None:
    chunks, _ = await ask(stream=True)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert [delta["reasoning_content"] for delta in deltas if "reasoning_content" in delta] == ["It was", " it."]
    assert all(delta.get("reasoning") == delta.get("reasoning_content") for delta in deltas)
    assert "".join(delta.get("content", "") for delta in deltas) == "It."


async def test_a_reply_without_thoughts_has_no_such_fields() -> None:
    reply, _ = await ask([TextDelta(0, "It."), *END])
    assert {"reasoning", "reasoning_content"}.isdisjoint(reply["choices"][0]["message"])


async def test_a_message_that_is_only_thought_or_calls_has_no_content() -> None:
    thought = ReasoningDelta(0, "Hm")
    reply, _ = await ask([thought, *END])
    assert (reply["choices"][0]["message"]["content"], reply["choices"][0]["message"]["reasoning"]) == (None, "Hm")
    reply, _ = await ask([thought, ToolCallDelta(0, 0, "{}", id="c", name="f"), *END])
    message = reply["choices"][0]["message"]
    assert (message["content"], message["reasoning"], len(message["tool_calls"])) == (None, "Hm", 1)


@pytest.mark.parametrize("fields", [{"include_reasoning": False}, {"reasoning": {"exclude": True}}])
async def test_thoughts_are_left_out_where_that_is_asked_for(fields: dict[str, Any]) -> None:
    reply, _ = await ask(**fields)
    assert "Hm" not in json.dumps(reply) and reply["choices"][0]["message"]["content"] == "It."
    assert "reasoning_content" not in json.dumps((await ask(stream=True, **fields))[0])


async def test_token_ids_are_those_of_the_thought_too() -> None:
    reply, _ = await ask(return_token_ids=True)
    assert reply["choices"][0]["token_ids"] == [1, 2, 3, 4, 5]
    chunks, _ = await ask(return_token_ids=True, stream=True)
    assert [id for chunk in chunks for id in chunk["choices"][0].get("token_ids", ())] == [1, 2, 3, 4, 5]
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks, _ = await ask(stream=True, stream_options=options)
    assert [chunk["usage"]["completion_tokens"] for chunk in chunks[1:4]] == [2, 3, 5]


@pytest.mark.parametrize(
    ("fields", "reasoning"),
    [
        ({}, Reasoning()),
        ({"reasoning_effort": "low"}, Reasoning(effort="low")),
        ({"reasoning_effort": None}, Reasoning()),
        ({"reasoning": {"effort": "none"}}, Reasoning(effort="none", param="reasoning.effort")),
        ({"reasoning": {"enabled": False}}, Reasoning(effort="none", param="reasoning.enabled")),
        ({"reasoning": {"max_tokens": 9}}, Reasoning(thinking_budget=9, budget_param="reasoning.max_tokens")),
        ({"thinking_budget": 0, "reasoning_effort": "xhigh"}, Reasoning(effort="xhigh", thinking_budget=0)),
        ({"thinking_token_budget": 7}, Reasoning(thinking_budget=7, budget_param="thinking_token_budget")),
        ({"thinking_token_budget": -1}, Reasoning()),
    ],
)
async def test_what_controls_thoughts_reaches_the_model(fields: dict[str, Any], reasoning: Reasoning) -> None:
    _, backend = await ask(**fields)
    assert isinstance(backend.requests[0].input, ChatInput)
    assert backend.requests[0].input.reasoning == reasoning


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
async def test_thoughts_of_earlier_turns_are_brought_back_under_either_name(name: str) -> None:
    turns = [{"role": "assistant", "content": "It.", name: "It was it."}, {"role": "assistant", name: "Only thought."}]
    _, backend = await ask(messages=[*CHAT["messages"], *turns])
    assert isinstance(backend.requests[0].input, ChatInput)
    assert backend.requests[0].input.messages[1:] == (
        Message("assistant", "It.", reasoning="It was it."),
        Message("assistant", "", reasoning="Only thought."),
    )
