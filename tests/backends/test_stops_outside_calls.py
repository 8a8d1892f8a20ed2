"""Stop strings end the text around calls; what a call is written with does not matter to them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_gateway.backends.tool_calls import StopsOutsideCalls
from mm_gateway.chat_templates.tool_formats.formats import TOOL_FORMATS
from mm_gateway.stop_strings import StopStrings

CALL = '<tool_call>\n{"name": "f", "arguments": {"a": "x\\"\\n"}}\n</tool_call>'


def stopped(name: str, text: str, stops: list[str], size: int = 3) -> tuple[str, bool]:
    """What goes out of a text that comes in pieces, and whether a stop string ended it."""
    checker, out = StopsOutsideCalls(TOOL_FORMATS[name].calls, StopStrings(stops)), ""
    for start in range(0, len(text), size):
        free, ended = checker.add(text[start : start + size])
        out += free
        if ended:
            return out, True
    more, ended = checker.end("")
    return out + more, ended


@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [
        (CALL, ["\n", '"', "<", "tool", "}"], (CALL, False)),
        ("One.\n\n" + CALL, ["\n", "tool"], ("One.\n\n" + CALL, False)),
        ("One.\nTwo.\n" + CALL, ["\n"], ("One.", True)),
        (CALL + "\nOne, two", ["two", "f"], (CALL + "\nOne, ", True)),
        (CALL + CALL, ["call><"], (CALL + CALL, False)),
        ("One <tool two", ["tool"], ("One <", True)),
        ("One.\n\n", ["\n\n"], ("One.", True)),
        ("One. T", ["Two"], ("One. T", False)),
        ("<tool_call>" + "x" * 300 + "y", ["y"], ("<tool_call>" + "x" * 300, True)),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_only_text_outside_calls_is_looked_at(text: str, stops: list[str], expected: tuple[str, bool], size: int) -> None:
    assert stopped("hermes", text, stops, size) == expected


@settings(max_examples=200, deadline=None)
@given(
    text=st.text("ab<\n ", max_size=30),
    stops=st.lists(st.text("ab<\n", min_size=1, max_size=3), max_size=3),
    size=st.integers(1, 5),
    name=st.sampled_from(sorted(TOOL_FORMATS)),
)
def test_a_text_without_calls_ends_as_any_other(text: str, stops: list[str], size: int, name: str) -> None:
    assert stopped(name, text, stops, size) == StopStrings(stops).end(text)


@settings(max_examples=100, deadline=None)
@given(
    before=st.text("ab", max_size=6),
    after=st.text("ab", max_size=6),
    stops=st.lists(st.sampled_from(["ab", "b", "\n", "{"])),
    size=st.integers(1, 9),
)
def test_a_call_comes_whole_unless_the_text_before_it_has_ended(before: str, after: str, stops: list[str], size: int) -> None:
    out, ended = stopped("hermes", before + CALL + after, stops, size)
    first, over = StopStrings(stops).end(before)
    if over:
        assert (out, ended) == (first, True)
    else:
        second, over = StopStrings(stops).end(after)
        assert (out, ended) == (before + CALL + second, over)
