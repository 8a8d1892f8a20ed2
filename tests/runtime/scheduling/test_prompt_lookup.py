"""Guesses are what came after the last tokens the last time, as long as guesses have been right lately."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mm_gateway.runtime.scheduling.prompt_lookup import FIRST_GUESS, LONGEST_GUESS, NGRAM, PromptLookup


def latest(tokens: list[int]) -> int | None:
    """Where the last n-gram began before, by trying all places."""
    ends = [start for start in range(len(tokens) - NGRAM) if tokens[start : start + NGRAM] == tokens[-NGRAM:]]
    return ends[-1] if ends else None


# Few tokens, so that they repeat; bytes that look like parts of others, so that places between tokens match, too.
@given(st.lists(st.sampled_from([0, 1, 256, 257, 65536, 0x01010101]), min_size=NGRAM, max_size=60), st.integers(1, 20))
def test_a_guess_is_what_followed_the_latest_occurrence(tokens: list[int], most: int) -> None:
    place = latest(tokens)
    guess = PromptLookup().guess(tokens, most)
    assert len(guess) == (0 if place is None else min(FIRST_GUESS, most))
    for index, token in enumerate(guess):
        assert token == [*tokens, *guess][(place or 0) + NGRAM + index]


@given(st.lists(st.integers(0, 2), min_size=NGRAM, max_size=60), st.integers(1, 30))
def test_what_was_said_since_counts_too(tokens: list[int], more: int) -> None:
    lookup = PromptLookup()
    lookup.guess(tokens[:-more] if len(tokens) - more >= NGRAM else tokens[:NGRAM], 5)
    assert lookup.guess(tokens, 5) == PromptLookup().guess(tokens, 5)


def test_guesses_grow_while_they_are_right_and_pause_while_they_are_not() -> None:
    tokens = [1, 2, 3, 4] * 20
    lookup = PromptLookup()
    lengths: list[int] = []
    for _ in range(4):
        lengths.append(len(lookup.guess(tokens, 99)))
        lookup.learn(tokens, lengths[-1], lengths[-1])
    assert lengths == [FIRST_GUESS, 2 * FIRST_GUESS, 4 * FIRST_GUESS, LONGEST_GUESS]
    assert lookup.guess(tokens, 6) == [1, 2, 3, 4, 1, 2]
    lookup.learn(tokens, 6, 0)
    assert lookup.guess(tokens, 99) == []
    tokens += [1, 2]
    assert lookup.guess(tokens, 99) == [3, 4, 1]


TOKENS = st.lists(st.sampled_from([0, 1, 256, 257, 65536, 0x01010101]), min_size=NGRAM, max_size=60)


@given(TOKENS, TOKENS, st.integers(1, 20))
def test_a_prediction_is_looked_in_first(predicted: list[int], tokens: list[int], most: int) -> None:
    starts = [start + NGRAM for start in range(len(predicted) - NGRAM) if predicted[start : start + NGRAM] == tokens[-NGRAM:]]
    guess = PromptLookup(predicted).guess(tokens, most, answered=NGRAM)
    if starts:
        assert guess == predicted[starts[0] :][: min(FIRST_GUESS, most)]
    else:
        assert guess == PromptLookup().guess(tokens, most)


def test_a_prediction_is_followed_from_its_beginning_and_from_where_it_was_right_last() -> None:
    predicted = [5, 6, 7, 8, 1, 2, 3, 40, 1, 2, 3, 50]
    lookup = PromptLookup(predicted)
    assert lookup.guess([9, 9], 99, answered=-1) == []
    assert lookup.guess([9, 9], 99, answered=0) == [5, 6, 7]
    assert lookup.guess([9, 9, 5, 6], 99, answered=2) == [7, 8, 1]
    assert lookup.guess([9, 9, 5, 6, 1], 99, answered=3) == []
    assert lookup.guess([9, 9, 5, 6, 1, 2, 3], 1, answered=5) == [40]
    lookup.guess([9, 9, 5, 6, 1, 2, 3, 40, 1, 2], 99, answered=8)
    assert lookup.guess([9, 9, 5, 6, 1, 2, 3, 40, 1, 2, 3], 1, answered=9) == [50]


def test_what_begins_as_a_prediction_does_not_is_not_guessed_from_it() -> None:
    assert PromptLookup([5, 6, 7, 8]).guess([9, 9, 6], 99, answered=1) == []
