"""Turns a growing list of token ids into text as it becomes certain: never half a character."""

from __future__ import annotations

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"
_MAX_OPEN_TOKENS = 8


class Detokenizer:
    """Incremental decoding by prefix offsets, the method of text-generation-inference and vLLM: each step decodes a few
    tokens twice, with and without the new one, whatever the length so far.

    Args:
        decode: text of a list of ids; more of them behind it take back no character that is whole.
        prompt_tail: last ids of the prompt, for tokens whose text depends on what is before.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], prompt_tail: Sequence[int] = ()) -> None:
        self._decode = decode
        self._window = list(prompt_tail)
        self._emitted = len(_certain(decode(self._window))) if self._window else 0
        self._read = len(self._window)

    def add(self, token_id: int) -> str:
        """The text that this token makes certain; may be empty."""
        self._window.append(token_id)
        whole = self._decode(self._window)
        certain = _certain(whole)
        new = certain[self._emitted :]
        self._emitted = max(self._emitted, len(certain))
        if len(certain) == len(whole) and new:
            # Everything is out: the tokens of this step become the context of the next.
            self._window = self._window[self._read :]
            self._read = len(self._window)
            self._emitted = len(self._decode(self._window))
        elif len(self._window) - self._read > _MAX_OPEN_TOKENS:
            # Bytes that never become a character: drop what cannot matter any more, to keep the cost constant. The text before them
            # stays: where a text begins, some decoders leave out a space.
            self._window = self._window[: self._read] + self._window[-_MAX_OPEN_TOKENS // 2 :]
            self._emitted = len(_certain(self._decode(self._window)))
        return new

    def flush(self) -> str:
        """What is left at the end: bytes of an unfinished character come out as U+FFFD."""
        whole = self._decode(self._window)
        rest, self._emitted = whole[self._emitted :], len(whole)
        return rest


def _certain(text: str) -> str:
    """Without an unfinished character at the end: up to three of its bytes, each shown as U+FFFD by some decoders."""
    for _ in range(3):
        text = text.removesuffix(REPLACEMENT)
    return text
