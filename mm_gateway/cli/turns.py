"""What many clients bring at the same moment, done a little at a time: between two turns of the event loop everybody else is served."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field


class Turns:
    """Calls functions in the order in which they come, so many in one turn of the event loop.

    A thousand requests that arrive, or connections that break, at one moment are a second of work. Called as they come, all of it would
    be one turn of the loop, in which no stream goes on and nobody is answered.

    Args:
        per_turn: >= 1.
    """

    def __init__(self, per_turn: int) -> None:
        self._per_turn = per_turn
        self._waiting: deque[Callable[[], None]] = deque()
        self._scheduled = False

    def add(self, call: Callable[[], None]) -> None:
        """Call it in the next turn, or as soon as those before it were. It must not raise."""
        self._waiting.append(call)
        if not self._scheduled:
            self._schedule()

    def _schedule(self) -> None:
        self._scheduled = True
        asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        for _ in range(min(self._per_turn, len(self._waiting))):
            self._waiting.popleft()()
        self._scheduled = False
        if self._waiting:
            self._schedule()


@dataclass(frozen=True)
class ProtocolTurns:
    """The work of all connections of a server.

    Attributes:
        reads: pieces of large bodies, up to half a millisecond each. lookups: requests that only look something up, less than that each.
        requests: all others, about a millisecond each. ends: of requests whose client is gone.
    """

    reads: Turns = field(default_factory=lambda: Turns(16))
    lookups: Turns = field(default_factory=lambda: Turns(16))
    requests: Turns = field(default_factory=lambda: Turns(4))
    ends: Turns = field(default_factory=lambda: Turns(8))
