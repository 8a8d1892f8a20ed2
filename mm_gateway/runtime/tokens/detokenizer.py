"""Turns a growing list of token ids into text as it becomes certain: never half a character, never part of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mm_gateway.text import held_back

REPLACEMENT = "\ufffd"
_MAX_OPEN_TOKENS = 8


class Detokenizer:
    """Incremental decoding by prefix offsets, the method of text-generation-inference and vLLM: each step decodes a few
    tokens twice, with and without the new one, whatever the length so far.

    Args:
        decode: text of a list of ids. prompt_tail: last ids of the prompt, for tokens whose text depends on what is before.
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
            # Bytes that never become a character: drop what cannot matter any more, to keep the cost constant.
            self._window = self._window[-_MAX_OPEN_TOKENS // 2 :]
            self._read = 0
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


class StopStrings:
    """Finds stop strings in streamed text and holds back what may become one.

    Args:
        stops: none of them empty.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""

    def add(self, text: str) -> tuple[str, bool]:
        """Returns the text that is free to go, and whether a stop string ended it."""
        if not self._stops:
            return text, False
        text = self._held + text
        found = min((at for stop in self._stops if (at := text.find(stop)) >= 0), default=-1)
        if found >= 0:
            self._held = ""
            return text[:found], True
        held = held_back(text, self._stops)
        self._held = text[len(text) - held :]
        return text[: len(text) - held], False

    def flush(self) -> str:
        """What was held back, once no more text can come."""
        held, self._held = self._held, ""
        return held
