"""Grammars as llama.cpp (GBNF) and xgrammar (EBNF, what vLLM's clients send) write them, in llguidance's dialect of Lark.

Those grammars are over characters: `[a-z]+ "b"` fits `ab`. A terminal of Lark takes the longest text that it can, and would leave no `b`
(llguidance's own `gbnf_to_lark` makes such terminals). So every terminal here is one character, and the meaning stays the same.

Syntax: https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md, https://xgrammar.mlc.ai/docs/. Token by token, in linear
time, without recursion.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from mm_gateway.errors import InvalidRequestError

_BEGIN = re.compile(r"(?:\s|#[^\n]*(?:\n|$))*[A-Za-z0-9_-]+\s*::=")
_TOKEN = re.compile(
    r"""(?P<blank>\s+|\#[^\n]*)
    |(?P<head>[A-Za-z0-9_-]+)\s*::=
    |(?P<name>[A-Za-z0-9_-]+)
    |"(?P<string>(?:\\.|[^"\\\n])*)"
    |\[(?P<negated>\^?)(?P<class>(?:\\.|[^\]\\])*)\]
    |(?P<repeat>[*+?]|\{\s*(?P<least>\d*)\s*(?P<comma>,?)\s*(?P<most>\d*)\s*\})
    |[(|).]""",
    re.VERBOSE | re.DOTALL,
)
_CHARACTER = re.compile(
    r"\\x(?P<x>[0-9A-Fa-f]{2})|\\u(?P<u>[0-9A-Fa-f]{4})|\\U(?P<U>[0-9A-Fa-f]{8})|\\(?P<named>.)|(?P<plain>[^\\])", re.DOTALL
)
_NAMED = {"n": "\n", "r": "\r", "t": "\t"} | {char: char for char in "\\\"'[]-^/"}
_ROOT = "root"
_LAST, _SURROGATES = 0x10FFFF, range(0xD800, 0xE000)
_MAX_DIGITS = 6


def is_gbnf(text: str) -> bool:
    """Whether a grammar begins with a rule of the form `name ::= …`, as none of Lark does."""
    return _BEGIN.match(text) is not None


def as_lark(text: str, param: str) -> str:
    """The same grammar in Lark. param: the field that holds it.

    Raises:
        InvalidRequestError: it is wrong, or has something that Lark has no words for; says where.
    """
    return _Translation(text, param).lark()


class _Translation:
    def __init__(self, text: str, param: str) -> None:
        self._text, self._param = text, param

    def lark(self) -> str:
        rules: list[tuple[re.Match[str], list[re.Match[str]]]] = []
        for token in self._tokens():
            if token["head"] is not None:
                rules.append((token, []))
            elif not rules:
                raise self._error(token.start(), "a grammar begins with a rule, `root ::= …`")
            else:
                rules[-1][1].append(token)
        self._names = self._named([head for head, _ in rules])
        return "\n".join(f"{self._names[head['head']]}: {self._body(body)}" for head, body in rules)

    def _tokens(self) -> Iterator[re.Match[str]]:
        at = 0
        while at < len(self._text):
            token = _TOKEN.match(self._text, at)
            if token is None:
                raise self._error(at, f"`{self._text[at : at + 20]}` is nothing that is known here")
            at = token.end()
            if token["blank"] is None:
                yield token

    def _named(self, heads: list[re.Match[str]]) -> dict[str, str]:
        """Names of rules -> their names in Lark, which knows small letters, digits and underscores."""
        names: dict[str, str] = {}
        taken = {"start"}
        for head in heads:
            name = head["head"]
            if name in names:
                raise self._error(head.start(), f"there are two rules `{name[:50]}`")
            plain = "start" if name == _ROOT else "r_" + re.sub("[^a-z0-9]+", "_", name.lower()).strip("_")
            names[name] = plain if name == _ROOT or plain not in taken else f"{plain}_{len(names)}_"
            taken.add(names[name])
        if _ROOT not in names:
            raise self._error(0, f"there is no rule `{_ROOT}`, with which a grammar begins")
        return names

    def _body(self, tokens: list[re.Match[str]]) -> str:
        """What is behind the colon of a rule."""
        words: list[str] = []
        open_groups: list[int] = []  # places of their brackets
        before = "("  # what the last word is: a bracket that opens, `|`, `item`, or `repeat`
        for token in tokens:
            if token["repeat"] is not None:
                if before != "item":
                    what = (
                        "put the repetition before it into brackets" if before == "repeat" else "there is nothing before it to be repeated"
                    )
                    raise self._error(token.start(), f"`{token[0][:20]}`: {what}")
                words.append(self._repeat(token))
                before = "repeat"
            elif token[0] == "(":
                open_groups.append(token.start())
                words.append("(")
                before = "("
            elif token[0] in ("|", ")"):
                if before in ("(", "|"):
                    words.append('""')  # no text, which Lark has to be told
                if token[0] == ")" and not open_groups:
                    raise self._error(token.start(), "a `)` without its `(`")
                words.append(token[0])
                before = "|" if token[0] == "|" else "item"
                if token[0] == ")":
                    open_groups.pop()
            else:
                words.append(self._item(token))
                before = "item"
        if open_groups:
            raise self._error(open_groups[-1], "a `(` without its `)`")
        return " ".join(words if before in ("item", "repeat") else [*words, '""'])

    def _item(self, token: re.Match[str]) -> str:
        at = token.start()
        if token[0] == ".":
            return "/(?s:.)/"
        if (name := token["name"]) is not None:
            if name not in self._names:
                raise self._error(at, f"there is no rule `{name[:50]}`")
            return self._names[name]
        if token["string"] is not None:
            texts = [json.dumps(char, ensure_ascii=False) for char, _ in self._characters(token["string"], at)]
            return texts[0] if len(texts) == 1 else f"({' '.join(texts)})" if texts else '""'
        return f"/[{token['negated']}{self._class(token['class'], at)}]/"

    def _class(self, text: str, at: int) -> str:
        """The inside of a class, as a regular expression has it."""
        found = list(self._characters(text, at))
        ranges: list[str] = []
        place = 0
        while place < len(found):
            low = high = found[place][0]
            place += 1
            if found[place : place + 1] == [("-", False)] and place + 1 < len(found):  # a minus at an end is one
                high = found[place + 1][0]
                place += 2
            if high < low:
                raise self._error(at, f"the range `{low}-{high}` ends before it begins")
            ranges.append(_code(low) if low == high else f"{_code(low)}-{_code(high)}")
        if not ranges:
            raise self._error(at, "no character fits an empty class")
        return "".join(ranges)

    def _characters(self, text: str, at: int) -> Iterator[tuple[str, bool]]:
        """Each with whether it was escaped."""
        place = 0
        while place < len(text):
            match = _CHARACTER.match(text, place)
            if match is None:
                raise self._error(at, f"`{text[place : place + 10]}` is no escaped character")
            place = match.end()
            if match["plain"] is not None:
                yield match["plain"], False
            elif (named := match["named"]) is not None:
                if named not in _NAMED:
                    raise self._error(
                        at, f'`{match[0]}` is no escaped character; there are \\n \\r \\t \\\\ \\" \\[ \\] \\xHH \\uHHHH \\UHHHHHHHH'
                    )
                yield _NAMED[named], True
            else:
                code = int(match["x"] or match["u"] or match["U"], 16)
                if code > _LAST or code in _SURROGATES:
                    raise self._error(at, f"`{match[0]}` is no character")
                yield chr(code), True

    def _repeat(self, token: re.Match[str]) -> str:
        if token[0] in ("*", "+", "?"):
            return token[0]
        least, most = token["least"], token["most"]
        if not least and not most:
            raise self._error(token.start(), f"`{token[0][:20]}` does not say how often")
        if len(least) > _MAX_DIGITS or len(most) > _MAX_DIGITS or (most and int(most) < int(least or 0)):
            raise self._error(token.start(), f"`{token[0][:20]}` is no number of times")
        return f"{{{least or 0},{most if token['comma'] else least}}}"

    def _error(self, at: int, what: str) -> InvalidRequestError:
        line = self._text.count("\n", 0, at) + 1
        column = at - self._text.rfind("\n", 0, at)
        return InvalidRequestError(f"{self._param}: line {line}, column {column}: {what}", param=self._param)


def _code(char: str) -> str:
    return rf"\u{{{ord(char):x}}}"
