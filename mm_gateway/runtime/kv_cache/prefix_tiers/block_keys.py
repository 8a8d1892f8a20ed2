"""Names of the blocks that kept prefixes are cut into: whoever asks for a name can mean nothing but those keys and values."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from hashlib import blake2b

BLOCK_TOKENS = 256
"""Tokens of one block: megabytes, so that files are few, and what a prefix has beyond its last whole block is soon computed."""
KEY_BYTES = 20
_CONTENTS = b"1"
"""Raised when the same name would mean other bytes, as after a change of how int8 cells are laid out: no older file is found then."""


def block_keys(model: bytes, tokens: list[int], angles: int, limit: int) -> Iterator[bytes]:
    """The names of the whole blocks of the first `limit` tokens, each made when it is asked for.

    A name says everything that the block's keys and values depend on: the model, the rotary angles, and all tokens from the first on.

    Args:
        model: says what computes them, and how they are laid out.
    """
    key = blake2b(b"%b %d " % (_CONTENTS, angles) + model, digest_size=KEY_BYTES).digest()
    for start in range(0, limit - BLOCK_TOKENS + 1, BLOCK_TOKENS):
        key = blake2b(key + array("q", tokens[start : start + BLOCK_TOKENS]).tobytes(), digest_size=KEY_BYTES).digest()
        yield key
