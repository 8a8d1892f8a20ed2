"""What of a JSON schema the engine enforces, and what is named when it cannot."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import jsonschema
import pytest
from hypothesis import given, settings
from llguidance import LLMatcher, LLTokenizer

from mm_gateway.core import Grammar
from mm_gateway.errors import InvalidRequestError, UnsupportedParameterError
from mm_gateway.runtime.grammars import enforceable as tables
from mm_gateway.runtime.grammars.enforceable import as_enforced, enforceable, relaxed
from mm_gateway.runtime.grammars.measuring import check_size
from mm_gateway.runtime.grammars.sources import error_of, source_of
from mm_gateway.runtime.grammars.trial import try_out
from tests.support.json_schemas import json_schemas

BYTES = LLTokenizer("byte", slices=[])
VALUES: dict[str, Any] = {
    "$anchor": "a",
    "$comment": "c",
    "$dynamicAnchor": "a",
    "$dynamicRef": "#a",
    "$id": "http://example.com/a",
    "$recursiveRef": "#",
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$vocabulary": {},
    "additionalProperties": False,
    "allOf": [{"title": "a"}],
    "anyOf": [{"title": "a"}],
    "const": 1,
    "contains": {"type": "string"},
    "contentEncoding": "base64",
    "contentMediaType": "text/plain",
    "contentSchema": {},
    "default": 1,
    "dependencies": {"a": ["b"]},
    "dependentRequired": {"a": ["b"]},
    "dependentSchemas": {"a": {"type": "object"}},
    "deprecated": True,
    "description": "d",
    "else": {"type": "string"},
    "enum": [1, "a"],
    "examples": [1],
    "exclusiveMaximum": 2,
    "exclusiveMinimum": 2,
    "if": {"type": "string"},
    "items": {"type": "string"},
    "maxContains": 2,
    "maxItems": 2,
    "maxLength": 2,
    "maxProperties": 2,
    "maximum": 2,
    "minContains": 2,
    "minItems": 2,
    "minLength": 2,
    "minProperties": 2,
    "minimum": 2,
    "multipleOf": 2,
    "not": {"type": "string"},
    "nullable": True,
    "oneOf": [{"type": "string"}, {"type": "null"}],
    "pattern": "a",
    "patternProperties": {"^a": {}},
    "prefixItems": [{"type": "string"}],
    "properties": {"a": {"type": "string"}},
    "propertyNames": {"maxLength": 2},
    "readOnly": True,
    "required": ["a"],
    "then": {"type": "string"},
    "title": "t",
    "type": "string",
    "unevaluatedItems": False,
    "unevaluatedProperties": False,
    "uniqueItems": True,
    "writeOnly": True,
}
"""Each keyword of draft 2020-12, and what is left of older ones, with a value."""


def compiles(schema: Any) -> bool:
    return not LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(json.dumps(schema)), None)


def accepts(schema: Any, text: str) -> bool:
    matcher = LLMatcher(BYTES, source_of(Grammar("json_schema", json.dumps(schema))), log_level=0)
    assert error_of(matcher) is None
    ids = BYTES.tokenize_bytes(text.encode())
    return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()


@pytest.mark.parametrize("keyword", VALUES)
def test_the_tables_are_those_of_the_installed_engine(keyword: str) -> None:
    assert compiles({keyword: VALUES[keyword]}) == (keyword not in tables.UNENFORCEABLE and keyword not in tables.WITHOUT_EFFECT)


def test_so_is_the_table_of_formats() -> None:
    known = "date-time time date duration email idn-email hostname idn-hostname ipv4 ipv6 uri uri-reference iri iri-reference uuid "
    known += "uri-template json-pointer relative-json-pointer regex int32 int64 float double byte binary password"
    assert {name for name in known.split() if compiles({"type": "string", "format": name})} == tables.FORMATS


@pytest.mark.parametrize("keyword", sorted(tables.UNENFORCEABLE))
def test_a_keyword_that_cannot_be_enforced_is_named_with_its_path(keyword: str) -> None:
    inner = {keyword: VALUES[keyword], "then": {"type": "string"}}
    schema = {"type": "object", "properties": {"a": {"anyOf": [{"type": "null"}, inner]}}}
    path = f"properties.a.anyOf[1].{keyword}"
    with pytest.raises(UnsupportedParameterError) as refused:
        as_enforced(schema, "guided_json")
    assert refused.value.param == f"guided_json.{path}" and path in str(refused.value)
    found = relaxed(schema)
    assert found.left_out == (path,) and compiles(found.schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "uniqueItems": False},
        {"type": "string", "uniqueItems": True},
        {"type": "object", "unevaluatedProperties": True},
        {"type": "object", "propertyNames": {}},
        {"type": "object", "dependentRequired": {}},
        {"if": {"type": "string"}},
        {"type": "string", "format": "phone"},
        {"type": "integer", "format": "int64", "maximum": 2**63 - 1},
        {"properties": {"not": {"type": "string"}, "if": {}, "then": {}}},
        {"enum": [{"not": 1}]},
    ],
)
def test_what_says_nothing_is_no_reason_to_refuse(schema: dict[str, Any]) -> None:
    found = enforceable(schema)
    assert not found.left_out and compiles(found.schema)


@pytest.mark.parametrize(
    ("schema", "left_out"),
    [
        ({"oneOf": [{"type": "string"}, {"type": "string", "maxLength": 3}]}, ("oneOf",)),
        ({"oneOf": [{"type": "string"}, {"type": "array", "uniqueItems": True}]}, ("oneOf[1].uniqueItems", "oneOf")),
        ({"type": "string", "pattern": "^(?!a)b"}, ("pattern",)),
        ({"type": "string", "pattern": r"(a)\1"}, ("pattern",)),
        ({"type": "object", "required": ["b"], "properties": {"a": {}}, "additionalProperties": False}, ("required",)),
        ({"$ref": "https://example.com/schema"}, ("$ref",)),
        ({"type": "object", "properties": {"a": {}}, "maxProperties": 1}, ("maxProperties",)),
        ({"type": "object", "required": ["a"], "minProperties": 3}, ("minProperties",)),  # it would count one name twice
        ({"type": "number", "minimum": 1e30}, ("minimum",)),
        (
            {"type": "object", "patternProperties": {"^(?!a)": {"type": "string"}}, "additionalProperties": False},
            ("patternProperties.^(?!a)", "additionalProperties"),
        ),
    ],
)
def test_what_is_left_out_only_lets_more_pass(schema: dict[str, Any], left_out: tuple[str, ...]) -> None:
    found = relaxed(schema)
    assert found.left_out == left_out and compiles(found.schema)


def test_properties_are_counted_where_no_name_can_come_twice() -> None:
    counted = {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"], "minProperties": 2, "maxProperties": 2}
    assert enforceable(counted) == (counted, ())
    assert accepts(counted, '{"a":1,"b":2}') and not accepts(counted, '{"a":1}') and not accepts(counted, '{"a":1,"a":1}')


def test_unions_that_a_property_tells_apart_stay_as_they_are() -> None:
    union = {"oneOf": [{"type": "object", "properties": {"kind": {"const": name}}, "required": ["kind"]} for name in "ab"]}
    assert relaxed(union) == (union, ()) and compiles(union)


@pytest.mark.parametrize(
    "text",
    [
        '{"required":[[1],{}],"properties":[1],"additionalProperties":false}',
        '{"format":{},"pattern":1,"patternProperties":[1],"oneOf":{},"anyOf":1,"allOf":null,"type":{}}',
        '{"exclusiveMinimum":NaN,"maximum":1e999,"minimum":"a"}',
        '{"oneOf":[{"required":[[]],"properties":[[]]},{"required":1}],"items":[1,null]}',
        "[]",
        "null",
    ],
)
def test_whatever_a_schema_is_reading_it_does_not_fail(text: str) -> None:
    relaxed(json.loads(text))


@pytest.mark.parametrize("text", ["true", "{}"])
def test_a_schema_may_be_true(text: str) -> None:
    assert try_out(source_of(Grammar("json_schema", text))) is None


@pytest.mark.parametrize(("text", "says"), [("false", "no value fits"), ("[]", "is an object"), ("{", "no JSON")])
def test_what_is_no_schema_or_fits_nothing_is_refused(text: str, says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says):
        source_of(Grammar("json_schema", text))


def inside(schema: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": schema}, "required": ["a"]}


FITS_NOTHING: list[Any] = [
    {"$ref": "#"},
    {"enum": []},
    {"anyOf": []},
    {"oneOf": []},
    {"anyOf": [{"enum": []}, False]},
    {"type": []},
    {"allOf": [{"type": "string"}, {"type": "integer"}]},
    {"allOf": [{"const": 1}, {"const": 2}]},
    {"allOf": [{"enum": [1, 2]}, {"enum": [3]}]},
    {"allOf": [{"pattern": "^a$"}, {"pattern": "^b$"}], "type": "string"},
    {"allOf": [{"minimum": 3}, {"maximum": 2}], "type": "integer"},
    {"const": 1, "type": "string"},
    {"enum": [1, 2], "type": "string"},
    {"enum": [1], "const": 2},
    {"type": "string", "enum": ["aaa"], "maxLength": 2},
    {"type": "string", "const": "x", "pattern": "^y"},
    {"type": "integer", "enum": [5], "maximum": 3},
    {"const": {"a": 1}, "required": ["b"]},
    {"type": "integer", "minimum": 2, "maximum": 1},
    {"type": "integer", "minimum": 1.2, "maximum": 1.8},
    {"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 2},
    {"type": "number", "exclusiveMinimum": 1, "exclusiveMaximum": 1},
    {"type": "integer", "multipleOf": 10, "minimum": 1, "maximum": 9},
    {"type": "string", "minLength": 3, "maxLength": 2},
    {"type": "string", "pattern": "[^\\s\\S]"},
    {"type": "string", "pattern": "^a$", "minLength": 2},
    {"type": "string", "pattern": "a^b"},
    {"type": "string", "format": "date", "maxLength": 3},
    {"type": "string", "format": "ipv4", "pattern": "^x"},
    {"type": "array", "minItems": 3, "maxItems": 2},
    {"type": "array", "minItems": 3, "items": False},
    {"type": "array", "prefixItems": [{"enum": []}], "minItems": 1},
    {"type": "object", "required": ["a"], "additionalProperties": False},
    {"type": "object", "maxProperties": 0, "required": ["a"]},
    {"type": "object", "patternProperties": {"^a": {"enum": []}}, "required": ["ab"]},
]


@pytest.mark.parametrize("schema", FITS_NOTHING, ids=json.dumps)
@pytest.mark.parametrize("form", [lambda schema: schema, inside, lambda schema: inside(inside(schema))], ids=["alone", "inside", "deeper"])
def test_what_no_value_fits_is_refused_before_anything_is_written(schema: Any, form: Callable[[Any], Any]) -> None:
    grammar = Grammar("json_schema", json.dumps(form(schema)))
    try:
        check_size(grammar)
        assert try_out(source_of(grammar)) is not None
    except InvalidRequestError as refused:
        assert refused.param is not None and refused.param.startswith("response_format")


BOUNDS = [-100, -2.5, -1, -0.05, 0, 1e-10, 0.001, 0.01, 0.5, 1, 1.5, 10, 99, 100, 100.5]


@pytest.mark.parametrize("lower", ["minimum", "exclusiveMinimum"])
@pytest.mark.parametrize("upper", ["maximum", "exclusiveMaximum"])
def test_an_open_bound_is_outside_and_a_closed_one_inside(lower: str, upper: str) -> None:
    for low in BOUNDS:
        for high in (bound for bound in BOUNDS if bound > low):
            schema = {"type": "number", lower: low, upper: high}
            for number in {low, high, (low + high) / 2}:
                text = f"{number:.11f}".rstrip("0").rstrip(".")
                text = "0" if text == "-0" else text
                fits = jsonschema.Draft202012Validator(schema).is_valid(float(text))
                assert accepts(schema, text) == fits, (schema, text)


def test_so_it_is_where_any_type_may_come() -> None:
    schema = {"exclusiveMinimum": 0, "maximum": 0.01}
    assert not accepts(schema, "0") and accepts(schema, "0.005") and accepts(schema, '"a"')


@given(json_schemas(), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_whatever_the_engine_lets_pass_fits_the_schema(schema: dict[str, Any], random: Any) -> None:
    try:
        source = source_of(Grammar("json_schema", json.dumps(schema)))
    except UnsupportedParameterError:
        return
    matcher = LLMatcher(BYTES, source, log_level=0)
    if matcher.is_error():
        return
    text = bytearray()
    while not matcher.is_stopped() and len(text) < 300:
        allowed = [token for token, bit in enumerate(matcher.compute_logit_bias()) if bit]
        assert allowed, "a dead end"
        token = random.choice(allowed)
        assert matcher.consume_token(token), (text, token)
        text += BYTES.decode_bytes([token]) if token != BYTES.eos_token else b""
    if matcher.is_accepting() or matcher.is_stopped():
        checker = jsonschema.Draft202012Validator(schema)
        checker.validate(json.loads(text))
