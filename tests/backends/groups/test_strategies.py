"""Which member a strategy chooses: shares, bounds of load, and what moves when a member comes or goes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm_gateway.backends.groups.strategies import STRATEGIES, LeastLoaded, PrefixAware, Weighted
from mm_gateway.configuration.group_settings import GroupRouting

ROUTING = GroupRouting()


class Loaded(msgspec.Struct):
    name: str
    weight: float = 1.0
    running: int = 0
    warm: bool = True
    beside: int = 0


def members(*weights: float) -> list[Loaded]:
    return [Loaded(f"m{number}", weight) for number, weight in enumerate(weights)]


def first_choices(strategy: PrefixAware, of: Sequence[Loaded], keys: range) -> dict[int, str]:
    return {key: strategy.choose(of, of, key * 0x9E3779B97F4A7C15 % 2**64).name for key in keys}


WEIGHTS = st.lists(st.sampled_from([0.1, 0.5, 1.0, 2.0, 7.0]), min_size=1, max_size=6)


@given(WEIGHTS, st.integers(0, 2**32))
def test_turns_by_weight_are_never_further_from_the_share_than_a_turn_each(weights: list[float], seed: int) -> None:
    of, chosen = members(*weights), Counter[str]()
    strategy = Weighted(ROUTING, Random(seed))
    for turn in range(1, 200):
        chosen[strategy.choose(of, of, None).name] += 1
        for member in of:
            assert abs(chosen[member.name] - turn * member.weight / sum(weights)) <= len(of)


def test_equal_turns_are_one_after_the_other() -> None:
    of = members(1.0, 5.0, 1.0)
    strategy = STRATEGIES["round-robin"](ROUTING, Random(0))
    assert [strategy.choose(of, of, None).name for _ in range(6)] == ["m0", "m1", "m2"] * 2


@given(WEIGHTS, st.integers(0, 2**32))
def test_the_least_loaded_has_the_fewest_requests_for_its_weight(weights: list[float], seed: int) -> None:
    of, random = members(*weights), Random(seed)
    strategy = LeastLoaded(ROUTING, random)
    for _ in range(100):
        chosen = strategy.choose(of, of, None)
        assert chosen.running / chosen.weight == min(member.running / member.weight for member in of)
        chosen.running += 1


@given(WEIGHTS, st.sampled_from([1.05, 1.25, 2.0]), st.integers(1, 4), st.integers(0, 2**32))
def test_no_member_has_more_than_the_factor_times_its_share(weights: list[float], factor: float, keys: int, seed: int) -> None:
    of, random = members(*weights), Random(seed)
    strategy = PrefixAware(GroupRouting(load_factor=factor), random)
    running: list[Loaded] = []
    for _ in range(200):
        if running and random.random() < 0.4:
            running.pop(random.randrange(len(running))).running -= 1
            continue
        chosen = strategy.choose(of, of, random.randrange(keys))
        chosen.running += 1
        running.append(chosen)
        assert chosen.running <= math.ceil(factor * len(running) * chosen.weight / sum(weights))


def test_a_conversation_stays_where_it_is_warm() -> None:
    strategy = PrefixAware(ROUTING, Random(0))
    of = members(1.0, 1.0, 1.0, 1.0)
    before = first_choices(strategy, of, range(4000))
    assert before == first_choices(strategy, of, range(4000))
    assert all(900 < count < 1100 for count in Counter(before.values()).values())
    without = first_choices(strategy, of[:3], range(4000))
    moved = {key for key in before if before[key] != without[key]}
    assert moved == {key for key, name in before.items() if name == "m3"}
    assert all(250 < count < 420 for count in Counter(without[key] for key in moved).values()), "they spread over all others"


def test_conversations_are_shared_by_weight() -> None:
    chosen = Counter(first_choices(PrefixAware(ROUTING, Random(0)), members(1.0, 3.0), range(4000)).values())
    assert chosen["m1"] == pytest.approx(3000, rel=0.05)
