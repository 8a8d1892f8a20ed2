"""Guesses how a text goes on by looking its last tokens up in what came before; pure, knows nothing of models.

Prompt lookup decoding (A. Saxena, 2023, https://github.com/apoorvumang/prompt-lookup-decoding), with guesses as long as they have
been right lately, since each of them costs a row of the forward pass that checks it.
"""

from __future__ import annotations

from array import array

NGRAM = 3
"""Tokens that are looked up: fewer are found by chance too often."""
FIRST_GUESS = 3
LONGEST_GUESS = 15
LONGEST_PAUSE = 64


_BYTES = array("i").itemsize


class PromptLookup:
    """What one sequence has said so far, as bytes: these are searched at the speed of C, and take less memory than an index would."""

    def __init__(self) -> None:
        self._said = bytearray()
        self._length = FIRST_GUESS
        self._pause = self._resume_at = 0

    def guess(self, tokens: list[int], most: int) -> list[int]:
        """The tokens that may come next, at most `most`; none where nothing is known or guesses have been wrong lately."""
        count = len(tokens)
        if count < self._resume_at or most < 1:
            return []
        self._said += array("i", tokens[len(self._said) // _BYTES :]).tobytes()
        place = self._latest(self._said[-NGRAM * _BYTES :])
        if place is None:
            return []
        start, length = place + NGRAM, min(self._length, most)
        guess = tokens[start : start + length]
        while len(guess) < length:  # what repeats at once goes on doing so
            guess.append(guess[len(guess) - (count - start)])
        return guess

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
