"""How long an event loop is kept from its other work."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

TICK_S = 0.005


class Stalls:
    """The longest time for which the loop did nothing else.

    Attributes:
        longest_s: by the clock, which also counts what other processes took of the machine.
        longest_cpu_s: in time that this process worked, which does not, and does not count waiting either.
    """

    def __init__(self) -> None:
        self.longest_s = 0.0
        self.longest_cpu_s = 0.0


@contextlib.asynccontextmanager
async def stalls() -> AsyncIterator[Stalls]:
    """Watch the running loop: a task that asks for a turn every few milliseconds measures how late it gets it.

    Other threads that hold the interpreter's lock count as well. A loop of another process is watched by asking it for `/health`.
    """
    seen = Stalls()
    asked = asked_cpu = 0.0

    def ask() -> None:
        nonlocal asked, asked_cpu
        asked, asked_cpu = time.perf_counter(), time.process_time()

    def got() -> None:
        seen.longest_s = max(seen.longest_s, time.perf_counter() - asked - TICK_S)
        seen.longest_cpu_s = max(seen.longest_cpu_s, time.process_time() - asked_cpu)

    async def tick() -> None:
        while True:
            ask()
            await asyncio.sleep(TICK_S)
            got()

    ticker = asyncio.create_task(tick())
    await asyncio.sleep(0)  # its first wait begins before anything can keep it from it
    try:
        yield seen
    finally:
        got()  # the last wait may not be over
        ticker.cancel()
        await asyncio.wait([ticker])
