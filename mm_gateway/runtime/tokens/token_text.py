"""Between plain text and token ids: whole texts, and the bytes that single tokens stand for."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mm_gateway.core import TruncationSide
from mm_gateway.errors import InvalidRequestError

if TYPE_CHECKING:  # seconds, which commands that only list models need not pay
    from transformers import PreTrainedTokenizerBase

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_NO_CHARACTER = re.compile("[\udc80-\udcff]")  # as `surrogateescape` marks a byte


class TokenText:
    """Encodes and decodes plain text with one tokenizer.

    Args:
        tokenizer: fast ones are called below transformers' wrapper, which costs ten times the decoding itself.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        from mm_gateway.runtime.tokens.token_ids import TokenIds

        self._tokenizer = tokenizer
        self._ids = TokenIds(tokenizer)
        self._backend = getattr(tokenizer, "backend_tokenizer", None)
        added = {index for index, token in getattr(tokenizer, "added_tokens_decoder", {}).items() if token.special}
        self._special = frozenset(tokenizer.all_special_ids) | added
        decoder = str(self._backend.decoder) if self._backend is not None else ""
        self._byte_level = "ByteLevel" in decoder
        self._byte_of: dict[int, int] = {}
        if "ByteFallback" in decoder:
            found = ((index, _BYTE_TOKEN.fullmatch(token)) for token, index in tokenizer.get_vocab().items())
            byte_of = {index: int(match[1], 16) for index, match in found if match is not None}
            if len(set(byte_of.values())) == 256:  # a few of them alone could not spell every character
                self._byte_of = byte_of
        self._id_of_byte = {byte: index for index, byte in self._byte_of.items()}

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text; names of special tokens in it stand for the tokens.

        Args:
            add_special_tokens: put in front what the tokenizer does (BOS), unless the text begins with it.
        """
        ids = self._ids(text, add_special_tokens=add_special_tokens)
        bos, name = self._tokenizer.bos_token_id, self._tokenizer.bos_token
        spelled_out = add_special_tokens and isinstance(name, str) and text.startswith(name)
        return ids[1:] if spelled_out and ids[:2] == [bos, bos] else ids

    def cut(self, text: str | None, ids: Sequence[int], count: int, side: TruncationSide | None) -> list[int]:
        """At most `count` >= 1 tokens of an input, as transformers' tokenizers truncate.

        Args:
            text, ids: a text and what `encode` made of it. What it has put around the text (BOS, EOS) stays; None: ids that somebody else
                has made, of which all are alike. side: the end that is cut off; None: the tokenizer's own.

        Raises:
            InvalidRequestError: of the text nothing would be left.
        """
        if len(ids) <= count:
            return list(ids)
        inner = ids if text is None else self.encode(text, add_special_tokens=False)
        added = len(ids) - len(inner)
        start = next((at for at in range(added + 1) if list(ids[at : at + len(inner)]) == inner), 0) if added else 0
        kept = count - added
        if kept < 1:
            found = f"truncate_prompt_tokens: {count} leaves nothing of a text beside its {added} special tokens"
            raise InvalidRequestError(found, param="truncate_prompt_tokens")
        left = (side or getattr(self._tokenizer, "truncation_side", "right")) == "left"
        middle = inner[-kept:] if left else inner[:kept]
        return [*ids[:start], *middle, *ids[start + len(inner) :]]

    def spellings(self, words: Sequence[str], param: str) -> list[list[int]]:
        """Token ids of each word, by itself and after a blank.

        Raises:
            InvalidRequestError: one of them has none; names `param`.
        """
        found: list[list[int]] = []
        for word in words:
            for text in (word, f" {word.lstrip()}"):
                found.append(self.encode(text, add_special_tokens=False))
                if not found[-1]:
                    raise InvalidRequestError(f"{param}: {text!r} is no token of this model", param=param)
        return found

    @property
    def special(self) -> frozenset[int]:
        """Ids of special tokens, which `decode` leaves out of texts unless it is told otherwise."""
        return self._special

    def special_token(self, text: str) -> int | None:
        """The id of the special token of this name."""
        return self._special_by_name.get(text)

    @functools.cached_property
    def _special_by_name(self) -> dict[str, int]:
        return {str(self._tokenizer.convert_ids_to_tokens(index)): index for index in self._special}

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Text of `ids`. Bytes that are no character each come out as U+FFFD, and cost no character beside them."""
        if self._backend is None:
            return str(self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False))
        if not self._byte_of.keys().isdisjoint(ids):
            ids = self._with_whole_characters(ids, skip_special_tokens)
        return self._backend.decode(ids, skip_special_tokens=skip_special_tokens)

    def is_silent(self, token_id: int, *, skip_special_tokens: bool = True) -> bool:
        """Whether `decode` leaves a token out: special ones, and ids beyond the tokenizer's own."""
        if skip_special_tokens and token_id in self._special:
            return True
        return self._backend is not None and self._backend.id_to_token(token_id) is None

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

    def _with_whole_characters(self, ids: Sequence[int], skip_special_tokens: bool) -> list[int]:
        """The same with U+FFFD spelled out for each byte that is no character.

        The `ByteFallback` decoder of tokenizers drops a whole run of byte tokens where one of them is no part of a character:
        every character of it, though all but the last are there. SentencePiece, whose vocabularies these are, drops that
        byte alone (`ProcessBytePieces`, https://github.com/google/sentencepiece, sentencepiece_processor.cc).
        """
        whole: list[int] = []
        run = bytearray()
        for token_id in ids:
            byte = self._byte_of.get(token_id)
            if byte is not None:
                run.append(byte)
            elif not self.is_silent(token_id, skip_special_tokens=skip_special_tokens):  # what is left out does not end a run
                whole += self._tokens_of_bytes(run)
                whole.append(token_id)
                run.clear()
        return whole + self._tokens_of_bytes(run)

    def _tokens_of_bytes(self, run: bytearray) -> list[int]:
        text = _NO_CHARACTER.sub("\ufffd", run.decode("utf-8", errors="surrogateescape"))
        return [self._id_of_byte[byte] for byte in text.encode()]


@functools.cache
def _byte_decoder() -> dict[str, int]:
    """Byte-level BPE writes every byte as a printable character (GPT-2, https://github.com/openai/gpt-2, encoder.py)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
