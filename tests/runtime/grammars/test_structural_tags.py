"""Structural tags: what they accept, and what they are refused for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer

from mm_gateway.errors import InvalidRequestError
from mm_gateway.runtime.grammars.structural_tags import structural_tags_as_lark

TOKENIZER = LLTokenizer("byte", slices=[])
POINT = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"], "additionalProperties": False}
CALL = {"type": "tag", "begin": "<function=move>", "content": {"type": "json_schema", "json_schema": POINT}, "end": "</function>"}
STOP = {"type": "tag", "begin": "<function=stop>", "content": {"type": "any_text"}, "end": "</function>"}
TRIGGERED = {"type": "triggered_tags", "triggers": ["<function="], "tags": [CALL, STOP]}


def accepts(tag: dict[str, Any], text: str) -> bool:
    matcher = LLMatcher(TOKENIZER, LLMatcher.grammar_from_lark(structural_tags_as_lark(json.dumps(tag), "tag")), log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    tokens = TOKENIZER.tokenize_bytes(text.encode())
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


def of(form: dict[str, Any]) -> dict[str, Any]:
    return {"type": "structural_tag", "format": form}


MOVE = '<function=move>{"x":1}</function>'
STRUCTURES = {
    "type": "structural_tag",
    "structures": [{"begin": "<function=move>", "schema": POINT, "end": "</function>"}],
    "triggers": ["<function="],
}


@pytest.mark.parametrize("tag", [STRUCTURES, of(TRIGGERED)])
def test_free_text_holds_structures_where_a_trigger_begins_one(tag: dict[str, Any]) -> None:
    for text in ("", "No call.", f"Go: {MOVE}", f"{MOVE}{MOVE}", f"Go {MOVE} and {MOVE} done. <function"):
        assert accepts(tag, text), text
    for text in ("<function=", '<function=move>{"y":1}</function>', "<function=fly>{}</function>", f"Go {MOVE} <function=x"):
        assert not accepts(tag, text), text


def test_several_structures_and_bounds_of_their_number() -> None:
    stop = "<function=stop>any \n text</function>"
    assert accepts(of(TRIGGERED), f"a {stop} b {MOVE} c")
    assert accepts(of({**TRIGGERED, "at_least_one": True}), f"a {MOVE}")
    assert not accepts(of({**TRIGGERED, "at_least_one": True}), "a")
    assert accepts(of({**TRIGGERED, "stop_after_first": True}), f"a {MOVE}")
    assert not accepts(of({**TRIGGERED, "stop_after_first": True}), f"a {MOVE}{MOVE}")


def test_sequences_alternatives_and_separated_tags() -> None:
    thought = {"type": "tag", "begin": "<think>", "content": {"type": "any_text"}, "end": "</think>"}
    number = {"type": "regex", "pattern": "[0-9]{2}/[0-9]"}
    answer = {"type": "or", "elements": [number, {"type": "const_string", "value": "none"}]}
    whole = of({"type": "sequence", "elements": [thought, answer]})
    assert accepts(whole, "<think>hm < </think>12/3") and accepts(whole, "<think></think>none")
    assert not accepts(whole, "none") and not accepts(whole, "<think></think>1/3")
    listed = of({"type": "tags_with_separator", "tags": [CALL], "separator": ", ", "at_least_one": True})
    assert accepts(listed, f"{MOVE}, {MOVE}") and not accepts(listed, "") and not accepts(listed, f"{MOVE}{MOVE}")
    until = of({"type": "sequence", "elements": [{"type": "any_text"}, {"type": "const_string", "value": "END"}, number]})
    assert accepts(until, "some textEND12/3") and not accepts(until, "some text")


@pytest.mark.parametrize(
    ("tag", "where"),
    [
        ({"type": "structural_tag"}, "format"),
        (of({"type": "grammar", "grammar": "root ::= x"}), "tag.format.type"),
        (of({"type": "any_text", "excludes": ["x"]}), "tag.format.excludes"),
        (of({**TRIGGERED, "triggers": ["<tool="]}), r"tag.format.tags\[0\].begin"),
        (of({**TRIGGERED, "triggers": []}), "tag.format.triggers"),
        (of({"type": "sequence", "elements": [{"type": "any_text"}, CALL]}), r"tag.format.elements\[0\]"),
        ({"structures": [1], "triggers": ["a"]}, "tag.structures"),
    ],
)
def test_what_is_not_served_is_named_with_its_place(tag: dict[str, Any], where: str) -> None:
    with pytest.raises(InvalidRequestError, match=where):
        structural_tags_as_lark(json.dumps(tag), "tag")
