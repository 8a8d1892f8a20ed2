"""The text that a custom tool takes, as Lark within the grammar of a call: as it is, or as it stands in a JSON string.

A call's arguments are JSON or tags, but a tool's grammar is about the text itself. JSON escapes each character by itself, so it is enough
to escape what the literals and regular expressions of the grammar match. But an escape is two characters, and llguidance's lexer, which
never goes back, takes its first one for the beginning of whichever escape the terminal before may go on with. So rules that do not lead
back to themselves become terminals: all of a grammar without recursion is one regular expression then. In a recursive one it remains that
a terminal that may hold escapes does not end before an escape that it may not hold: less than the grammar allows is written there, never
more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence

import regex

from mm_gateway.chat_templates.tool_formats.json_regex import hexadecimal, json_regex, literal_regex
from mm_gateway.core import Grammar
from mm_gateway.errors import UnsupportedParameterError
from mm_gateway.grammar_tokens import LARK_TOKEN

_COMMON = {
    "CNAME": r"/[A-Za-z_][A-Za-z0-9_]*/",
    "CR": r"/\r/",
    "DECIMAL": r"/[0-9]+\.[0-9]*|\.[0-9]+/",
    "DIGIT": r"/[0-9]/",
    "ESCAPED_STRING": r'/"([^"\\\n]|\\.)*"/',
    "FLOAT": r"/[0-9]+[eE][+-]?[0-9]+|([0-9]+\.[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?/",
    "HEXDIGIT": r"/[0-9A-Fa-f]/",
    "INT": r"/[0-9]+/",
    "LCASE_LETTER": r"/[a-z]/",
    "LETTER": r"/[A-Za-z]/",
    "LF": r"/\n/",
    "NEWLINE": r"/(\r?\n)+/",
    "NUMBER": r"/([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?/",
    "SIGNED_FLOAT": r"/[+-]?([0-9]+[eE][+-]?[0-9]+|([0-9]+\.[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?)/",
    "SIGNED_INT": r"/[+-]?[0-9]+/",
    "SIGNED_NUMBER": r"/[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?/",
    "UCASE_LETTER": r"/[A-Z]/",
    "WORD": r"/[A-Za-z]+/",
    "WS": r"/[ \t\f\r\n]+/",
    "WS_INLINE": r"/[ \t]+/",
}
"""Terminals of Lark's library that can be imported (https://github.com/lark-parser/lark/blob/master/lark/grammars/common.lark)."""
_IMPORT = re.compile(r"%import\s+common\.(?:(?P<one>\w+)(?:[ \t]*->[ \t]*(?P<alias>\w+))?|[ \t]*\((?P<some>[\w\s,]+)\))")
_HEAD = re.compile(r"[ \t]*(?P<attributes>(?:\.-?\d+|\[[^\]\n]*\])*)[ \t]*:(?!:)")
_RANGE = re.compile(r'\s*\.\.\s*(?P<last>"(?:[^"\\]|\\.)+")')

_Regex = Callable[[str, bool], str]
"""A regular expression, and whether its dot matches line ends -> the one that stands in its place."""


def as_it_is(grammar: Grammar, end: str) -> str:
    """A Lark body of the text where it stands unchanged. end: the literal that follows it, and is part of the body; empty: a control token
    follows, which no text holds.

    Raises:
        UnsupportedParameterError: the grammar has what cannot be within another.
    """
    read = _Grammar(grammar, lambda text, _: _delimited(text), lambda text: text)
    terminal = read.as_terminal()
    if terminal is not None:
        rest = f"text[suffix={json.dumps(end, ensure_ascii=False)}]: TEXT" if end else "text: TEXT"
        return _nested(["start: text", rest, f"TEXT: {terminal}", *read.written()])
    across = f" & ~/(?s:.*){''.join(map(literal_regex, end))}(?s:.*)/" if end else ""
    within = _Grammar(grammar, lambda text, _: _delimited(text), lambda text: text, each=across)
    following = f" {json.dumps(end, ensure_ascii=False)}" if end else ""
    return f"{_nested(within.written())}{following}"


def in_json_string(grammar: Grammar) -> str:
    """A Lark body of the text as it stands between the quotes of a JSON string; errors as for `as_it_is`."""
    read = _Grammar(grammar, lambda text, dotall: f"/{json_regex(text, dotall=dotall)}/", _quoted)
    terminal = read.as_terminal()
    return _nested([*(["start: TEXT", f"TEXT: {terminal}"] if terminal is not None else []), *read.written()])


def _nested(lines: Sequence[str]) -> str:
    return "%lark {\n" + "\n".join(lines) + "\n}"


def _delimited(text: str) -> str:
    return "/" + text.replace("\\/", "/").replace("/", "\\/") + "/"


class _Definition:
    """A rule or a terminal. attributes: what stands between name and colon. pieces: its body, names as pairs of nothing and the name."""

    def __init__(self, name: str, attributes: str) -> None:
        self.name, self.attributes = name, attributes
        self.pieces: list[str | tuple[None, str]] = []

    @property
    def is_terminal(self) -> bool:
        return self.name.lstrip("_")[:1].isupper()

    @property
    def names(self) -> set[str]:
        return {piece[1] for piece in self.pieces if isinstance(piece, tuple)}


class _Grammar:
    """A tool's grammar, its literals and expressions written anew.

    Args:
        written: makes the expression that stands in the place of one, within slashes. quote: the same of a literal, with its quotes.
        each: what is added to each expression.
    """

    def __init__(self, grammar: Grammar, written: _Regex, quote: Callable[[str], str], each: str = "") -> None:
        self._grammar, self._written, self._quote, self._each = grammar, written, quote, each
        self._definitions: list[_Definition] = []
        self._ignored: list[str] = []
        self._regex: list[str] = []
        if grammar.kind == "regex":
            start = _Definition("start", "")
            start.pieces.append(self._expression(grammar.text, dotall=False))
            self._definitions.append(start)
        else:
            self._read(grammar.text)
        self._terminals = {} if self._ignored else self._without_recursion()

    def as_terminal(self) -> str | None:
        """The name of the terminal that all of it is; None: it is none."""
        return self._terminals.get("start")

    def written(self) -> list[str]:
        lines: list[str] = []
        for definition in self._definitions:
            if definition.name == "start" and "start" in self._terminals:
                lines.append(f"{self._terminals['start']}: {self._body(definition)}")
                continue
            name = self._terminals.get(definition.name, definition.name)
            lines.append(f"{name}{definition.attributes}: {self._body(definition)}")
        return [*lines, *self._regex, *self._ignored]

    def _body(self, definition: _Definition) -> str:
        return " ".join(self._terminals.get(piece[1], piece[1]) if isinstance(piece, tuple) else piece for piece in definition.pieces)

    def _without_recursion(self) -> dict[str, str]:
        """Names of rules that can be terminals, and of these."""
        found: dict[str, str] = {}
        known = {definition.name for definition in self._definitions if definition.is_terminal}
        rules = [definition for definition in self._definitions if not definition.is_terminal and not definition.attributes]
        while more := [rule for rule in rules if rule.name not in found and rule.names <= known | found.keys()]:
            found |= {rule.name: f"RULE_{len(found) + number}" for number, rule in enumerate(more)}
        return found

    def _expression(self, text: str, *, dotall: bool) -> str:
        try:
            written = self._written(text, dotall)
        except (regex.error, ValueError, OverflowError) as error:
            raise self._unserved(f"the regular expression {text[:60]!r} cannot be read: {error}") from None
        if not self._each:
            return written
        # In a terminal of its own: rules know no intersections.
        self._regex.append(f"EXPRESSION_{len(self._regex)}: {written}{self._each}")
        return f"EXPRESSION_{len(self._regex) - 1}"

    def _read(self, text: str) -> None:
        at, line_start = 0, True
        into: list[str | tuple[None, str]] = []
        while (match := LARK_TOKEN.search(text, at)) is not None:
            token, at = match[0], match.end()
            if match.lastgroup == "newline":
                line_start = True
                continue
            if match.lastgroup == "comment":
                continue
            if line_start and match.lastgroup == "name" and (head := _HEAD.match(text, at)) is not None:
                definition = _Definition(token, head["attributes"])
                self._definitions.append(definition)
                into, at = definition.pieces, head.end()
            elif line_start and token == "%ignore":
                into = []
                self._ignored.append("")
            elif token == "%import":
                at = self._import(text, match.start())
            elif match.lastgroup in ("keyword", "literal") and not token.startswith("->"):
                raise self._unserved(f"{token[:60]} cannot be used in it")
            elif not token.startswith("->"):
                piece, at = self._piece(match, text, at)
                into.append(piece)
                if self._ignored and not any(into is definition.pieces for definition in self._definitions):
                    self._ignored[-1] = "%ignore " + " ".join(part[1] if isinstance(part, tuple) else part for part in into)
            line_start = False

    def _piece(self, match: re.Match[str], text: str, at: int) -> tuple[str | tuple[None, str], int]:
        """What stands in the place of one token, and where the next one begins."""
        token = match[0]
        match match.lastgroup:
            case "name":
                return (None, token), at
            case "string":
                if (following := _RANGE.match(text, at)) is not None:
                    first, last = json.loads(token), json.loads(following["last"])
                    return self._expression(f"[{hexadecimal(first)}-{hexadecimal(last)}]", dotall=False), following.end()
                return self._quote(token.removesuffix("i")) + token[token.rindex('"') + 1 :], at
            case "regex":
                flags = token[token.rindex("/") + 1 :]
                if "x" in flags:
                    raise self._unserved("regular expressions with the flag x cannot be used in it")
                inline = "".join(flag for flag in flags if flag in "im")
                inner = match["regex"].replace("\\/", "/")
                return self._expression(f"(?{inline}:{inner})" if inline else inner, dotall="s" in flags), at
            case _:
                return token, at

    def _import(self, text: str, at: int) -> int:
        line = _IMPORT.match(text, at)
        names = [] if line is None else [line["one"]] if line["one"] else re.findall(r"\w+", line["some"])
        if line is None or not all(name in _COMMON for name in names):
            raise self._unserved(f"it imports what is not in Lark's `common`: {text[at : at + 60].splitlines()[0]!r}")
        for name in names:
            definition = _Definition(line["alias"] or name, "")
            definition.pieces.append(self._expression(_COMMON[name][1:-1], dotall=False))
            self._definitions.append(definition)
        return line.end()

    def _unserved(self, why: str) -> UnsupportedParameterError:
        param = self._grammar.param
        return UnsupportedParameterError(f"{param}: {why}", param=param, code="unsupported_value")


def _quoted(token: str) -> str:
    """A literal of Lark, whose escapes are those of JSON, as it stands in a JSON string."""
    text: str = json.loads(token)
    return json.dumps(json.dumps(text, ensure_ascii=False)[1:-1], ensure_ascii=False)
