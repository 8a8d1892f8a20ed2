"""An event loop whose clock is simulated: what waits is woken in order, and no time passes between."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Clock:
    """In the place of a selector. Nothing ever comes from outside, so that each wait is over at once, and the clock is where it ends."""

    def __init__(self) -> None:
        self.now = 0.0

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("everything waits for something that will not come")
        self.now += timeout
        return []


class SimulatedLoop(asyncio.BaseEventLoop):
    """Tasks, futures and timers, without sockets."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = _Clock()

    def time(self) -> float:
        return self._selector.now

    def _process_events(self, event_list: list[Any]) -> None: ...

    def _write_to_self(self) -> None: ...


def simulate(work: Coroutine[Any, Any, T]) -> T:
    """What the work comes to, in a world of its own time that begins at 0."""
    loop = SimulatedLoop()
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(work)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        loop.close()
