"""Requests that wait for a member, and members that are ejected and tried again, to the second, on a simulated clock."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from random import Random

import pytest

from mm_gateway.backends.groups.backend import Group
from mm_gateway.configuration.group_settings import GroupMember, GroupRouting
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.core import TextDelta
from mm_gateway.errors import RateLimitError
from tests.support.simulated_clock import simulate
from tests.support.simulated_members import Phase, SimulatedMember, chat

SERVES = [Phase(0.0, "serves")]


def now() -> float:
    return asyncio.get_running_loop().time()


def group_of(*members: SimulatedMember, max_requests: int | None = None, routing: GroupRouting = GroupRouting()) -> Group:  # noqa: B008
    rules = tuple(GroupMember(name=member.name, max_requests=max_requests) for member in members)
    config = ModelConfig(model_name="all", backend="group", members=rules, strategy="fallback", routing=routing)
    clock = asyncio.get_running_loop().time
    return Group("all", config, {member.name: member for member in members}, 0, random=Random(0), clock=clock)


async def text_of(group: Group, id: str, after_s: float = 0.0) -> str:
    """Of a request that comes later: the pieces' member."""
    await asyncio.sleep(after_s)
    pieces = [event.text async for event in group.generate(chat(id)) if isinstance(event, TextDelta)]
    return pieces[0].split("/")[1]


def test_places_are_given_as_they_become_free_in_the_order_of_the_line() -> None:
    async def work() -> list[float]:
        member = SimulatedMember("a", SERVES, 0.1)
        group = group_of(member, max_requests=1)
        await asyncio.gather(*(text_of(group, f"r{number}", number / 100) for number in range(4)))
        assert group.waiting == 0
        return member.starts

    assert simulate(work()) == pytest.approx([0.0, 0.5, 1.0, 1.5])


def test_a_place_given_to_one_who_has_just_left_goes_to_the_next() -> None:
    async def work() -> float:
        member = SimulatedMember("a", SERVES, 0.1)
        group = group_of(member, max_requests=1)
        first = asyncio.create_task(text_of(group, "r0"))
        second = asyncio.create_task(text_of(group, "r1", 0.01))
        third = asyncio.create_task(text_of(group, "r2", 0.02))
        # In the turn of the event loop in which the place is given, before the second one wakes.
        first.add_done_callback(lambda _: second.cancel())
        await first
        await third
        await asyncio.wait([second])
        assert second.cancelled()
        assert group.router.members["a"].running == 0
        return now()

    assert simulate(work()) == pytest.approx(1.0)


def test_who_waits_longer_than_it_may_is_told_when_to_come_back() -> None:
    async def work() -> None:
        group = group_of(SimulatedMember("a", SERVES, 5.0), max_requests=1, routing=GroupRouting(max_wait_s=3.0))
        running = asyncio.create_task(text_of(group, "r0"))
        with pytest.raises(RateLimitError, match=r"as many requests as they take \(a: it answers 1 requests"):
            await text_of(group, "r1", 1.0)
        assert now() == 4.0
        await running

    simulate(work())


def test_one_request_tries_an_ejected_member_and_the_others_follow_at_its_first_token() -> None:
    async def work() -> list[float]:
        member = SimulatedMember("a", [Phase(0.0, "refuses"), Phase(1.0, "serves")], 0.1)
        group = group_of(member, routing=GroupRouting(eject_after=1, ejection_s=100.0, max_ejection_s=100.0, retry_delay_s=0.0))
        failed = await asyncio.gather(text_of(group, "r0"), return_exceptions=True)
        assert "Connection refused" in str(failed[0])
        await asyncio.gather(*(text_of(group, f"r{number}", 2.0) for number in range(1, 4)))
        return member.starts

    assert simulate(work()) == pytest.approx([0.0, 2.0, 2.1, 2.1])


def test_ejections_double_and_begin_anew_after_a_good_while() -> None:
    async def work() -> list[float]:
        bad = SimulatedMember("a", [Phase(0.0, "refuses"), Phase(40.0, "serves"), Phase(200.0, "refuses")], 0.01)
        group = group_of(bad, SimulatedMember("b", SERVES, 0.01), routing=GroupRouting(eject_after=1, retry_delay_s=0.0))
        while now() < 230:
            await text_of(group, "r", 0.1)
        return [start for start in bad.starts if bad.phase(start).mode == "refuses"]

    waits = [later - earlier for earlier, later in pairwise(simulate(work()))]
    for wait_s, wanted_s in zip((*waits[:3], *waits[4:6]), (5, 10, 20, 5, 10), strict=True):
        assert wanted_s <= wait_s <= wanted_s * 1.1 + 0.2, "a tenth more at most, by chance, and until the next request"
    assert waits[3] > 100, "then it serves again"


def test_a_member_that_is_much_slower_than_the_others_is_left_alone_for_a_while() -> None:
    async def work() -> tuple[int, int]:
        slow = SimulatedMember("a", SERVES, 6.0)
        rules = tuple(GroupMember(name=name) for name in "abc")
        config = ModelConfig(model_name="all", backend="group", members=rules, strategy="round-robin")
        members = {"a": slow, "b": SimulatedMember("b", SERVES, 0.1), "c": SimulatedMember("c", SERVES, 0.1)}
        group = Group("all", config, members, 0, random=Random(0), clock=asyncio.get_running_loop().time)
        for number in range(100):
            await text_of(group, f"r{number}")
        assert "much longer than the others" in group.router.members["a"].health.last_failure
        return len(slow.starts), group.router.members["b"].health.ejections

    asked, of_others = simulate(work())
    assert asked <= 12, "of 33 turns"
    assert of_others == 0
