"""Tokens that must not come next in one output: those that would end it too early, and those that would complete a bad word."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class BarredTokens:
    """What `min_tokens` and `bad_words` forbid; the choices of a request share it, since it depends on their tokens alone.

    Args:
        min_tokens: tokens of the answer before which none of `ends` may come. ends: tokens that end the text.
        answers: none of them may come within a thought either, since there has to be an answer.
        words: token ids of each bad word, at least one. As in vLLM, the last of them is barred where the others have just come.
    """

    def __init__(self, *, min_tokens: int, ends: frozenset[int], words: Iterable[Sequence[int]], answers: bool = False) -> None:
        self._min_tokens = min_tokens
        self._answers = answers
        self._ends = ends
        self._always: set[int] = set()
        self._after: dict[int, list[tuple[list[int], int]]] = {}  # last token before the barred one -> (all of them, barred one)
        for *before, last in words:
            if before:
                self._after.setdefault(before[-1], []).append((before, last))
            else:
                self._always.add(last)

    def __bool__(self) -> bool:
        """Whether anything is barred, be it later."""
        return bool(((self._min_tokens or self._answers) and self._ends) or self._always or self._after)

    def next(self, tokens: Sequence[int], prompt_len: int, *, thought_len: int = 0, in_thought: bool = False) -> set[int]:
        """Tokens that must not come now.

        Args:
            tokens: prompt and output; bad words are looked for in the output alone. thought_len: tokens of the output that are no answer.
            in_thought: whether the next one is of a thought.
        """
        output_len = len(tokens) - prompt_len
        early = output_len - thought_len < self._min_tokens or (self._answers and in_thought)
        barred = self._always | self._ends if early else set(self._always)
        for before, last in self._after.get(tokens[-1], ()) if output_len else ():
            if len(before) <= output_len and list(tokens[-len(before) :]) == before:
                barred.add(last)
        return barred
