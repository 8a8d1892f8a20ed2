"""Events: what a reply holds by the million costs Python's collector nothing."""

from __future__ import annotations

import gc

import msgspec
import pytest

from mm_gateway.core import TextDelta, TokenLogprob
from mm_gateway.protocol.replies import ChatLogprob, TopLogprob

SCORED = TokenLogprob("a", (97,), -0.5, (("a", (97,), -0.5), ("b", (98,), -1.5)))


@pytest.mark.parametrize(
    "one",
    [SCORED, TextDelta(0, "a", (1,), (SCORED,)), ChatLogprob("a", -0.5, [97], [TopLogprob("b", -1.5, [98])])],
    ids=lambda one: type(one).__name__,
)
def test_tokens_of_a_reply_are_nothing_for_the_collector_to_look_at(one: msgspec.Struct) -> None:
    # Looking at a million of them stopped every thread for seconds, time and again.
    assert not gc.is_tracked(one)
