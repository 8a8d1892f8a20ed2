"""Stop strings end a text where they are complete, whatever the pieces; the work does not grow with their number and length."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm_gateway import stop_strings
from mm_gateway.stop_strings import StopStrings


@pytest.mark.parametrize(
    ("pieces", "stops", "expected", "stopped"),
    [
        (["ab", "cd", "ef"], ["de"], "abc", True),
        (["a", "b", "a", "b", "c"], ["abc"], "ab", True),
        (["hello", "\n", "User", " said"], ["\nUser:"], "hello\nUser said", False),
        (["x\nUs", "er:", "y"], ["\nUser:"], "x", True),
        (["one two"], ["two", "one"], "", True),
        (["abc"], [], "abc", False),
    ],
)
def test_stop_strings(pieces: list[str], stops: list[str], expected: str, stopped: bool) -> None:
    checker, out, ended = StopStrings(stops), "", False
    for piece in pieces:
        free, ended = checker.add(piece)
        out += free
        if ended:
            break
    assert (out + ("" if ended else checker.flush()), ended) == (expected, stopped)
    assert (checker.found in stops) == ended and (checker.found is not None) == ended


@given(st.text("ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3), st.integers(1, 4))
def test_streaming_finds_the_same_stop_as_the_whole_text(text: str, stops: list[str], size: int) -> None:
    checker, out = StopStrings(stops), ""
    for start in range(0, len(text), size):
        free, ended = checker.add(text[start : start + size])
        out += free
        if ended:
            break
    else:
        out += checker.flush()
    # The first to be complete ends the text; of those complete in the same piece, the one that begins first.
    assert text.startswith(out)
    assert not any(stop in out for stop in stops)
    if not any(stop in text for stop in stops):
        assert out == text


@given(st.text("ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3))
def test_the_string_that_is_complete_first_ends_the_text_however_it_is_cut(text: str, stops: list[str]) -> None:
    ends = sorted((at + len(stop), -len(stop)) for stop in stops for at in range(len(text)) if text.startswith(stop, at))
    expected = (text[: ends[0][0] + ends[0][1]], True) if ends else (text, False)
    for size in (1, 2, len(text) or 1):
        checker, out, ended = StopStrings(stops), "", False
        for start in range(0, len(text), size):
            free, ended = checker.add(text[start : start + size])
            out += free
            if ended:
                break
        assert (out if ended else out + checker.flush(), ended) == expected


@given(st.text("ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=6), min_size=1, max_size=3))
def test_only_what_may_become_a_stop_string_is_held_back(text: str, stops: list[str]) -> None:
    checker = StopStrings(stops)
    free, ended = checker.add(text)
    if not ended:
        held = text[len(free) :]
        assert not held or any(stop.startswith(held) for stop in stops)
        assert not any(stop.startswith(text[begin:]) for stop in stops for begin in range(len(free)))


def test_the_work_is_linear_in_the_text_for_many_long_strings() -> None:
    steps = 0

    class Counted(dict[str, int]):
        def get(self, *arguments: Any) -> Any:
            nonlocal steps
            steps += 1
            return super().get(*arguments)

    stops = ["a" * 1000 + chr(0x4E00 + number) for number in range(64)]
    checker = StopStrings(stops)
    automaton = stop_strings._Automaton(stops)
    automaton._next = [Counted(following) for following in automaton._next]
    checker._automaton = automaton
    text = ("a" * 999 + "b") * 20
    for char in text:
        checker.add(char)
    assert steps <= 3 * len(text)
