"""Bursts of work, and bytes of requests, of all connections together."""

from __future__ import annotations

import asyncio

from mm_gateway.cli.held_bytes import HeldBytes
from mm_gateway.cli.turns import Turns


async def test_what_comes_at_one_moment_is_done_a_few_a_turn_and_in_order() -> None:
    turns = Turns(3)
    done: list[int] = []
    for number in range(10):
        turns.add(lambda number=number: done.append(number))
    seen = [len(done)]
    for _ in range(4):
        await asyncio.sleep(0)
        seen.append(len(done))
    assert seen == [3, 6, 9, 10, 10]
    assert done == list(range(10))


async def test_what_is_added_meanwhile_waits_behind_the_others() -> None:
    turns = Turns(2)
    done: list[str] = []
    for text in ("a", "b"):
        turns.add(lambda text=text: done.append(text))  # this turn's
    turns.add(lambda: turns.add(lambda: done.append("later")))
    turns.add(lambda: done.append("c"))
    for _ in range(3):
        await asyncio.sleep(0)
    assert done == ["a", "b", "c", "later"]


async def test_work_that_comes_back_for_more_gets_no_more_turns_than_others() -> None:
    turns = Turns(1)
    done = 0

    def again() -> None:
        nonlocal done
        done += 1
        turns.add(again)

    turns.add(again)
    for _ in range(4):
        await asyncio.sleep(0)
    assert done == 5


async def test_what_has_nothing_to_do_any_more_takes_nobodys_place() -> None:
    turns = Turns(2)
    done: list[int] = []
    for number in range(2):
        turns.add(lambda number=number: done.append(number))
    for _ in range(100):
        turns.add(lambda: False)  # its client is gone
    turns.add(lambda: done.append(2))
    await asyncio.sleep(0)
    assert done == [0, 1, 2]
    await asyncio.sleep(0)
    turns.add(lambda: done.append(3))
    assert done[-1] == 3


class Sending:
    def __init__(self) -> None:
        self.refused = False

    def refuse_for_room(self) -> None:
        self.refused = True


def test_the_largest_request_that_is_still_arriving_makes_room() -> None:
    held = HeldBytes(1000)
    complete, large, small = Sending(), Sending(), Sending()
    held.add(complete, 500)
    held.complete(complete)
    held.add(large, 300)
    held.add(small, 200)
    assert not (complete.refused or large.refused or small.refused)
    held.add(small, 1)
    assert (complete.refused, large.refused, small.refused) == (False, True, False)
    assert held.total == 701
    held.release(complete)
    held.release(small)
    held.release(large)  # it is gone, and was counted out before
    assert held.total == 0


def test_where_complete_requests_fill_the_room_the_next_one_is_refused() -> None:
    held = HeldBytes(1000)
    complete, late = Sending(), Sending()
    held.add(complete, 1000)
    held.complete(complete)
    held.add(late, 1)
    assert late.refused and not complete.refused
    assert held.total == 1000
