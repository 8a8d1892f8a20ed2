"""Guesses how a text goes on by looking its last tokens up in what came before; pure, knows nothing of models.

Prompt lookup decoding (A. Saxena, 2023, https://github.com/apoorvumang/prompt-lookup-decoding), with guesses as long as they have
been right lately, since each of them costs a row of the forward pass that checks it.
"""

from __future__ import annotations

NGRAM = 3
"""Tokens that are looked up: fewer are found by chance too often."""
FIRST_GUESS = 3
LONGEST_GUESS = 15
LONGEST_PAUSE = 64


class PromptLookup:
    """What one sequence has said so far, by its n-grams."""

    def __init__(self) -> None:
        self._next: dict[tuple[int, ...], int] = {}  # n-gram -> index of the token after its latest occurrence
        self._indexed = NGRAM  # n-grams that end before it are in
        self._length = FIRST_GUESS
        self._pause = self._resume_at = 0

    def guess(self, tokens: list[int], most: int) -> list[int]:
        """The tokens that may come next, at most `most`; none where nothing is known or guesses have been wrong lately."""
        count = len(tokens)
        if count < self._resume_at or most < 1:
            return []
        for end in range(self._indexed, count):
            self._next[tuple(tokens[end - NGRAM : end])] = end
        self._indexed = max(count, NGRAM)
        found = self._next.get(tuple(tokens[-NGRAM:]))
        return [] if found is None else tokens[found : found + min(self._length, most)]

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
