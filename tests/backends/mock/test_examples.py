"""Whatever form the engine would hold a model to, the mock's reply has it."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings

from mm_gateway.backends.mock.backend import MockBackend
from mm_gateway.backends.mock.examples import arguments_for, text_for
from mm_gateway.backends.tool_schemas import read_schemas, tried
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.core import (
    ChatInput,
    ChoiceFinished,
    GenerationConfig,
    GenerationRequest,
    Grammar,
    Message,
    TextDelta,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolUse,
)
from mm_gateway.errors import InvalidRequestError, UnsupportedParameterError
from mm_gateway.runtime.grammars.trials import TRIALS
from tests.support.json_schemas import json_schemas

MOCK = MockBackend("mock", ModelConfig(model_name="mock", backend="mock"), created=0)
TREE = {"type": "object", "properties": {"value": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/tree"}, {"type": "null"}]}}}
NESTED = {"type": "object", "properties": {"entries": {"type": "array", "items": {"$ref": "#"}, "minItems": 2}}}
SCHEMAS: list[Any] = [
    {},
    True,
    {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"type": "string", "minLength": 7}}},
    {"$ref": "#/$defs/tree", "$defs": {"tree": {**TREE, "required": ["value", "next"]}}},
    {"$defs": {"a/b c": {"const": 1}}, "type": "array", "items": {"$ref": "#/$defs/a~1b%20c"}, "minItems": 2},
    {"definitions": {"a": {"enum": [[1], {"b": 2}]}}, "properties": {"x": {"$ref": "#/definitions/a"}}, "type": "object"},
    NESTED,
    {"anyOf": [{"$ref": "#/$defs/loop"}, {"type": "string"}], "$defs": {"loop": {"type": "array", "items": {"$ref": "#"}, "minItems": 1}}},
    {"anyOf": [{"type": "null"}, {"type": "string"}], "default": None},
    {"oneOf": [{"type": "object", "properties": {"kind": {"const": kind}}, "required": ["kind"]} for kind in "ab"]},
    {"allOf": [{"type": "object", "properties": {"a": {"type": "string"}}}, {"properties": {"b": {"type": "null"}}, "required": ["b"]}]},
    {"allOf": [{"minimum": 3}, {"maximum": 5}], "type": "integer"},
    {"allOf": [{"anyOf": [{"type": "string"}, {"type": "integer"}]}, {"anyOf": [{"type": "integer"}, {"type": "null"}]}]},
    {"const": {"a": [1, None, "é"]}},
    {"enum": ["b", 2]},
    {"type": "integer", "enum": ["a", 3]},
    *(
        {"type": "string", "format": name}
        for name in ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid")
    ),
    {"type": "string", "format": "phone"},
    {"type": "string", "format": "date", "maxLength": 10},
    *(
        {"type": "integer", **bounds}
        for bounds in ({"minimum": 3}, {"maximum": -3}, {"exclusiveMinimum": 3, "exclusiveMaximum": 5}, {"minimum": 2.5})
    ),
    *({"type": "number", **bounds} for bounds in ({"exclusiveMinimum": 0, "maximum": 0.01}, {"minimum": 1.5}, {"exclusiveMaximum": -0.5})),
    {"type": "integer", "multipleOf": 7, "minimum": 1},
    {"type": "number", "multipleOf": 0.1, "minimum": 0.25},
    {"type": "string", "pattern": "^[A-Z]{3}-\\d+$"},
    {"type": "string", "pattern": "^(a|b)*c$", "minLength": 5},
    {"type": "string", "pattern": '"'},
    {"type": "array", "items": {"type": "string"}, "minItems": 3, "maxItems": 3},
    {"type": "array", "maxItems": 0},
    {"type": "array", "prefixItems": [{"const": 1}, {"type": "string"}], "items": {"type": "null"}, "minItems": 4},
    {"type": "array", "prefixItems": [{"const": 1}, {"type": "string"}], "maxItems": 1},
    {"type": "object", "additionalProperties": {"type": "integer"}, "required": ["zz"]},
    {"type": "object", "additionalProperties": {"type": "integer"}, "required": ["a"], "minProperties": 2},
    {"type": "object", "properties": {"a": {}}, "required": ["a"], "maxProperties": 1},
    {"type": "object", "patternProperties": {"^x-": {"type": "integer"}}, "additionalProperties": False, "minProperties": 1},
    {"type": "object", "patternProperties": {"^x-": {"type": "integer"}}, "required": ["x-a"], "additionalProperties": False},
    {"type": "object", "properties": {"a": False, "b": {"type": "boolean"}}},
    {"type": ["null", "string"]},
    {"type": "string", "default": 3},
    {"properties": {"a": {"type": "integer", "default": 5}}, "required": ["a"]},
    {"description": "d", "title": "t", "type": "boolean", "examples": [1]},
]


def form(schema: Any) -> Grammar:
    return Grammar("json_schema", json.dumps(schema))


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: json.dumps(schema)[:60])
async def test_texts_and_arguments_fit_every_schema(schema: Any) -> None:
    checker = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
    text = await text_for(form(schema))
    checker.validate(json.loads(text))
    assert await text_for(form(schema)) == text
    if isinstance(schema, dict) and schema.get("type") == "object":  # which the API has seen to
        tool = Tool("f", parameters=schema)
        ((held, left_out),) = await tried([tool], await read_schemas([tool]))
        assert not left_out
        checker.validate(json.loads(await arguments_for(Tool("f", parameters=held))))


@given(json_schemas())
@settings(max_examples=100, deadline=None)
def test_whatever_schema_compiles_gets_a_text_that_fits(schema: dict[str, Any]) -> None:
    try:
        text = asyncio.run(text_for(form(schema)))
    except InvalidRequestError:
        with pytest.raises(InvalidRequestError):
            TRIALS.check(form(schema))
        return
    jsonschema.Draft202012Validator(schema).validate(json.loads(text))


async def test_values_look_like_what_they_are_for() -> None:
    person = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "mail": {"format": "email"}}}
    schema = {
        "type": "object",
        "properties": {"people": {"type": "array", "items": {"$ref": "#/$defs/person"}}},
        "$defs": {"person": person},
    }
    assert json.loads(await text_for(form(schema))) == {"people": [{"name": "text", "age": 0, "mail": "user@example.com"}]}
    code = {"type": "object", "properties": {"name": {"type": "string"}, "code": {"type": "string", "pattern": "^[A-Z]{2}$"}}}
    value = json.loads(await text_for(form(code)))
    assert value["name"] == "text" and re.fullmatch("[A-Z]{2}", value["code"])


async def test_a_value_that_would_be_too_large_is_a_smaller_one() -> None:
    links = {f"d{i}": {"type": "object", "properties": {name: {"$ref": f"#/$defs/d{i + 1}"} for name in "abcd"}} for i in range(12)}
    wide = {"$ref": "#/$defs/d0", "$defs": {**links, "d12": {"type": "string"}}}
    many = {"type": "object", "properties": {f"p{i}": {"type": "string", "pattern": "^a{3000}$"} for i in range(9)}}
    for schema in (wide, many):
        jsonschema.Draft202012Validator(schema).validate(json.loads(await text_for(form(schema))))


@pytest.mark.parametrize(
    ("grammar", "pattern"),
    [
        (Grammar("regex", "[a-z]+@[a-z]+\\.com"), r"[a-z]+@[a-z]+\.com"),
        (Grammar("regex", "(ab)*c{5}"), "(ab)*c{5}"),
        (Grammar("regex", "(é|ß){3}"), "(é|ß){3}"),
        (Grammar("choice", '["", "b"]'), "b?"),
        (Grammar("lark", 'start: "a" (b | c)\nb: "b" /[0-9]/\nc: "cc"'), r"a(b\d|cc)"),
        (Grammar("lark", 'start: "(" start ")" | "x"'), r"\(*x\)*"),
    ],
)
async def test_regular_expressions_choices_and_grammars_are_followed(grammar: Grammar, pattern: str) -> None:
    assert re.fullmatch(pattern, await text_for(grammar))


@pytest.mark.parametrize("schema", [{"enum": []}, {"type": "unheard-of"}, {"type": "integer", "minimum": 2, "maximum": 1}, {"$ref": "#"}])
async def test_what_no_model_could_follow_is_refused_as_for_a_model(schema: Any) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await text_for(form(schema))
    assert not isinstance(caught.value, UnsupportedParameterError) and caught.value.param == "response_format"


TOOLS = tuple(
    Tool(name, "", {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}) for name in ("one", "two")
)


async def reply(messages: list[Message], use: ToolUse, **config: Any) -> tuple[str, list[tuple[str | None, str]], list[str]]:
    """Text, calls as (name, arguments), and finish reasons."""
    asked = GenerationRequest(request_id="r", model="mock", input=ChatInput(tuple(messages), use), config=GenerationConfig(**config))
    text, calls, reasons = "", [], []
    async for event in MOCK.generate(asked):
        match event:
            case TextDelta():
                text += event.text
            case ToolCallDelta(arguments=arguments, name=name):
                calls.append((name, arguments)) if name else calls.append((calls[-1][0], calls.pop()[1] + arguments))
            case ChoiceFinished(finish_reason=reason):
                reasons.append(reason)
            case _:
                pass
    return text, calls, reasons


async def conversation(use: ToolUse, first: str = "Go") -> list[str]:
    """What the mock does turn by turn: names of functions, and `text`."""
    messages, done = [Message("user", first)], []
    while len(done) < 5 and "text" not in done:
        text, calls, _ = await reply(messages, use)
        done.append(calls[0][0] if calls else "text")
        messages.append(Message("assistant", text, tool_calls=tuple(ToolCall(f"c{len(done)}", name or "", args) for name, args in calls)))
        messages += [Message("tool", "12", tool_call_id=call.id) for call in messages[-1].tool_calls]
    return done


async def test_functions_are_called_in_turn_and_then_comes_the_text() -> None:
    assert await conversation(ToolUse(TOOLS)) == ["one", "two", "text"]
    assert await conversation(ToolUse(TOOLS, required=True)) == ["one", "two", "two", "two", "two"]
    assert await conversation(ToolUse(TOOLS), "!mock call=two") == ["two", "text"]
    assert await conversation(ToolUse(TOOLS), "!mock tokens=3") == ["text"]
    assert (await reply([Message("user", "!mock tokens=3")], ToolUse(TOOLS, required=True)))[1]


@pytest.mark.parametrize("only", [None, "two"])
async def test_a_call_has_as_many_tokens_as_it_may(only: str | None) -> None:
    use = ToolUse(TOOLS, required=True, only=only)
    _, [(name, whole)], [reason] = await reply([Message("user", "Go")], use)
    assert (name, reason) == (only or "one", "stop" if only else "tool_calls")
    seen = set()
    for limit in range(1, len(whole.split()) + 1):
        text, [(name, arguments)], [reason] = await reply([Message("user", "Go")], use, max_new_tokens=limit, stop=("city", "{"))
        assert text == "" and whole.startswith(arguments)
        assert (reason == "length") == (arguments != whole)
        seen.add(arguments)
    assert len(seen) == len(whole.split()) > 2
