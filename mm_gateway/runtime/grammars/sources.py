"""A grammar as llguidance (https://github.com/guidance-ai/llguidance) reads it."""

from __future__ import annotations

import json

from llguidance import LLMatcher, LLParserLimits

from mm_gateway.core import Grammar

LIMITS = LLParserLimits(max_lexer_states=50_000, verbose_errors=False)
"""llguidance's own, but for the states of the lexer: 1 to 2 kB each, in every choice of every request that has a grammar.

What they leave open is what a compilation recurses, and how long it takes; so it is tried out first (`trials.py`).
"""
_COMPACT = {"whitespace_flexible": False}  # free white space lets a weak model go on with blanks for ever
_ERROR_CHARACTERS = 500


def source_of(grammar: Grammar) -> str:
    """Raises ValueError: it is no JSON."""
    match grammar.kind:
        case "json_object":
            return LLMatcher.grammar_from_json_schema({"type": "object"}, overrides=_COMPACT)  # type: ignore[arg-type]
        case "json_schema":
            return LLMatcher.grammar_from_json_schema(grammar.text, overrides=_COMPACT)  # type: ignore[arg-type]
        case "regex":
            return LLMatcher.grammar_from_regex(grammar.text)
        case "choice":
            # A terminal, not a rule: a thousand choices then are one lexeme with as many ends, not a thousand lexemes.
            texts = " | ".join(json.dumps(text, ensure_ascii=False) for text in json.loads(grammar.text))
            return LLMatcher.grammar_from_lark(f"start: CHOICE\nCHOICE: {texts}")
        case "lark":
            return LLMatcher.grammar_from_lark(grammar.text)


def error_of(matcher: LLMatcher) -> str | None:
    """What is wrong with a grammar, where something is; without what llguidance prints of its own state."""
    if not matcher.is_error():
        return None
    message = matcher.get_error().split("\n<")[0]
    if message.startswith("NoExtension"):
        return "no text fits it"
    return message[:_ERROR_CHARACTERS]
