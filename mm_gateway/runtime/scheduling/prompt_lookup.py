"""Guesses how a text goes on by looking its last tokens up in what came before; pure, knows nothing of models.

Prompt lookup decoding (A. Saxena, 2023, https://github.com/apoorvumang/prompt-lookup-decoding), with guesses as long as they have
been right lately, since each of them costs a row of the forward pass that checks it.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

NGRAM = 3
"""Tokens that are looked up: fewer are found by chance too often."""
FIRST_GUESS = 3
LONGEST_GUESS = 15
LONGEST_PAUSE = 64


_BYTES = array("i").itemsize


class PromptLookup:
    """What one sequence has said so far, as bytes: these are searched at the speed of C, and take less memory than an index would.

    Args:
        prediction: tokens that its answer is likely to be. They are looked in first, as a text that goes on from where it was right last.
    """

    def __init__(self, prediction: Sequence[int] = ()) -> None:
        self._said = bytearray()
        self._prediction = prediction
        self._predicted = array("i", prediction).tobytes()
        self._reached = 0  # in the prediction
        self._length = FIRST_GUESS
        self._pause = self._resume_at = 0

    def guess(self, tokens: list[int], most: int, answered: int = -1) -> list[int]:
        """The tokens that may come next, at most `most`; none where nothing is known or guesses have been wrong lately.

        Args:
            tokens: the sequence's. answered: how many of them are of the answer; -1: it has not begun.
        """
        count = len(tokens)
        if count < self._resume_at or most < 1:
            return []
        self._said += array("i", tokens[len(self._said) // _BYTES :]).tobytes()
        length = min(self._length, most)
        if self._predicted and (guess := self._predict(tokens, length, answered)):
            return guess
        place = self._latest(self._said[-NGRAM * _BYTES :])
        if place is None:
            return []
        start = place + NGRAM
        guess = tokens[start : start + length]
        while len(guess) < length:  # what repeats at once goes on doing so
            guess.append(guess[len(guess) - (count - start)])
        return guess

    def _predict(self, tokens: list[int], length: int, answered: int) -> list[int]:
        """What follows in the prediction, whose beginning is that of the answer, too."""
        if 0 <= answered < NGRAM:
            start = answered if tokens[len(tokens) - answered :] == list(self._prediction[:answered]) else None
        else:
            ngram = self._said[-NGRAM * _BYTES :]
            found = _find(self._predicted, ngram, max(self._reached - NGRAM, 0))
            found = _find(self._predicted, ngram, 0) if found is None else found
            start = None if found is None else found + NGRAM
        if start is None:
            return []
        self._reached = start
        return list(self._prediction[start : start + length])

    def _latest(self, ngram: bytearray) -> int | None:
        """Where it began last, but for the end of the text."""
        before = len(self._said) - _BYTES
        while (found := self._said.rfind(ngram, 0, before)) >= 0:
            if found % _BYTES == 0:
                return found // _BYTES
            before = found + len(ngram) - 1
        return None

    def learn(self, tokens: list[int], guessed: int, accepted: int) -> None:
        """What became of a guess: how many of its tokens were right. tokens: the sequence's, with what was drawn."""
        if accepted == guessed:
            self._length = min(2 * self._length, LONGEST_GUESS)
            self._pause = 0
        elif accepted:
            self._length = max(FIRST_GUESS, accepted + 1)
            self._pause = 0
        else:
            self._length = FIRST_GUESS
            self._pause = min(2 * self._pause + 1, LONGEST_PAUSE)
            self._resume_at = len(tokens) + self._pause


def _find(said: bytes, ngram: bytearray, first: int) -> int | None:
    """The token from `first` on where it begins."""
    place = first * _BYTES
    while (found := said.find(ngram, place)) >= 0:
        if found % _BYTES == 0:
            return found // _BYTES
        place = found + 1
    return None
