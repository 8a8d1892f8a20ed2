"""What a grammar in llguidance's dialect of Lark asks of its compiler, and whether any finite text fits it; nothing here recurses.

Reads no more than that needs: names, alternatives, groups, repetitions, and where the schemas and regular expressions are. What is no
grammar at all is left to the compiler, which says what is wrong with it.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field

from mm_gateway.errors import InvalidRequestError
from mm_gateway.runtime.grammars.derivable import derivable
from mm_gateway.runtime.grammars.json_schema import check_schema_text, json_extent
from mm_gateway.runtime.grammars.limits import MAX_BYTES, MAX_REFERENCE_DEPTH, MAX_REGEX_SIZE, MAX_RULES, check
from mm_gateway.runtime.grammars.regex import check_regex, expanded_size

_TOKEN = re.compile(
    r"""(?P<comment>(?:\#|//)[^\n]*)
    |(?P<string>"(?:\\.|[^"\\\n])*"i?)
    |/(?P<regex>(?:\\.|[^/\\])+)/[imslux]*
    |(?P<keyword>%[a-z]+)
    |(?P<name>_?[A-Za-z](?:[\w-]*\w)?)
    |(?P<literal><[^<>\s]+>|@[\w-]+|->\s*\w+)
    |\{(?P<repeat>\s*\d*\s*(?:,\s*\d*\s*)?)\}|~\s*(?P<times>\d+(?:\s*\.\.\s*\d+)?)
    |(?P<newline>\n)
    |(?P<sign>[^\s])""",
    re.VERBOSE | re.DOTALL,
)
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


def _read(text: str, param: str, grammar: _Grammar) -> Iterator[int]:
    """Fills the grammar; yields how many rules there are, at each of them."""
    rule: str | None = None
    groups: list[Hashable] = []  # the rule, and the groups that are open in it
    bodies: list[list[Hashable]] = []  # of each of them, the alternative that is being read
    at = count = 0

    def close() -> None:
        grammar.alternatives.append((groups.pop(), bodies.pop()))

    while (match := _TOKEN.search(text, at)) is not None:
        at, kind, token = match.end(), match.lastgroup, match[0]
        if kind == "newline":
            if _NEXT_ALTERNATIVE.match(text, at) is None:
                while groups:
                    close()
                rule = None
        elif kind == "name" and rule is None:
            head = _HEAD.match(text, at)
            if head is not None:
                rule, at, count = token, head.end(), count + 1
                grammar.references.setdefault(rule, [])
                groups, bodies = [rule], [[]]
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
        elif rule is None:
            continue
        elif kind == "name":
            grammar.references[rule].append(token)
            bodies[-1].append(token)
        elif token == "|":
            grammar.alternatives.append((groups[-1], bodies[-1]))
            bodies[-1] = []
        elif token in ("(", "["):
            group = (rule, match.start())
            bodies[-1].append(group)
            if token == "[":
                grammar.alternatives.append((group, ()))
            groups.append(group)
            bodies.append([])
        elif token in (")", "]"):
            if len(groups) > 1:
                close()
        elif token in ("?", "*") or (match["repeat"] or match["times"] or "1").strip().startswith(("0", ",")):
            if bodies[-1]:
                bodies[-1].pop()  # it may be left out
        elif token == "~":
            bodies[-1].clear()  # of what may not be there, nothing is known
            grammar.alternatives.append((groups[-1], ()))
    while groups:
        close()


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
