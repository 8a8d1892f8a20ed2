"""Calls in the formats of the families, by real engines whose markers are control tokens: always calls, never markup in the text."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from litestar.testing import AsyncTestClient
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from transformers import LlamaConfig, LlamaForCausalLM

from mm_gateway.api.app import create_app
from mm_gateway.catalog import build_catalog
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import Settings
from tests.backends.test_local_tools import ARGUMENTS, CLOCK, WEATHER
from tests.chat_templates.test_tool_families import tokenizer_of
from tests.support.tool_templates import FAMILIES

SERVED = ("Hermes with control tokens", "Qwen 3 Coder", "GLM 4.5", "DeepSeek V3", "Kimi K2", "Mistral v3", "LFM2")


def _checkpoint(folder: Path, family: str) -> Path:
    tokenizer = tokenizer_of(FAMILIES[family].marks)
    tokenizer.chat_template = FAMILIES[family].template
    shape: dict[str, Any] = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "num_key_value_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), intermediate_size=96, eos_token_id=2, initializer_range=0.2, **shape))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncTestClient]:
    paths = {family: _checkpoint(tmp_path_factory.mktemp("family"), family) for family in SERVED}
    models = {family: ModelConfig(model_name=family, path=str(path), device="cpu", dtype="fp32") for family, path in paths.items()}
    settings = Settings(models=models)
    async with AsyncTestClient(create_app(settings, build_catalog(settings))) as client:
        yield client


async def complete(client: AsyncTestClient, family: str, choice: object, **more: Any) -> ChatCompletion:
    body = {
        "model": family,
        "messages": [{"role": "user", "content": "Weather in Ems?"}],
        "tools": [WEATHER, CLOCK],
        "tool_choice": choice,
        "max_tokens": 400,
        "seed": 3,
        **more,
    }
    reply = await client.post("/v1/chat/completions", json=body, timeout=120)
    assert reply.status_code == 200, reply.text
    return ChatCompletion.model_validate(reply.json())


def _marks(family: str) -> set[str]:
    return {*FAMILIES[family].marks, "<tool_call>", "<function=", "[TOOL_CALLS]"}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("family", SERVED)
async def test_what_has_to_be_called_is_called_with_arguments_that_fit(client: AsyncTestClient, family: str) -> None:
    completion = await complete(client, family, "required", n=4, parallel_tool_calls=False)
    for choice in completion.choices:
        assert choice.message.tool_calls is not None
        (call,) = choice.message.tool_calls
        assert call.type == "function" and choice.finish_reason == "tool_calls" and not choice.message.content
        msgspec.json.decode(call.function.arguments, type=ARGUMENTS[call.function.name])


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("family", SERVED)
async def test_a_reply_that_is_cut_anywhere_shows_no_markup(client: AsyncTestClient, family: str) -> None:
    for limit in (1, 2, 3, 5, 8, 13, 21):
        for choice in (await complete(client, family, "required", max_tokens=limit)).choices:
            assert not choice.message.content
            for call in choice.message.tool_calls or ():
                assert call.type == "function" and not any(mark in call.function.arguments for mark in _marks(family))


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("family", SERVED)
async def test_a_model_that_may_call_writes_text_or_calls(client: AsyncTestClient, family: str) -> None:
    for choice in (await complete(client, family, "auto", n=4, max_tokens=120)).choices:
        assert not any(mark in (choice.message.content or "") for mark in _marks(family))
        for call in choice.message.tool_calls or ():
            assert call.type == "function" and call.function.name in ARGUMENTS


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("family", SERVED)
async def test_a_stream_has_the_same_calls(client: AsyncTestClient, family: str) -> None:
    whole = (await complete(client, family, "required")).choices[0].message.tool_calls or []
    body = {
        "model": family,
        "messages": [{"role": "user", "content": "Weather in Ems?"}],
        "tools": [WEATHER, CLOCK],
        "tool_choice": "required",
        "max_tokens": 400,
        "seed": 3,
        "stream": True,
    }
    found: list[dict[str, str]] = []
    async with client.stream("POST", "/v1/chat/completions", json=body, timeout=120) as reply:
        async for line in reply.aiter_lines():
            if not line.startswith("data: {"):
                continue
            for piece in ChatCompletionChunk.model_validate(json.loads(line.removeprefix("data: "))).choices[0].delta.tool_calls or ():
                assert piece.function is not None
                if piece.id:
                    found.append({"name": piece.function.name or "", "arguments": ""})
                found[piece.index]["arguments"] += piece.function.arguments or ""
    assert found == [{"name": call.function.name, "arguments": call.function.arguments} for call in whole if call.type == "function"]


GRAMMARS = {
    "lark": (
        'start: "+" LINE LF "- " item\nitem: "(" item? ")" | "\\""\nLINE: /[a"]{1,3}/\n%import common.LF',
        r'\+[a"]{1,3}\n- (\(*)"?(\)*)',
    ),
    "regex": (r'[0-9]{2}\n["\\]{1,2}', r'[0-9]{2}\n["\\]{1,2}'),
}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("syntax", GRAMMARS)
@pytest.mark.parametrize("family", SERVED)
async def test_the_text_of_a_custom_tool_follows_its_grammar(client: AsyncTestClient, family: str, syntax: str) -> None:
    definition, expected = GRAMMARS[syntax]
    form = {"type": "grammar", "grammar": {"syntax": syntax, "definition": definition}}
    tool = {"type": "custom", "custom": {"name": "note", "format": form}}
    choice = {"type": "custom", "custom": {"name": "note"}}
    for choice_made in (await complete(client, family, choice, tools=[tool, CLOCK], n=3, temperature=0.5)).choices:
        assert choice_made.message.tool_calls is not None
        (call,) = choice_made.message.tool_calls
        assert call.type == "custom" and re.fullmatch(expected, call.custom.input), call


def _held(strict: bool) -> dict[str, Any]:
    properties = {"code": {"type": "string", "pattern": "^[A-C]{2}$"}, "more": {"type": "string", "pattern": "a(^b|c)", "maxLength": 2}}
    parameters = {"type": "object", "properties": properties, "required": ["code", "more"], "additionalProperties": False}
    return {"type": "function", "function": {"name": "f", "parameters": parameters, "strict": strict}}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("family", ["Qwen 3 Coder", "GLM 4.5"])
async def test_strings_between_tags_are_held_to_their_schema_and_what_is_not_held_is_named(client: AsyncTestClient, family: str) -> None:
    body = {"model": family, "messages": [{"role": "user", "content": "Go"}], "tool_choice": "required", "max_tokens": 200, "seed": 3}
    reply = await client.post("/v1/chat/completions", json=body | {"tools": [_held(strict=False)], "n": 4}, timeout=120)
    assert reply.status_code == 200, reply.text
    assert reply.headers["x-mm-gateway-ignored"] == "tools[0].function.parameters.properties.more.pattern"
    for choice in reply.json()["choices"]:
        for call in choice["message"]["tool_calls"]:
            arguments = (
                msgspec.json.decode(call["function"]["arguments"], type=dict[str, str]) if choice["finish_reason"] != "length" else {}
            )
            assert not arguments or (set(arguments["code"]) <= set("ABC") and len(arguments["code"]) == 2 and len(arguments["more"]) <= 2)
    reply = await client.post("/v1/chat/completions", json=body | {"tools": [_held(strict=True)]}, timeout=120)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "tools[0].function.parameters.properties.more.pattern")
