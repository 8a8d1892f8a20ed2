"""vLLM's fields over HTTP, whole and streamed, on an engine with random weights: what they do, and what is refused by name."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from mm_gateway.api.app import create_app
from mm_gateway.catalog import build_catalog
from mm_gateway.configuration.settings import ModelConfig, Settings

pytestmark = pytest.mark.asyncio(loop_scope="module")

MESSAGES = [{"role": "user", "content": "Hello"}]
PROMPTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES, "max_tokens": 16},
    "/v1/completions": {"prompt": "Hello", "max_tokens": 16},
    "/v1/responses": {"input": "Hello", "max_output_tokens": 16, "store": False},
}


@pytest.fixture(scope="module")
async def client(qwen2_checkpoint: Path) -> AsyncIterator[AsyncTestClient]:
    models = {
        "m": ModelConfig(model_name="m", path=str(qwen2_checkpoint), device="cpu", dtype="fp32"),
        "mock": ModelConfig(model_name="mock", backend="mock"),
    }
    settings = Settings(models=models)
    async with AsyncTestClient(create_app(settings, build_catalog(settings))) as client:
        yield client


async def post(client: AsyncTestClient, path: str, **fields: Any) -> Any:
    reply = await client.post(path, json={"model": "m", "temperature": 0, **PROMPTS[path], **fields}, timeout=60)
    assert reply.status_code == 200, reply.text
    return reply


async def chunks(client: AsyncTestClient, path: str, **fields: Any) -> list[dict[str, Any]]:
    reply = await post(client, path, stream=True, **fields)
    lines = [line.removeprefix("data: ") for line in reply.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


async def text(client: AsyncTestClient, path: str, **fields: Any) -> str:
    """What is said; the same whether it is streamed or not."""
    whole, streamed = (await post(client, path, **fields)).json(), await chunks(client, path, **fields)
    if path == "/v1/responses":
        said = "".join(part["text"] for item in whole["output"] for part in item.get("content", ()))
        pieces = [event["delta"] for event in streamed if event["type"] == "response.output_text.delta"]
    elif path == "/v1/completions":
        said = whole["choices"][0]["text"]
        pieces = [choice["text"] for chunk in streamed for choice in chunk["choices"]]
    else:
        said = whole["choices"][0]["message"]["content"]
        pieces = [choice["delta"].get("content") or "" for chunk in streamed for choice in chunk["choices"]]
    assert "".join(pieces) == said
    return said


async def refused(client: AsyncTestClient, path: str, **fields: Any) -> dict[str, Any]:
    reply = await client.post(path, json={"model": "m", **PROMPTS[path], **fields}, timeout=60)
    assert reply.status_code == 400, reply.text
    return reply.json()["error"]


@pytest.mark.parametrize("path", PROMPTS)
async def test_ends_reach_the_engine_from_every_endpoint(client: AsyncTestClient, path: str) -> None:
    end = {"logit_bias": {"2": 100}}  # <|im_end|>, the end of text
    assert await text(client, path, **end) == ""
    shown = {"include_stop_str_in_output": True, "skip_special_tokens": False}
    assert await text(client, path, **end, **shown) == "<|im_end|>"
    assert len(await text(client, path, **end, min_tokens=4)) >= 4
    start = {"logit_bias": {"1": 100}, "stop_token_ids": [1], "min_tokens": 0}
    assert await text(client, path, **start, **shown) == "<|im_start|>"
    letter = (await client.post("/tokenize", json={"model": "m", "prompt": "x"})).json()["tokens"][0]
    biased = {"logit_bias": {str(letter): 100}, "ignore_eos": True}
    assert await text(client, path, **biased) == "x" * 16
    assert "x" not in await text(client, path, **biased, bad_words=["x"])


@pytest.mark.parametrize("path", PROMPTS)
@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ({"regex": "a{3}b"}, "aaab"),
        ({"choice": ["only this"]}, "only this"),
        ({"grammar": 'start: "x" "y"'}, "xy"),
        ({"json": {"const": 7}}, "7"),
        ({"json": '{"const": 7}', "disable_any_whitespace": True, "disable_additional_properties": False}, "7"),
    ],
)
async def test_structured_outputs_are_followed(client: AsyncTestClient, path: str, field: dict[str, Any], expected: str) -> None:
    assert await text(client, path, structured_outputs=field) == expected


async def test_completions_take_a_response_format_as_in_vllm(client: AsyncTestClient) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"const": [1]}}}
    assert await text(client, "/v1/completions", response_format=form) == "[1]"
    said = await text(client, "/v1/completions", structured_outputs={"json_object": True}, max_tokens=100, seed=1)
    assert said.startswith("{")


@pytest.mark.parametrize("path", PROMPTS)
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"json_object": False}}, "structured_outputs"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
        ({"structured_outputs": {"regex": "a", "json": {}}}, "structured_outputs.regex"),
        ({"structured_outputs": {"structural_tag": "{}"}}, "structured_outputs.structural_tag"),
        ({"structured_outputs": {"regex": "a", "whitespace_pattern": " "}}, "structured_outputs.whitespace_pattern"),
        ({"structured_outputs": {"json": "{"}}, "structured_outputs.json"),
        ({"allowed_token_ids": []}, "allowed_token_ids"),
        ({"cache_salt": "s"}, "cache_salt"),
        ({"priority": 1}, "priority"),
        ({"use_beam_search": True}, "use_beam_search"),
        ({"min_tokens": 17}, "min_tokens"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"bad_words": [""]}, "bad_words[0]"),
        ({"stop_token_ids": [-1]}, "stop_token_ids[0]"),
        ({"stop_token_ids": [10**9]}, "stop_token_ids"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_cannot_be_served_is_refused_by_name(client: AsyncTestClient, path: str, fields: dict[str, Any], param: str) -> None:
    error = await refused(client, path, **fields)
    assert error["param"] == param and param.partition("[")[0] in error["message"], error


@pytest.mark.parametrize("path", PROMPTS)
async def test_what_changes_nothing_is_accepted(client: AsyncTestClient, path: str) -> None:
    harmless = {"request_id": "r", "session_id": "s", "spaces_between_special_tokens": False, "stream_interval": 4}
    off = {"priority": 0, "use_beam_search": False, "length_penalty": 1.0, "thinking_token_budget": -1, "cache_salt": None}
    empty: dict[str, Any] = {"stop_token_ids": [], "bad_words": [], "min_tokens": 0, "structured_outputs": None}
    assert await text(client, path, **harmless, **off, **empty) == await text(client, path)
