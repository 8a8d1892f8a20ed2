"""A grammar as llguidance (https://github.com/guidance-ai/llguidance) reads it."""

from __future__ import annotations

import json
from typing import Any

from llguidance import LLMatcher, LLParserLimits

from mm_gateway.core import Grammar
from mm_gateway.errors import InvalidRequestError
from mm_gateway.runtime.grammars.enforceable import as_enforced
from mm_gateway.runtime.grammars.gbnf import as_lark
from mm_gateway.runtime.grammars.structural_tags import structural_tags_as_lark

LIMITS = LLParserLimits(max_lexer_states=50_000, verbose_errors=False)
"""llguidance's own, but for the states of the lexer: 1 to 2 kB each, in every choice of every request that has a grammar.

What they leave open is what a compilation recurses, and how long it takes; so it is tried out first (`trials.py`).
"""
_COMPACT = {"whitespace_flexible": False}  # free white space lets a weak model go on with blanks for ever
_ERROR_CHARACTERS = 500


def source_of(grammar: Grammar) -> str:
    """Raises:
    InvalidRequestError: it is no JSON, or no output can be held to it.
    """
    match grammar.kind:
        case "json_object":
            return LLMatcher.grammar_from_json_schema({"type": "object"}, overrides=_COMPACT)  # type: ignore[arg-type]
        case "json_schema":
            return LLMatcher.grammar_from_json_schema(enforced_schema(grammar), overrides=_COMPACT)  # type: ignore[arg-type]
        case "regex":
            return LLMatcher.grammar_from_regex(grammar.text)
        case "choice":
            # A terminal, not a rule: a thousand choices then are one lexeme with as many ends, not a thousand lexemes.
            texts = " | ".join(json.dumps(text, ensure_ascii=False) for text in json.loads(grammar.text))
            return LLMatcher.grammar_from_lark(f"start: CHOICE\nCHOICE: {texts}")
        case "lark":
            return LLMatcher.grammar_from_lark(grammar.text)
        case "gbnf":
            return LLMatcher.grammar_from_lark(as_lark(grammar.text, grammar.param))
        case "structural_tag":
            return LLMatcher.grammar_from_lark(structural_tags_as_lark(grammar.text, grammar.param))


def enforced_schema(grammar: Grammar) -> dict[str, Any]:
    """A grammar that is a JSON schema, as llguidance takes it.

    Raises:
        InvalidRequestError: it is no JSON schema, or no output can be held to it.
    """
    try:
        schema = as_enforced(json.loads(grammar.text), grammar.param)
    except ValueError as error:
        raise InvalidRequestError(f"{grammar.param} is no JSON: {error}", param=grammar.param) from None
    if schema is True:
        return {}
    if not isinstance(schema, dict):
        what = "no value fits the schema `false`" if schema is False else "a JSON schema is an object, or true or false"
        raise InvalidRequestError(f"{grammar.param}: {what}", param=grammar.param)
    return schema


def error_of(matcher: LLMatcher) -> str | None:
    """What is wrong with a grammar, where something is; without what llguidance prints of its own state."""
    if not matcher.is_error():
        return None
    message = matcher.get_error().split("\n<")[0]
    if message.startswith("NoExtension"):
        return "no text fits it"
    if message.startswith("oneOf constraints"):
        return "`oneOf` needs schemas that exclude each other, by type or by a property with different values; use `anyOf` otherwise"
    return message[:_ERROR_CHARACTERS]
