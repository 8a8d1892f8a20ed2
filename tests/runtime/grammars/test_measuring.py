"""Grammars that are too large, or that no finite text fits, are refused before they reach a compiler."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import pytest

from mm_gateway.core import Grammar
from mm_gateway.errors import InvalidRequestError
from mm_gateway.runtime.grammars.json_schema import check_schema
from mm_gateway.runtime.grammars.measuring import check_size
from mm_gateway.runtime.grammars.regex import expanded_size
from tests.support.stalls import stalls


def schema(value: Any) -> Grammar:
    return Grammar("json_schema", json.dumps(value))


def chain(length: int) -> dict[str, Any]:
    """Definitions that are nothing but references to each other."""
    links = {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(length)}
    return {"$ref": "#/$defs/d0", "$defs": {**links, f"d{length}": {"type": "string"}}}


def chain_of_objects(length: int) -> dict[str, Any]:
    links = {f"d{i}": {"type": "object", "properties": {"a": {"$ref": f"#/$defs/d{i + 1}"}}} for i in range(length)}
    return {"$ref": "#/$defs/d0", "$defs": {**links, f"d{length}": {"type": "string"}}}


def rules(length: int) -> str:
    return "\n".join(["start: r0", *(f'r{i}: "a" r{i + 1}' for i in range(length)), f'r{length}: "b"'])


NESTED = '{"items":' * 10_000 + "{}" + "}" * 10_000


@pytest.mark.parametrize(
    ("grammar", "says"),
    [
        (schema(chain(3000)), "2000"),
        (schema(chain(1000)), "200"),
        (schema(chain_of_objects(1000)), "200"),
        (Grammar("json_schema", NESTED), "levels of JSON, at most 100"),
        (schema({"properties": {f"p{i}": {} for i in range(5000)}}), "5000 properties"),
        (schema({"description": "x" * 2**20}), "bytes, at most 1048576"),
        (schema({"type": "string", "pattern": "(a{1000}){1000}"}), "1000000 characters"),
        (schema({"patternProperties": {"(a{1000}){1000}": {}}}), "1000000 characters"),
        (Grammar("regex", "(a{1000}){1000}"), "1000000 characters"),
        (Grammar("regex", "a" * 40_000), "40000 bytes"),
        (Grammar("regex", "((((a{999}){999}){999}){999}){999}"), "at most 50000"),
        (Grammar("regex", "a{" + "9" * 10_000 + "}"), "at most 50000"),
        (Grammar("choice", json.dumps([str(i) for i in range(20_000)])), "20000 choices"),
        (Grammar("lark", rules(3500)), "rules, at most 2000"),
        (Grammar("lark", rules(1000)), "rules that lead to each other, at most 200"),
        (Grammar("lark", "start: /(a{1000}){1000}/"), "1000000 characters"),
        (Grammar("lark", f"start: %json {NESTED}"), "levels of JSON"),
        (Grammar("lark", f"start: call\ncall: %json {json.dumps(chain(1000))}"), "200"),
    ],
)
def test_a_grammar_beyond_a_limit_is_refused_with_measure_and_limit(grammar: Grammar, says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says) as caught:
        check_size(grammar)
    assert caught.value.param == grammar.param and len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "value",
    [
        {"$ref": "#"},
        {"type": "object", "properties": {"n": {"$ref": "#"}}, "required": ["n"]},
        {"type": "object", "additionalProperties": {"$ref": "#"}, "required": ["n"]},
        {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
        {"type": "array", "prefixItems": [{"type": "string"}, {"$ref": "#"}], "minItems": 2},
        {"anyOf": [{"$ref": "#"}, {"type": "array", "items": {"$ref": "#"}, "minItems": 3}]},
        {"allOf": [{"type": "object"}, {"$ref": "#/$defs/a"}], "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
    ],
)
def test_a_schema_that_no_finite_value_fits_is_refused(value: Any) -> None:
    with pytest.raises(InvalidRequestError, match="no finite value"):
        check_size(schema(value))


@pytest.mark.parametrize(
    "value",
    [
        True,
        {},
        {"type": "object", "properties": {"next": {"$ref": "#"}}},
        {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, "required": ["next"]},
        {"type": ["object", "null"], "properties": {"n": {"$ref": "#"}}, "required": ["n"]},
        {"type": "array", "items": {"$ref": "#"}},
        {"type": "array", "items": {"$ref": "#"}, "minItems": 0},
        {"type": "object", "properties": {"$ref": {"type": "string"}}, "required": ["$ref"]},
        {"const": {"$ref": "#"}},
        {"properties": {"a": {"$ref": "#/properties/b"}, "b": {"enum": [{"$ref": "#"}]}}, "required": ["a"], "type": "object"},
        {"$ref": "#/$defs/a~1b%20c", "$defs": {"a/b c": {"type": "string"}}},
        {"$ref": "https://example.com/elsewhere"},
        chain(100),
        {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(500)}},
    ],
)
def test_other_schemas_pass(value: Any) -> None:
    check_size(schema(value))


@pytest.mark.parametrize(
    "text",
    [
        'start: "a" start',
        'start: a\na: "x" b\nb: ("y" a)',
        "start: (start)",
        'start: a | b\na: "x" a\nb: a+',
        "start[capture]: start\n  | start",
    ],
)
def test_a_lark_grammar_that_no_finite_text_fits_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="no finite text"):
        check_size(Grammar("lark", text))


@pytest.mark.parametrize(
    "text",
    [
        'start: "a" start | "b"',
        'start: "a" start?',
        'start: "a" (start)*',
        'start: "a" [start]',
        'start: "a" start{0,3}',
        'start: "a" start~0..3',
        'start: "a" (start | "b")',
        'start: "(" start ")"\n  | "b"',
        'start: "a" // start\n  | "b" # start',
        "start: /a\\/b/ T\nT: /a/ & ~/b/",
        "%import common.INT\nstart: INT",
        'start: a\na[suffix="x"]: /.*/',
        'start: "a"?b\nb: "c"',
        "nonsense ::: (((",
        'start: %json {"type": "object", "properties": {"}": {"const": "\\"}"}}} "end"',
        rules(100),
    ],
)
def test_other_lark_grammars_pass(text: str) -> None:
    check_size(Grammar("lark", text))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("", 0),
        ("abc", 3),
        ("a|b", 2),
        ("[a-z]{3}", 3),
        ("([ab]c){1000}", 2000),
        ("(a{2}b){3,5}", 15),
        ("(?:a|b){2,}", 4),
        (r"\d{4}-\p{Lu}", 6),
        ("[]a{5}]{2}", 2),
        (r"\{a{2}", 3),
        ("(a(b(c", 3),
        (")a{3}", 4),
    ],
)
def test_the_size_of_a_regular_expression_counts_repetitions(text: str, size: int) -> None:
    assert expanded_size(text) == size


def test_a_schema_deeper_than_the_interpreters_stack_is_refused() -> None:
    deep: Any = {}
    for _ in range(sys.getrecursionlimit() * 3):
        deep = {"items": deep}
    with pytest.raises(InvalidRequestError, match="levels of JSON"):
        check_schema(deep, "tools[0].function.parameters")


@pytest.mark.parametrize("kind", ["json_schema", "lark"])
async def test_a_long_text_in_a_grammar_is_measured_without_keeping_the_interpreter(kind: Any) -> None:
    text = json.dumps({"const": "x" * 1_000_000}) if kind == "json_schema" else f'start: "{"x" * 500_000}" /{"y" * 20_000}/'
    async with stalls() as seen:
        await asyncio.to_thread(check_size, Grammar(kind, text))
    assert seen.longest_cpu_s < 0.05
