"""Whether a grammar is small enough to be compiled, in time linear in its text."""

from __future__ import annotations

import json

from mm_gateway.core import Grammar
from mm_gateway.runtime.grammars.gbnf import as_lark
from mm_gateway.runtime.grammars.json_schema import check_schema_text
from mm_gateway.runtime.grammars.lark import check_lark
from mm_gateway.runtime.grammars.limits import MAX_BYTES, MAX_CHOICES, check
from mm_gateway.runtime.grammars.regex import check_regex
from mm_gateway.runtime.grammars.structural_tags import structural_tags_as_lark


def check_size(grammar: Grammar) -> None:
    """Raises InvalidRequestError where it is beyond the limits, or plainly has no finite text; the message says which and how much."""
    match grammar.kind:
        case "json_schema":
            check_schema_text(grammar.text, grammar.param)
        case "lark":
            check_lark(grammar.text, grammar.param)
        case "gbnf":
            check(grammar.param, "bytes", len(grammar.text.encode()), MAX_BYTES)
            check_lark(as_lark(grammar.text, grammar.param), grammar.param)
        case "structural_tag":
            check(grammar.param, "bytes", len(grammar.text.encode()), MAX_BYTES)
            check_lark(structural_tags_as_lark(grammar.text, grammar.param), grammar.param)
        case "regex":
            check_regex(grammar.text, grammar.param)
        case "choice":
            check(grammar.param, "bytes", len(grammar.text.encode()), MAX_BYTES)
            check(grammar.param, "choices", len(json.loads(grammar.text)), MAX_CHOICES)
        case "json_object":
            pass
