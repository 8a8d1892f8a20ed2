"""The mock thinks where it is told to, within the budget and the effort, on the wire of every API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from mm_gateway.api.app import create_app
from mm_gateway.catalog import build_catalog
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import Settings

SCRIPT = """
- {thought: I should read it first., calls: [{name: read}]}
- {thought: Now it is clear., text: All is done.}
"""
THINK = "Which one? !mock think=5 tokens=3"
READ = {"type": "function", "function": {"name": "read"}}


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[AsyncTestClient]:
    (tmp_path / "script.yaml").write_text(SCRIPT)
    models = {
        "mock": ModelConfig(model_name="mock", backend="mock"),
        "scripted": ModelConfig(model_name="scripted", backend="mock", script=str(tmp_path / "script.yaml")),
    }
    settings = Settings(models=models)
    async with AsyncTestClient(create_app(settings, build_catalog(settings))) as client:
        yield client


async def chat(client: AsyncTestClient, text: str = THINK, model: str = "mock", **fields: Any) -> Any:
    body = {"model": model, "messages": [{"role": "user", "content": text}]} | fields
    reply = await client.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200, reply.text
    return reply


async def test_a_thought_comes_before_the_answer_and_counts(client: AsyncTestClient) -> None:
    reply = (await chat(client, n=2, return_token_ids=True)).json()
    for choice in reply["choices"]:
        assert len(choice["message"]["reasoning_content"].split()) == 5 and len(choice["message"]["content"].split()) == 3
        assert choice["finish_reason"] == "stop" and len(choice["token_ids"]) == 8
    usage = reply["usage"]
    assert (usage["completion_tokens"], usage["completion_tokens_details"]["reasoning_tokens"]) == (16, 10)
    assert "reasoning_content" not in (await chat(client, "Hi")).json()["choices"][0]["message"]


async def test_it_is_streamed_token_by_token(client: AsyncTestClient) -> None:
    reply = await chat(client, stream=True)
    deltas = [json.loads(line[6:])["choices"][0]["delta"] for line in reply.text.splitlines() if line.startswith("data: {")]
    kinds = ["thought" if "reasoning" in delta else "answer" for delta in deltas if "reasoning" in delta or delta.get("content")]
    assert kinds == ["thought"] * 5 + ["answer"] * 3
    assert "reasoning" not in (await chat(client, stream=True, include_reasoning=False)).text


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({}, 600),
        ({"reasoning_effort": "none"}, 0),
        ({"reasoning_effort": "minimal"}, 512),
        ({"reasoning_effort": "high"}, 600),
        ({"thinking_budget": 7, "reasoning_effort": "high"}, 7),
        ({"thinking_budget": 0}, 0),
        ({"reasoning": {"max_tokens": 9}}, 9),
    ],
)
async def test_budget_and_effort_are_obeyed(client: AsyncTestClient, fields: dict[str, Any], tokens: int) -> None:
    reply = await chat(client, "!mock think=600 tokens=3", **fields)
    choice, details = reply.json()["choices"][0], reply.json()["usage"]["completion_tokens_details"]
    assert len(choice["message"].get("reasoning", "").split()) == details["reasoning_tokens"] == tokens
    assert len(choice["message"]["content"].split()) == 3
    assert "x-mm-gateway-ignored" not in reply.headers


async def test_the_limit_counts_both_and_stops_only_the_answer(client: AsyncTestClient) -> None:
    choice = (await chat(client, max_tokens=4)).json()["choices"][0]
    assert (len(choice["message"]["reasoning"].split()), choice["message"]["content"], choice["finish_reason"]) == (4, None, "length")
    choice = (await chat(client, max_tokens=6)).json()["choices"][0]
    assert (len(choice["message"]["content"].split()), choice["finish_reason"]) == (1, "length")
    thought = (await chat(client)).json()["choices"][0]["message"]["reasoning"]
    stopped = (await chat(client, stop=thought.split()[0], temperature=0)).json()["choices"][0]
    assert stopped["message"]["reasoning"] == thought


async def test_grammars_and_calls_come_behind_it(client: AsyncTestClient) -> None:
    message = (await chat(client, "!mock think=4", guided_regex="[0-9]{3}")).json()["choices"][0]["message"]
    assert len(message["reasoning"].split()) == 4 and message["content"].isdigit()
    message = (await chat(client, "!mock think=4", tools=[READ])).json()["choices"][0]["message"]
    assert len(message["reasoning"].split()) == 4 and message["tool_calls"][0]["function"]["name"] == "read"


async def test_an_effort_without_a_thought_is_named_as_ignored(client: AsyncTestClient) -> None:
    assert (await chat(client, "Hi", reasoning_effort="low")).headers["x-mm-gateway-ignored"] == "reasoning_effort"
    assert "x-mm-gateway-ignored" not in (await chat(client, "Hi", reasoning_effort="none")).headers


async def test_a_script_thinks(client: AsyncTestClient) -> None:
    first = (await chat(client, "Do it.", "scripted", tools=[READ])).json()["choices"][0]["message"]
    assert (first["reasoning"], first["tool_calls"][0]["function"]["name"]) == ("I should read it first.", "read")
    turns = [{"role": "user", "content": "Do it."}, first, {"role": "tool", "tool_call_id": first["tool_calls"][0]["id"], "content": "ok"}]
    second = (await chat(client, model="scripted", tools=[READ], messages=turns)).json()["choices"][0]["message"]
    assert (second["reasoning"], second["content"]) == ("Now it is clear.", "All is done.")
    cut = await chat(client, model="scripted", tools=[READ], messages=turns, thinking_budget=2)
    assert cut.json()["choices"][0]["message"]["reasoning"] == "Now it"


async def test_responses_and_messages_tell_it_in_their_own_words(client: AsyncTestClient) -> None:
    response = (await client.post("/v1/responses", json={"model": "mock", "input": THINK})).json()
    assert [item["type"] for item in response["output"]] == ["reasoning", "message"]
    assert len(response["output"][0]["content"][0]["text"].split()) == response["usage"]["output_tokens_details"]["reasoning_tokens"] == 5
    asked = {"model": "mock", "max_tokens": 2000, "messages": [{"role": "user", "content": "!mock think=2000 tokens=3"}]}
    message = (await client.post("/v1/messages", json=asked | {"thinking": {"type": "enabled", "budget_tokens": 1024}})).json()
    assert [block["type"] for block in message["content"]] == ["thinking", "text"]
    assert len(message["content"][0]["thinking"].split()) == 1024 and message["content"][0]["signature"]
    streamed = await client.post("/v1/messages", json=asked | {"stream": True, "thinking": {"type": "enabled", "budget_tokens": 1024}})
    assert streamed.text.count('"thinking_delta"') == 1024 and "signature_delta" in streamed.text


async def test_a_completion_cannot_think(client: AsyncTestClient) -> None:
    reply = await client.post("/v1/completions", json={"model": "mock", "prompt": THINK})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "prompt")
