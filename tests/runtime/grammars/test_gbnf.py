"""Grammars of llama.cpp's and xgrammar's kind mean here what they mean there, and what is wrong with one is said with its place."""

from __future__ import annotations

import itertools
import re

import pytest
from llguidance import LLMatcher, LLTokenizer

from mm_gateway.core import Grammar
from mm_gateway.errors import InvalidRequestError
from mm_gateway.runtime.grammars.example import example_of
from mm_gateway.runtime.grammars.gbnf import as_lark, is_gbnf
from mm_gateway.runtime.grammars.measuring import check_size
from mm_gateway.runtime.grammars.sources import LIMITS, source_of
from mm_gateway.runtime.grammars.trials import TRIALS

TOKENIZER = LLTokenizer("byte", slices=[])

ARITHMETIC = r"""
# sums and products
root  ::= (expr "=" blank term "\n")+
expr  ::= term ([-+*/] term)*
term  ::= name | num | "(" blank expr ")" blank
name  ::= [a-z] [a-z0-9_]* blank
num   ::= [0-9]+ blank
blank ::= [ \t\n]*
"""
JSON = r"""
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws

object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws

array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [1-9] [0-9]{0,2})? ws
ws     ::= | " " | "\n" [ \t]{0,20}
"""
LISTED = r"""
root ::= item+
item ::= "- " [^\r\n\x0b\x0c\x85\u2028\u2029]+ "\n"
"""
SQL = r"""
root ::= Select-Statement
Select-Statement ::= "SELECT " columns " FROM " table (" WHERE " condition)? ";"
columns ::= "*" | column (", " column)*
column ::= "id" | "idle" | "name"
  | "COUNT(" column ")"
table ::= "users" | "orders" | "(" Select-Statement ")"
condition ::= column [<>=] value | condition (" AND " | " OR ") condition
value ::= [0-9]{1,3} | "'" [^']* "'"
"""
FITS: list[tuple[str, str, list[str], list[str]]] = [
    ("arithmetic", ARITHMETIC, ["a=b\n", "x1 +(2 *y)= 3\n1=1\n"], ["a=b", "=\n", "1a=2\n", "a=(b\n"]),
    ("json", JSON, ['{"a":[1,-2.5e3,true,null]}', '{ "ü\\n\\u00e9": {} }', "{}"], ["[1]", '{"a"}', '{"a":01}', '{"a":"\x01"}', "{} x{"]),
    ("list", LISTED, ["- a\n", "- first one\n- 二\n"], ["a\n", "- \n", "- a"]),
    (
        "sql",
        SQL,
        ["SELECT id FROM users;", "SELECT *FROM users;".replace("*", "* "), "SELECT idle, COUNT(id) FROM (SELECT name FROM orders;);"],
        [],
    ),
    ("where", SQL, ["SELECT id FROM users WHERE id<7 AND name='x y';"], ["SELECT ids FROM users;", "SELECT id FROM users WHERE id<7777;"]),
]


def fits(grammar: str, *texts: str) -> list[str]:
    """Those of the texts that the grammar takes."""
    start = LLMatcher(TOKENIZER, source_of(Grammar("gbnf", grammar)), log_level=0, limits=LIMITS)
    assert not start.is_error(), start.get_error()
    found: list[str] = []
    for text in texts:
        matcher, data = start.deep_copy(), list(text.encode())
        if matcher.try_consume_tokens(data) == len(data) and matcher.is_accepting():
            found.append(text)
    return found


@pytest.mark.parametrize(("grammar", "good", "bad"), [case[1:] for case in FITS], ids=[case[0] for case in FITS])
def test_grammars_of_common_shapes_take_what_they_say(grammar: str, good: list[str], bad: list[str]) -> None:
    assert is_gbnf(grammar)
    TRIALS.check(Grammar("gbnf", grammar, "guided_grammar"))
    assert fits(grammar, *good, *bad) == good
    assert fits(grammar, example_of(Grammar("gbnf", grammar)) or "")


@pytest.mark.parametrize(
    ("body", "regex"),
    [
        ('[ab]* "b"', "[ab]*b"),  # no repetition takes what has to follow it
        ('"a" | "ab" | "abb" x', "a|ab|abb(a|)"),
        ('("ab" | "a") ("b" | "ba")?', "(ab|a)(b|ba)?"),
        ("x x x", "(a|)(a|)(a|)"),
        ('("a" "b"?){2,3}', "(ab?){2,3}"),
        ('"ab"{2} | "b"{3,} | "ba"{,1}', "(ab){2}|b{3,}|(ba){0,1}"),
        (". [^a]", "(.|\n)[^a]"),
        ('() | (("a")) "" "b"', "|ab"),
        ('"a" (\n | "b"\n)\n | "bb"', "a(|b)|bb"),
    ],
)
def test_a_grammar_means_what_the_regular_expression_does(body: str, regex: str) -> None:
    grammar = f'root ::= {body}\nx ::= "a" |'
    texts = ["".join(letters) for size in range(6) for letters in itertools.product("ab", repeat=size)]
    assert fits(grammar, *texts) == [text for text in texts if re.fullmatch(regex, text)]


def test_characters_are_written_in_every_way() -> None:
    grammar = r"""root ::= "\"\\\n\t\x41\u4e16\U0001F642ß#" [\-\]^/é-ÿ"'] [-a] [a-] # [ " a comment"""
    assert fits(grammar, '"\\\n\tA世🙂ß#-a-') and fits(grammar, '"\\\n\tA世🙂ß#]-a') and fits(grammar, '"\\\n\tA世🙂ß#ü--')
    assert not fits(grammar, '"\\\n\tA世🙂ß#xa-')


@pytest.mark.parametrize(
    ("grammar", "said"),
    [
        ('root ::= "a', 'line 1, column 10: `"a` is nothing that is known here'),
        ('root ::= "a" )', "line 1, column 14: a `)` without its `(`"),
        ('root ::= "a" (\n"b"', "line 1, column 14: a `(` without its `)`"),
        ("root ::= a b\na ::= [a-z]", "line 1, column 12: there is no rule `b`"),
        ('a ::= "x"', "there is no rule `root`"),
        ('root ::= "x"\nroot ::= "y"', "line 2, column 1: there are two rules `root`"),
        ("root ::= * a", "line 1, column 10: `*`: there is nothing before it to be repeated"),
        ('root ::= "a"+?', "line 1, column 14: `?`: put the repetition before it into brackets"),
        ('root ::= "a"{3,2}', "line 1, column 13: `{3,2}` is no number of times"),
        ('root ::= "a"{,}', "line 1, column 13: `{,}` does not say how often"),
        ("root ::= []", "line 1, column 10: no character fits an empty class"),
        ("root ::= [z-a]", "line 1, column 10: the range `z-a` ends before it begins"),
        (r"root ::= [\w]", r"line 1, column 10: `\w` is no escaped character"),
        (r'root ::= "\ud800"', r"line 1, column 10: `\ud800` is no character"),
        (r'root ::= "\x4"', r"line 1, column 10: `\x` is no escaped character"),
        ('root ::= "a"\n  (?= "b")', 'line 2, column 5: `= "b")` is nothing that is known here'),
        ("root ::= <think>", "line 1, column 10: `<think>` is nothing that is known here"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(grammar: str, said: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        as_lark(grammar, "guided_grammar")
    assert str(caught.value).startswith("guided_grammar: ") and said in str(caught.value)
    assert caught.value.param == "guided_grammar"


@pytest.mark.parametrize(
    ("grammar", "said"),
    [
        ('root ::= "' + "a" * 300_000 + '"', "bytes"),
        ("\n".join(['root ::= "a"', *(f'r{n} ::= "a"' for n in range(2_000))]), "rules"),
        ("\n".join(["root ::= r0", *(f"r{n} ::= r{n + 1}" for n in range(300)), 'r300 ::= "a"']), "rules that lead to each other"),
        ('root ::= "a" root', "no finite text fits this grammar"),
        ("root ::= [" + "a" * 60_000 + "]", "regular expression"),
        ("#" * (1 << 20) + "\nroot ::= a", "bytes"),
    ],
    ids=["long", "rules", "depth", "endless", "class", "comment"],
)
def test_the_limits_of_grammars_hold(grammar: str, said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        check_size(Grammar("gbnf", grammar, "guided_grammar"))


def test_a_grammar_that_is_too_deep_for_the_compiler_is_refused_when_it_is_tried_out() -> None:
    with pytest.raises(InvalidRequestError, match="guided_grammar cannot be compiled"):
        TRIALS.check(Grammar("gbnf", "root ::= " + "(" * 20_000 + '"a"' + ")" * 20_000, "guided_grammar"))


def test_larks_grammars_are_told_apart() -> None:
    assert not is_gbnf('start: "::=" name\nname: /[a-z]+/')
    assert not is_gbnf("// root ::= a\nstart: /a/")
    assert is_gbnf("\n # one\n# two\n  root::=a") and is_gbnf("a-b ::= c")
