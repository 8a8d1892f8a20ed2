"""Refuses texts that cannot fit a context, before they are tokenized whole: a long one would take a thread for minutes, and gigabytes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mm_gateway.errors import ContextLengthExceededError, InvalidRequestError
from mm_gateway.work_pools import check_wanted

PIECE_CHARACTERS = 32 << 10
"""Longer texts are counted in pieces of this size first."""
MAX_BYTES, MAX_BYTES_PER_TOKEN = 1 << 20, 16
"""Of a text that may fit: the larger of the two. Encoding cannot be stopped; it takes up to 3 µs for each token and 0.8 µs for each byte,
so with these bounds about a second for a context of 100,000 tokens. Texts of longer tokens are blanks and lines.
"""
_MARGIN_TOKENS = 16
"""By how many tokens a piece may be longer by itself than within its text: what a cut takes apart, and a BOS."""


@dataclass(frozen=True)
class TokenLimit:
    """How long one prompt may be. What is within the limit is encoded as if there were none; whoever submits it counts exactly.

    Attributes:
        tokens: of the prompt, at most. longest: bytes that one token can stand for; called for long texts alone.
        requested: tokens of output that were asked for, and param: the field of the prompt; both for the error.
    """

    tokens: int
    longest: Callable[[], int]
    requested: int | None = None
    param: str = "prompt"

    def check_bytes(self, texts: Sequence[str]) -> None:
        """Raises ContextLengthExceededError where texts would not fit even if all their tokens were of the longest."""
        characters = sum(map(len, texts))
        if characters > max(self.tokens, PIECE_CHARACTERS):  # no token is shorter than a byte
            size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
            self._check(size // self.longest())

    def encode(self, encode: Callable[[str], list[int]], text: str) -> list[int]:
        """Token ids of a text.

        Raises:
            ContextLengthExceededError: it has more than `tokens`; no more of it was encoded than shows that.
            InvalidRequestError: it may fit, and would take too long to encode. AbandonedError: as for `check_wanted`.
        """
        check_wanted()
        if len(text) > PIECE_CHARACTERS:
            self.check_bytes([text])
            counted = 0
            for piece in _pieces(text):
                counted += max(len(encode(piece)) - _MARGIN_TOKENS, 0)
                self._check(counted)
                check_wanted()
            size, bound = len(text.encode("utf-8", "surrogatepass")), max(MAX_BYTES, MAX_BYTES_PER_TOKEN * self.tokens)
            if size > bound:
                found = f"{self.param} holds a text of {size} bytes; at most {bound} are tokenized for this model"
                raise InvalidRequestError(found, param=self.param)
        return encode(text)

    def check(self, ids: Sequence[int]) -> None:
        """Raises ContextLengthExceededError where a prompt is far too long already; one that is nearly right is counted to its end."""
        if len(ids) > 2 * self.tokens:
            self._check(len(ids))

    def _check(self, at_least: int) -> None:
        if at_least > self.tokens:
            raise ContextLengthExceededError(self.tokens, at_least, self.requested, param=self.param, at_least=True)


WHOLE = TokenLimit(sys.maxsize, longest=lambda: 1)
"""For a text that is cut to its length afterwards."""


def _pieces(text: str) -> Iterator[str]:
    """Cut at white space where there is some near."""
    start = 0
    while start < len(text):
        end = start + PIECE_CHARACTERS
        if end < len(text):
            blank = text.rfind(" ", start + PIECE_CHARACTERS // 2, end)
            end = blank if blank > 0 else end
        yield text[start:end]
        start = end
