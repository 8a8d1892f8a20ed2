"""A store for coroutines: opened at its first use, its blocking calls in the storage threads, no wait without a bound."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from mm_gateway.errors import StorageError
from mm_gateway.storage.database import WAIT_S
from mm_gateway.work_pools import STORAGE

T = TypeVar("T")


class Store(Protocol):
    """What is kept in a database; its calls block."""

    def close(self) -> None: ...


S = TypeVar("S", bound=Store)


class SharedStore(Generic[S]):
    """Of any thread and event loop.

    Args:
        open_store: called at the first use, and again where it failed.
    """

    def __init__(self, open_store: Callable[[], S]) -> None:
        self._open_store = open_store
        self._store: S | None = None
        self._opening = threading.Lock()  # two threads may be the first at once

    async def run(self, work: Callable[[S], T]) -> T:
        """What `work` returns, done in a thread. Once it has begun it is finished, whatever becomes of the request.

        Raises:
            StorageError: the threads or the store were not free in time. ConfigurationError: the store cannot be opened.
        """
        return await STORAGE.run(self._run, work, time.monotonic() + WAIT_S)

    def close(self) -> None:
        """Blocks; idempotent."""
        if self._store is not None:
            self._store.close()

    def _run(self, work: Callable[[S], T], begin_by: float) -> T:
        # Where a lock holds up those before, whoever stands behind them would wait for it as long again.
        if time.monotonic() > begin_by:
            raise StorageError("Storage is busy: other requests wait for it. Please try again")
        return work(self._opened())

    def _opened(self) -> S:
        with self._opening:
            if self._store is None:
                self._store = self._open_store()
            return self._store
