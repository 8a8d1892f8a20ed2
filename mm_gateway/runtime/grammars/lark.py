"""What a grammar in llguidance's dialect of Lark asks of its compiler, and whether any finite text fits it; nothing here recurses.

Reads no more than that needs: names, alternatives, groups, repetitions, and where the schemas and regular expressions are. What is no
grammar at all is left to the compiler, which says what is wrong with it.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field

from mm_gateway.errors import InvalidRequestError
from mm_gateway.grammar_tokens import LARK_TOKEN
from mm_gateway.runtime.grammars.derivable import derivable
from mm_gateway.runtime.grammars.json_schema import check_schema_text, json_extent
from mm_gateway.runtime.grammars.limits import MAX_BYTES, MAX_REFERENCE_DEPTH, MAX_REGEX_SIZE, MAX_RULES, check
from mm_gateway.runtime.grammars.regex import check_regex, expanded_size

_TOKEN_IDS = re.compile(r"<\[\d+\]>")
_HEAD = re.compile(r"[ \t]*(?:::\s*_|\{[^}\n]*\}|\.-?\d+|\[[^\]\n]*\])*[ \t]*:")
_NEXT_ALTERNATIVE = re.compile(r"\s*\|")


def check_lark(text: str, param: str) -> None:
    """Raises InvalidRequestError where a grammar is beyond the limits, or no finite text fits it.

    Args:
        param: the field that holds it, to be named in the error.
    """
    check(param, "bytes", len(text.encode()), MAX_BYTES)
    grammar = _Grammar()
    for rule in _read(text, param, grammar):
        check(param, "rules", rule, MAX_RULES)
    check(param, "characters of regular expressions, repetitions counted", grammar.regex_size, MAX_REGEX_SIZE)
    check(param, "rules that lead to each other", _reference_depth(grammar.references), MAX_REFERENCE_DEPTH)
    known = grammar.references.keys()
    facts = [(name, ()) for names in grammar.references.values() for name in names if name not in known]  # imported ones
    if "start" in known and "start" not in derivable([*grammar.alternatives, *facts]):
        raise InvalidRequestError(f"{param}: no finite text fits this grammar, because it requires itself inside itself", param=param)


@dataclass
class _Grammar:
    """references: of each rule, the names in it. alternatives: (rule or group, what all has to be there)."""

    references: dict[str, list[str]] = field(default_factory=dict)
    alternatives: list[tuple[Hashable, Sequence[Hashable]]] = field(default_factory=list)
    regex_size: int = 0


@dataclass
class _Body:
    """What is being read of a rule: the groups that are open in it, itself first, and of each the alternative so far."""

    grammar: _Grammar
    rule: str | None = None
    groups: list[Hashable] = field(default_factory=list)
    alternatives: list[list[Hashable]] = field(default_factory=list)

    def begin(self, rule: str) -> None:
        self.rule, self.groups, self.alternatives = rule, [rule], [[]]
        self.grammar.references.setdefault(rule, [])

    def end(self) -> None:
        while self.groups:
            self._close()
        self.rule = None

    def take(self, match: re.Match[str]) -> None:
        """One token of the rule, if there is one: a name, or a sign that joins or repeats."""
        if self.rule is None:
            return
        token, alternative = match[0], self.alternatives[-1]
        if match.lastgroup == "name":
            self.grammar.references[self.rule].append(token)
            alternative.append(token)
        elif token == "|":
            self.grammar.alternatives.append((self.groups[-1], alternative))
            self.alternatives[-1] = []
        elif token in ("(", "["):
            self._open((self.rule, match.start()), optional=token == "[")
        elif token in (")", "]"):
            if len(self.groups) > 1:
                self._close()
        elif token in ("?", "*") or (match["repeat"] or match["times"] or "1").strip().startswith(("0", ",")):
            if alternative:
                alternative.pop()  # it may be left out
        elif token == "~":
            alternative.clear()  # of what may not be there, nothing is known
            self.grammar.alternatives.append((self.groups[-1], ()))

    def _open(self, group: Hashable, *, optional: bool) -> None:
        self.alternatives[-1].append(group)
        if optional:
            self.grammar.alternatives.append((group, ()))
        self.groups.append(group)
        self.alternatives.append([])

    def _close(self) -> None:
        self.grammar.alternatives.append((self.groups.pop(), self.alternatives.pop()))


def without_token_ids(text: str) -> str:
    """The same grammar with all references to tokens by their ids as one to token 0, which every vocabulary has."""
    return LARK_TOKEN.sub(lambda match: "<[0]>" if match.lastgroup == "literal" and _TOKEN_IDS.fullmatch(match[0]) else match[0], text)


def _read(text: str, param: str, grammar: _Grammar) -> Iterator[int]:
    """Fills the grammar; yields how many rules there are, at each of them."""
    body = _Body(grammar)
    at = count = 0
    while (match := LARK_TOKEN.search(text, at)) is not None:
        at, kind, token = match.end(), match.lastgroup, match[0]
        if kind == "newline":
            if _NEXT_ALTERNATIVE.match(text, at) is None:
                body.end()
        elif kind == "name" and body.rule is None:
            head = _HEAD.match(text, at)
            if head is not None:
                at, count = head.end(), count + 1
                body.begin(token)
                yield count
        elif kind == "keyword" and token in ("%json", "%lark", "%llguidance", "%regex"):
            begin = text.find("{", at)
            end, _ = json_extent(text, begin) if begin >= 0 else (len(text), 0)
            if token == "%json" and begin >= 0:
                check_schema_text(text[begin:end], param)
            at = end
        elif kind == "regex":
            check_regex(match["regex"], param)
            grammar.regex_size += expanded_size(match["regex"])
        else:
            body.take(match)
    body.end()


def _reference_depth(references: dict[str, list[str]]) -> int:
    """How many rules lead to each other at most, as a compiler meets them that compiles each of them once."""
    deepest = depth = 0
    seen: set[str] = set()
    stack: list[str | None] = ["start"]  # None: a rule is left
    while stack:
        name = stack.pop()
        if name is None:
            depth -= 1
        elif name not in seen and name in references:
            seen.add(name)
            depth += 1
            deepest = max(deepest, depth)
            stack.append(None)
            stack += reversed(references[name])
    return deepest
