"""A text that a grammar allows, for whoever has no model to write one; always the same."""

from __future__ import annotations

import random
import string
import time
from collections.abc import Iterable

from llguidance import LLMatcher, LLTokenizer

from mm_gateway.core import Grammar
from mm_gateway.runtime.grammars.sources import LIMITS, source_of

_TRIES, _MOST_BYTES = 8, 2048
_TOKENIZER = LLTokenizer("byte", slices=[])  # a token is a byte, and has its number


def _set(characters: str) -> int:
    """Bytes as the bits of a number."""
    return sum(1 << byte for byte in set(characters.encode()))


_ANY = (1 << 256) - 1
_WORD = _set(string.ascii_letters + string.digits)
_PRINTABLE = _set("".join(map(chr, range(32, 127))))
_PLAIN = _PRINTABLE & ~_set('"\\')
# What ends a value comes before what goes on with it, and what opens an inner one last: so a value of a recursive schema has an end.
_OUTSIDE_STRINGS = [_set("}"), _set("]"), _set(",:"), _set('"'), _WORD, _set("["), _set("{"), _ANY]
_INSIDE_STRINGS = [_set('"'), _WORD, _PLAIN, _ANY & ~_set("\\"), _ANY]
_ELSEWHERE = [_WORD, _PRINTABLE, _ANY]


def example_of(grammar: Grammar, wanted: Iterable[str] = (), *, within_s: float = 1.0) -> str | None:
    """A text that the grammar allows: the first of those wanted, else one that is made up of what may come next, byte by byte.

    Args:
        grammar: one that was tried out (`trials.py`). within_s: seconds for making one up.

    Returns:
        None where no short one was found.
    """
    start = LLMatcher(_TOKENIZER, source_of(grammar), log_level=0, limits=LIMITS)
    for text in wanted:
        if _allows(start.deep_copy(), text.encode()):
            return text
    give_up_at = time.monotonic() + within_s
    for seed in range(_TRIES):
        if (text := _written(start.deep_copy(), random.Random(seed), give_up_at)) is not None:
            return text
    return None


def _allows(matcher: LLMatcher, text: bytes) -> bool:
    return matcher.try_consume_tokens(list(text)) == len(text) and matcher.is_accepting()


def _written(matcher: LLMatcher, choice: random.Random, give_up_at: float) -> str | None:
    text = bytearray()
    while len(text) < _MOST_BYTES and time.monotonic() < give_up_at:
        allowed = int.from_bytes(matcher.compute_bitmask(), "little") & _ANY
        if matcher.is_error():
            return None
        if matcher.is_accepting() and (text or not allowed):
            try:
                return text.decode()
            except UnicodeDecodeError:  # a grammar may end anywhere
                return None
        if not allowed:
            return None
        byte = _next(allowed, text, choice)
        matcher.consume_token(byte)
        text.append(byte)
    return None


def _next(allowed: int, text: bytearray, choice: random.Random) -> int:
    json = text[:1] in (b"{", b"[", b'"')
    order = _ELSEWHERE if not json else _INSIDE_STRINGS if _in_string(text) else _OUTSIDE_STRINGS
    if order is not _OUTSIDE_STRINGS and choice.random() < 0.2:
        order = [_ANY]  # now and then, as the way out may lead through what nobody would prefer
    fitting = next(found for preferred in order if (found := allowed & preferred))
    return choice.choice([byte for byte in range(256) if fitting >> byte & 1])


def _in_string(json: bytearray) -> bool:
    """Whether the JSON so far ends inside a string."""
    return (json.replace(b"\\\\", b"").replace(b'\\"', b"").count(b'"')) % 2 == 1
