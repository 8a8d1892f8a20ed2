"""One kind of work that takes all of its threads keeps no other kind waiting, and what nobody waits for ends."""

from __future__ import annotations

import asyncio
import threading

import pytest

from mm_gateway import work_pools
from mm_gateway.work_pools import AbandonedError, WorkPool, check_wanted

POOLS = {name: pool for name, pool in vars(work_pools).items() if isinstance(pool, WorkPool)}


@pytest.mark.parametrize("busy", POOLS)
async def test_a_kind_that_takes_all_its_threads_starves_no_other(busy: str) -> None:
    free = threading.Event()
    work = [asyncio.create_task(POOLS[busy].run(free.wait)) for _ in range(50)]
    try:
        async with asyncio.timeout(60):
            for name, pool in POOLS.items():
                if name != busy:
                    assert await pool.run(lambda: "done") == "done"
        assert not any(task.done() for task in work)
    finally:
        free.set()
        await asyncio.gather(*work)


async def test_what_is_cancelled_before_its_turn_never_begins_and_after_it_ends_where_it_asks() -> None:
    pool = WorkPool("test", 1)
    began, go_on, ended, second_began = (threading.Event() for _ in range(4))

    def long_work() -> None:
        began.set()
        go_on.wait(60)
        try:
            check_wanted()
        except AbandonedError:
            ended.set()
            raise

    first = asyncio.create_task(pool.run(long_work))
    second = asyncio.create_task(pool.run(second_began.set))
    await WorkPool("another", 1).run(began.wait)
    for task in (first, second):
        task.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    go_on.set()
    assert await pool.run(lambda: "next") == "next"
    assert ended.is_set()
    assert not second_began.is_set()


async def test_work_that_is_waited_for_is_not_abandoned() -> None:
    await WorkPool("test", 1).run(check_wanted)
    check_wanted()  # outside of a pool there is nobody who could leave
