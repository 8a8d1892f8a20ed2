"""One after the other, by key: who asks first goes first, from whatever thread or event loop."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Hashable
from concurrent.futures import Future


class Turns:
    """A lock per key; keys cost nothing while nobody holds them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[Hashable, deque[Future[None]]] = {}
        """Held keys, with those that wait for them."""

    async def acquire(self, key: Hashable) -> None:
        """Wait for the key; `release` it."""
        with self._lock:
            if key not in self._waiting:
                self._waiting[key] = deque()
                return
            turn: Future[None] = Future()
            self._waiting[key].append(turn)
        try:
            await asyncio.wrap_future(turn)
        except BaseException:
            if not turn.cancel() and not turn.cancelled():  # it came just now
                self.release(key)
            raise

    def release(self, key: Hashable) -> None:
        """Let the next one have it."""
        with self._lock:
            waiting = self._waiting[key]
            while waiting:
                turn = waiting.popleft()
                if turn.set_running_or_notify_cancel():
                    break
            else:
                del self._waiting[key]
                return
        turn.set_result(None)
