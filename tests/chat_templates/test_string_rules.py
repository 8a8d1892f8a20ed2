"""Strings in tagged formats are held to their schemas as those in JSON are, and what they are not held to is told."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import llguidance
import llguidance.hf
import pytest

from mm_gateway.chat_templates.tool_formats.formats import TOOL_FORMATS
from mm_gateway.chat_templates.tool_formats.string_rules import FORMATS
from mm_gateway.core import Tool, ToolUse
from mm_gateway.runtime.grammars import enforceable
from tests.chat_templates.written_calls import TAGGED
from tests.support.checkpoints import make_tokenizer

TOKENIZER = make_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], eos_token="<|im_end|>")
GUIDANCE = llguidance.hf.from_tokenizer(TOKENIZER, n_vocab=len(TOKENIZER), eos_token=[2])
WRITTEN = {
    "qwen3-xml": "<tool_call>\n<function=f>\n<parameter=a>\n{}\n</parameter>\n</function>\n</tool_call>",
    "seed-xml": "<seed:tool_call>\n<function=f>\n<parameter=a>{}</parameter>\n</function>\n</seed:tool_call>",
    "glm": "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>{}</arg_value>\n</tool_call>",
    "minimax": '<minimax:tool_call>\n<invoke name="f">\n<parameter name="a">{}</parameter>\n</invoke>\n</minimax:tool_call>',
}
SAMPLES = {
    "date": (["2024-02-29", "1999-12-31"], ["2024-13-01", "2024-1-1", "24-01-01", "2024-01-32", ""]),
    "time": (["12:30:00Z", "23:59:59.123+02:00"], ["24:00:00Z", "12:30:00", "12:60:00Z"]),
    "date-time": (["2024-02-28T12:30:00Z", "2024-02-28T12:30:00.5-11:30"], ["2024-02-28 12:30", "2024-02-28"]),
    "duration": (["P1Y2M3D", "PT36H", "P2W", "P1DT12H"], ["P", "1D", "P1YT", "PT"]),
    "email": (["ems@example.org", "a.b+c@x.example.com", "o'brien@example.com"], ["ems", "@example.org", "a b@example.org", "a@"]),
    "hostname": (["example.org", "a-b.c", "localhost"], ["-a.org", "a..b", "a b", ""]),
    "ipv4": (["127.0.0.1", "255.255.255.0"], ["256.1.1.1", "1.2.3", "01.2.3.4"]),
    "ipv6": (["::1", "fe80::1", "2001:db8:0:0:0:0:2:1", "::", "1::"], ["1:2", "2001:db8:::1", "12345::", "1:2:3:4:5:6:7:8:9"]),
    "uri": (["https://example.org/a?b=c#d", "mailto:a@b.c", "urn:isbn:1"], ["example.org", "http://a b", ""]),
    "uuid": (["123e4567-e89b-12d3-a456-426614174000"], ["123e4567e89b12d3a456426614174000", "123"]),
}


def accepts(name: str, schema: dict[str, Any], value: str, root: dict[str, Any] | None = None) -> bool:
    parameters = {"type": "object", "properties": {"a": schema}, "required": ["a"], "additionalProperties": False, **(root or {})}
    grammar = TOOL_FORMATS[name].grammar(ToolUse((Tool("f", parameters=parameters),), required=True), None)
    matcher = llguidance.LLMatcher(GUIDANCE, grammar, log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    ids = TOKENIZER.encode(WRITTEN[name].format(value), add_special_tokens=False)
    return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()


def unheld(name: str, schema: dict[str, Any], **root: Any) -> tuple[str, ...]:
    return TOOL_FORMATS[name].unheld(Tool("f", parameters={"type": "object", "properties": {"a": schema}, **root}))


def test_the_same_formats_are_held_as_in_json() -> None:
    assert set(FORMATS) == set(SAMPLES) == enforceable.FORMATS


@pytest.mark.parametrize("name", TAGGED)
@pytest.mark.parametrize("format", SAMPLES)
def test_a_format_is_held(name: str, format: str) -> None:
    schema = {"type": "string", "format": format}
    valid = jsonschema_rs.validator_for(schema, validate_formats=True)
    right, wrong = SAMPLES[format]
    for value in right:
        assert valid.is_valid(value), value
        assert accepts(name, schema, value), value
    for value in wrong:
        assert not accepts(name, schema, value), value


CASES: list[tuple[dict[str, Any], list[str], list[str]]] = [
    ({"pattern": "^[a-z]+$"}, ["abc"], ["aBc", "", "a\nb"]),
    ({"pattern": "b"}, ["abc", "b", "x\nb"], ["ac"]),
    ({"pattern": "^a|c$"}, ["ab", "bc", "ac"], ["bab", "cb"]),
    ({"pattern": "[$^|]"}, ["a$", "^", "|"], ["a"]),
    ({"pattern": "^a/b\\/c$"}, ["a/b/c"], ["a/b"]),
    ({"pattern": "^\\$[0-9]+"}, ["$12", "$1 a"], ["12", "a$1"]),
    ({"minLength": 2, "maxLength": 3}, ["ab", "日本語"], ["a", "abcd"]),
    ({"pattern": "^[a-z]+$", "maxLength": 3, "minLength": 2}, ["abc"], ["abcd", "AB", "a"]),
    ({"format": "date", "pattern": "^2024"}, ["2024-01-01"], ["2023-01-01"]),
    ({"allOf": [{"pattern": "^a"}, {"pattern": "z$"}]}, ["az", "abz"], ["ab", "bz"]),
    ({"anyOf": [{"format": "ipv4"}, {"format": "uuid"}]}, ["1.2.3.4", SAMPLES["uuid"][0][0]], ["1.2.3"]),
    ({"$ref": "#/$defs/code"}, ["A1"], ["a1"]),
    ({"format": "colour"}, ["any"], []),
    ({"type": ["string", "null"], "pattern": "^a", "maxLength": 3}, ["abc", "null"], ["b", "abcd", "nul"]),
    ({"type": ["string", "null"], "anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]}, ["2024-01-01", "null"], ["soon"]),
]


@pytest.mark.parametrize("name", ["qwen3-xml", "glm"])
@pytest.mark.parametrize(("more", "right", "wrong"), CASES)
def test_patterns_lengths_and_their_combinations_are_held(name: str, more: dict[str, Any], right: list[str], wrong: list[str]) -> None:
    root = {"$defs": {"code": {"type": "string", "pattern": "^[A-Z][0-9]$"}}}
    schema = more if "$ref" in more else {"type": "string", **more}
    valid = jsonschema_rs.validator_for({**schema, **root}, validate_formats=True)
    assert all(valid.is_valid(None if value == "null" else value) for value in right)
    assert not any(valid.is_valid(value) for value in wrong)
    assert unheld(name, schema, **root) == ()
    assert all(accepts(name, schema, value, root) for value in right)
    assert not any(accepts(name, schema, value, root) for value in wrong)


@pytest.mark.parametrize("name", TAGGED)
def test_what_is_not_held_is_told(name: str) -> None:
    assert unheld(name, {"type": "string", "pattern": "a(^b|c)"}) == ("properties.a.pattern",)
    assert unheld(name, {"type": "string", "maxLength": 100_000}) == ("properties.a.maxLength",)
    assert unheld(name, {"type": ["string", "integer"], "pattern": "^a"}) == ("properties.a.type",)
    assert unheld(name, {"type": ["string", "null"]}) == unheld(name, {"type": "integer", "minimum": 3}) == ()
    assert unheld(name, {"type": "string", "enum": ["a"], "pattern": "a(^b)"}) == ()
    both = [{"pattern": "^a", "minLength": 2}, {"pattern": "^b"}]
    assert unheld(name, {"type": "string", "anyOf": both}) == ("properties.a.anyOf",)
    assert accepts(name, {"type": "string", "pattern": "a(^b|c)"}, "anything")


@pytest.mark.parametrize("name", ["python", "lfm2"])
def test_pythons_literals_tell_what_they_are_not_held_to(name: str) -> None:
    assert unheld(name, {"type": "string", "pattern": "a", "minLength": 1}) == ("properties.a.pattern",)
    assert unheld(name, {"type": "string", "format": "date"}) == ("properties.a.format",)
    assert unheld(name, {"type": "string", "format": "colour"}) == unheld(name, {"type": "integer", "minimum": 1}) == ()
    nested = {"type": "array", "maxItems": 3, "items": {"type": "object", "properties": {"b": {"$ref": "#/$defs/c"}}}}
    assert unheld(name, nested, **{"$defs": {"c": {"type": "string", "pattern": "x"}}}) == (
        "properties.a.maxItems",
        "properties.a.items.properties.b.$ref.pattern",
    )


@pytest.mark.parametrize("name", sorted(set(TOOL_FORMATS) - {*TAGGED, "python", "lfm2"}))
def test_formats_of_json_hold_all_that_a_grammar_of_json_does(name: str) -> None:
    schema: dict[str, Any] = {"type": "string", "pattern": "a(^b|c)", "maxLength": 100_000, "format": "date"}
    assert unheld(name, schema) == () and json.dumps(schema)
