"""Regular expressions of texts as JSON writes them between quotes, in the syntax that llguidance reads (that of Rust's crate regex)."""

from __future__ import annotations

import functools
import json
import re

import regex

from mm_gateway.grammar_tokens import REGEX_TOKEN

_ESCAPED = (*map(chr, range(32)), '"', "\\")
"""Characters that JSON does not have in strings as they are."""
_CHARACTER = re.compile(
    r"\\(?:x(?P<x>[0-9A-Fa-f]{2})|u(?P<u>[0-9A-Fa-f]{4})|U(?P<U>[0-9A-Fa-f]{8})|[xuU]\{(?P<any>[0-9A-Fa-f]{1,6})\})", re.DOTALL
)
_OF_CLASS = re.compile(r"\\[pPxuU]\{[^}]*\}|\\x[0-9A-Fa-f]{2}|\\u[0-9A-Fa-f]{4}|\\U[0-9A-Fa-f]{8}|\\.|.", re.DOTALL)
_NAMED = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "a": "\a", "0": "\0"}
_CLASSES = frozenset("dDwWsSpP")
_SIGNS = frozenset(r"\.+*?()|[]{}^$#&-~/")


def json_regex(text: str, *, dotall: bool) -> str:
    """What matches the JSON of the texts that an expression matches, without the quotes around them.

    Args:
        dotall: a dot matches line ends, too.
    """
    pieces: list[str] = []
    dots = [dotall]  # whether a dot matches line ends, in each open group
    for match in REGEX_TOKEN.finditer(text):
        token = match[0]
        if token.startswith("\\"):
            pieces.append(
                _class(f"[{token}]") if token[1] in _CLASSES else token if token[1] in "bBAzZ" else literal_regex(_character(token))
            )
        elif token.startswith("["):
            pieces.append(_class(token))
        elif token == ".":
            pieces.append(_class(r"[\s\S]" if dots[-1] else r"[^\n]"))
        elif token.startswith("("):
            dots.append(_dotall(token, dots[-1]))
            pieces.append(token)
        elif token == ")":
            dotall = dots.pop() if len(dots) > 1 else dots[0]
            if pieces and re.fullmatch(r"\(\?[a-zA-Z-]+", pieces[-1]):
                dots[-1] = dotall  # flags for the rest of the group around them
            pieces.append(token)
        elif token in "|*+?^$" or (match["low"] or match["high"]):
            pieces.append(token)
        else:
            pieces.append(literal_regex(token))
    return "".join(pieces)


def _dotall(opening: str, now: bool) -> bool:
    flags = re.match(r"\(\?([a-zA-Z]*)(?:-([a-zA-Z]*))?:?$", opening)
    if flags is None:
        return now
    return (now or "s" in flags[1]) and "s" not in (flags[2] or "")


def _character(escape: str) -> str:
    found = _CHARACTER.fullmatch(escape)
    if found is not None:
        return chr(int(next(digits for digits in found.groups() if digits), 16))
    return _NAMED.get(escape[1], escape[1])


def literal_regex(char: str) -> str:
    """A character as it stands in a JSON string; one piece, to which a repetition may be added."""
    written = json.dumps(char, ensure_ascii=False)[1:-1]
    signs = "".join(_sign(sign) for sign in written)
    return signs if len(written) == 1 else f"(?:{signs})"


def _sign(char: str) -> str:
    # Whoever looks for the end of the grammar counts braces and quotes.
    return hexadecimal(char) if char in '{}"' else f"\\{char}" if char in _SIGNS else char


def hexadecimal(char: str) -> str:
    """A character by its number."""
    return f"\\U{ord(char):08x}"


@functools.lru_cache(maxsize=1024)
def _class(text: str) -> str:
    """A class of characters, those that JSON escapes apart from the others."""
    text = "".join(hexadecimal(_character(token)) if _CHARACTER.fullmatch(token) else token for token in _OF_CLASS.findall(text))
    inside = [char for char in _ESCAPED if regex.fullmatch(text, char, regex.V1)]
    safe = "".join(hexadecimal(token) if token in '{}"' else token for token in _OF_CLASS.findall(text)).replace("/", "\\/")
    others = rf"[{safe}&&[^\x00-\x1f\x22\\]]"
    return f"(?:{'|'.join([others, *map(literal_regex, inside)])})"
