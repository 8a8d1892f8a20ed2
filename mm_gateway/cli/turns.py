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
        self._waiting: deque[Callable[[], object]] = deque()
        self._done = 0
        """In this turn; while it is not 0, the next one is scheduled."""

    def add(self, call: Callable[[], object]) -> None:
        """Call it at once, or where this turn has had its share, as soon as those before it were.

        It must not raise. False is its word that there was nothing to do any more, which costs nobody a place.
        """
        if self._waiting or self._done >= self._per_turn:
            self._waiting.append(call)
            return
        if not self._done:
            asyncio.get_running_loop().call_soon(self._next_turn)
        self._done += 1
        call()

    def _next_turn(self) -> None:
        self._done = self._per_turn  # what they add waits its turn
        done = 0
        while self._waiting and done < self._per_turn:
            done += self._waiting.popleft()() is not False
        self._done = done
        if done:
            asyncio.get_running_loop().call_soon(self._next_turn)


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
