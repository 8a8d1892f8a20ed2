"""Grammars of a custom tool's text within the grammar of a call: as they are, and as JSON writes the text."""

from __future__ import annotations

import json

import pytest
from llguidance import LLMatcher, LLTokenizer

from mm_gateway.chat_templates.tool_formats.free_text import as_it_is, in_json_string
from mm_gateway.core import Grammar
from mm_gateway.errors import UnsupportedParameterError
from mm_gateway.runtime.grammars.lark import check_lark

LINES = r"""
// Changes of files, line by line.
start: begin change+ end
begin: "* begin" LF
end: "* end" LF?
change: add | remove -> gone
add: "* add: " path LF added+
remove: "* remove: " path LF
path: /(.+)/
added: "+" /(.*)/ LF
%import common.LF
"""
SUMS = r"""
start: sum
sum: term ("+" term)*
term: NUMBER | "(" sum ")" | "\""
%import common.NUMBER
%ignore / +/
"""
LISTS = r"""
start: list
list: "[" (item ("," item)*)? "]"
item: list | WORD
WORD: /[^\[\],\n]+/
"""


def lark(text: str) -> Grammar:
    return Grammar("lark", text, "tools[0].format.definition")


def regex(text: str) -> Grammar:
    return Grammar("regex", text, "tools[0].format.definition")


CASES = [
    (lark(LINES), ['* begin\n* add: a"b.txt\n+x = "q\\n"\t{}\n+\n* end\n', "* begin\n* remove: a\n* end"], ["x", "* begin\n+a\n* end"]),
    (lark(SUMS), ["(1 + 2)+3.5", '((("+1)))'], ["1+", "a"]),
    (lark(LISTS), ['["a","b\\t",[[c]]]', "[]"], ["[a", "[a\n]"]),
    (lark(r'start: /[\x22\n]/ "a".."c" /A\/b/i "{"? [/d/]'), ['"ba/B', "\nca/b{d"], ['"da/b', "xaa/b"]),
    (lark('start: A~2..3\nA: "x" | "\\n"'), ["x\n", "\n\n\n"], ["x", "xxxx"]),
    (regex(r'[a-z"\n{}/]+\s\d{2,3}(?s:.)x'), ['ab"\n{}/ 12\nx', 'a\t123"x'], ["a 1\nx", ""]),
    (regex(r'[^"]*'), ["a\n\\\x01", ""], ['"']),
    (regex(r'["\\]+\S\W'), ['"\\"\\'], ['"" a']),
    (regex(r"(?i:select) (?:a|b)*.{0,2}"), ["SELECT abba\t!"], ["select ab\n"]),
    (regex(r"\p{Lu}\u00e9\x41[^\p{L}]"), ['ÄéA"', "ÄéA1"], ["aéA1"]),
]


def fits(grammar: str, text: str) -> bool:
    check_lark(grammar, "tools")
    tokenizer = LLTokenizer("byte")
    matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_lark(grammar))
    assert not matcher.is_error(), matcher.get_error()
    tokens = tokenizer.tokenize_str(text)
    return matcher.validate_tokens(tokens) == len(tokens) and matcher.consume_tokens(tokens) and matcher.is_accepting()


@pytest.mark.parametrize(("grammar", "good", "bad"), CASES)
def test_a_text_in_a_json_string_follows_the_grammar(grammar: Grammar, good: list[str], bad: list[str]) -> None:
    call = f'start: "{{\\"input\\": \\"" text "\\"}}"\ntext: {in_json_string(grammar)}'
    for text in good + bad:
        assert fits(call, json.dumps({"input": text}, ensure_ascii=False)) == (text in good), text


@pytest.mark.parametrize(("grammar", "good", "bad"), CASES)
def test_a_text_between_tags_follows_the_grammar(grammar: Grammar, good: list[str], bad: list[str]) -> None:
    call = f'start: "<p>" text\ntext: {as_it_is(grammar, "</p>")}'
    for text in good + bad:
        assert fits(call, f"<p>{text}</p>") == (text in good), text


def test_no_text_reads_across_what_ends_it() -> None:
    call = f'start: "<p>" text "."\ntext: {as_it_is(regex("(?s:.*)"), "</p>")}'
    assert fits(call, "<p>a</p>.") and not fits(call, "<p>a</p>b</p>.")


@pytest.mark.parametrize(
    "text",
    ['start: %json {"type": "string"}', "start: <|im_start|>", "start: @other", "start: /a b/x", "%import common.PYTHON\nstart: PYTHON"],
)
def test_what_cannot_be_within_another_grammar_is_named(text: str) -> None:
    with pytest.raises(UnsupportedParameterError) as raised:
        in_json_string(lark(text))
    assert raised.value.param == "tools[0].format.definition"
