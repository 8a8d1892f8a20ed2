"""The size of a regular expression, as the automaton that it becomes sees it."""

from __future__ import annotations

from mm_gateway.grammar_tokens import REGEX_TOKEN
from mm_gateway.runtime.grammars.limits import MAX_REGEX_BYTES, MAX_REGEX_SIZE, check

_HUGE = 10**9


def check_regex(text: str, param: str) -> None:
    """Raises InvalidRequestError where a regular expression is beyond the limits. Whether it is one, the compiler says."""
    check(param, "bytes of regular expression", len(text.encode()), MAX_REGEX_BYTES)
    check(param, "characters of regular expression, repetitions counted", expanded_size(text), MAX_REGEX_SIZE)


def expanded_size(text: str) -> int:
    """Characters and classes, each counted as often as the repetitions around it allow; an open repetition counts as its minimum."""
    outer: list[int] = []  # of each open group: the size before it
    size = last = 0  # of this group, and of its last part
    for match in REGEX_TOKEN.finditer(text):
        token = match[0]
        if token.startswith("("):
            outer.append(size)
            size = last = 0
        elif token == ")" and outer:
            last = size
            size = min(outer.pop() + last, _HUGE)
        elif token.startswith("{") and (match["low"] or match["high"]):
            times = max(_number(match["low"]), _number(match["high"]), 1)
            repeated = min(last * times, _HUGE)
            size, last = min(size - last + repeated, _HUGE), repeated
        elif token not in ("|", "?", "*", "+", "^", "$"):
            size, last = size + 1, 1
    for before in outer:
        size += before
    return size


def _number(digits: str | None) -> int:
    return 0 if not digits else int(digits) if len(digits) < 10 else _HUGE
