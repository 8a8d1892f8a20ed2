"""From token ids to bytes and text: what a tokenizer's single tokens stand for, decoded without its whole sequence."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class TokenText:
    """Decodes ids of one tokenizer.

    Args:
        tokenizer: fast ones are called below transformers' wrapper, which costs ten times the decoding itself.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._backend = getattr(tokenizer, "backend_tokenizer", None)
        self._special = frozenset(tokenizer.all_special_ids)
        self._byte_level = self._backend is not None and "ByteLevel" in str(self._backend.decoder)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`, special tokens left out."""
        if self._backend is not None:
            return self._backend.decode(ids, skip_special_tokens=True)
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    @functools.cached_property
    def longest_token_bytes(self) -> int:
        """Bytes that one token can stand for, at most; takes a moment, the first time."""
        return max((len(token.encode()) for token in self._tokenizer.get_vocab()), default=1)

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token adds to the text; special tokens give their name."""
        token = self._tokenizer.convert_ids_to_tokens(token_id)
        if not isinstance(token, str):  # ids between the tokenizer's size and the model's vocabulary
            return b""
        if token_id not in self._special:
            if self._byte_level:
                table = _byte_decoder()
                if all(char in table for char in token):
                    return bytes(table[char] for char in token)
            elif (match := _BYTE_TOKEN.fullmatch(token)) is not None:
                return bytes([int(match[1], 16)])
        return token.replace("\u2581", " ").encode()


@functools.cache
def _byte_decoder() -> dict[str, int]:
    """Byte-level BPE writes every byte as a printable character (GPT-2, https://github.com/openai/gpt-2, encoder.py)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
