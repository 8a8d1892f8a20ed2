"""A replica ends what it does for an API that is gone."""

from __future__ import annotations

import asyncio
import sys

from mm_gateway.ray_serve.lifelines import Caller, Callers

CALLER = """
import asyncio
from mm_gateway.ray_serve.lifelines import Caller
async def main():
    print(*await Caller().address("127.0.0.1"), flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


async def _work(callers: Callers, caller: tuple[str, int]) -> None:
    with callers.working_for(caller):
        await asyncio.sleep(60)


async def test_work_for_a_process_that_was_killed_ends_and_that_for_others_goes_on() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", CALLER, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    host, port = (await process.stdout.readline()).decode().split()
    callers, other = Callers(), Caller()
    dead = [asyncio.create_task(_work(callers, (host, int(port)))) for _ in range(3)]
    alive = asyncio.create_task(_work(callers, await other.address("127.0.0.1")))
    await asyncio.sleep(0.1)
    process.kill()
    await process.communicate()
    done, _ = await asyncio.wait(dead, timeout=5)
    assert len(done) == 3 and all(task.cancelled() for task in dead)
    assert not alive.done()
    other.close()
    await asyncio.wait([alive], timeout=5)
    assert alive.cancelled()


async def test_a_caller_that_cannot_be_reached_does_not_hold_up_its_work() -> None:
    caller = Caller()
    address = await caller.address("127.0.0.1")
    caller.close()
    callers = Callers()
    for _ in range(2):  # and is tried again with its next request
        task = asyncio.create_task(_work(callers, address))
        await asyncio.sleep(0.05)
        assert not task.done()
        task.cancel()
