"""The handle of one request in the engine: events come out of it, to a thread or to an event loop, and it can be cancelled."""

from __future__ import annotations

import asyncio
import queue
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator

from mm_gateway.core import GenerationEvent, Usage

Item = GenerationEvent | BaseException


class Generation:
    """Events of one request, in order, ending with Usage or with an exception.

    Iterate it with `for` where it was submitted without a loop, with `async for` where it was submitted with one.
    Leaving the iteration early does not cancel: call `cancel`.

    Args:
        loop: the event loop that iterates; None for a thread.
        on_cancel: told once when the reader is no longer interested.
    """

    def __init__(self, on_cancel: Callable[[Generation], None], loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.loop = loop
        self._on_cancel = on_cancel
        self._queue: queue.SimpleQueue[list[Item]] = queue.SimpleQueue()  # to a thread
        self._arrived: deque[Item] = deque()
        self._wakeup = asyncio.Event() if loop is not None else None
        self._ended = False

    def cancel(self) -> None:
        """Stop the work; everything it holds is free within one step. Any thread; no effect once it has ended."""
        if not self._ended:
            self._on_cancel(self)

    def deliver(self, items: list[Item]) -> None:
        """Hand events over. Called in `loop` where there is one, else in the engine's thread."""
        if self._wakeup is None:
            self._queue.put(items)
        else:
            self._arrived.extend(items)
            self._wakeup.set()

    def __iter__(self) -> Iterator[GenerationEvent]:
        while not self._ended:
            for item in self._queue.get():
                yield self._open(item)

    async def __aiter__(self) -> AsyncIterator[GenerationEvent]:
        assert self._wakeup is not None, "submitted without an event loop"
        while not self._ended:
            await self._wakeup.wait()
            self._wakeup.clear()
            while self._arrived:
                yield self._open(self._arrived.popleft())

    def _open(self, item: Item) -> GenerationEvent:
        if isinstance(item, BaseException):
            self._ended = True
            raise item
        self._ended = isinstance(item, Usage)
        return item


class Outbox:
    """Collects a step's events and hands them over with one wake-up per event loop."""

    def __init__(self) -> None:
        self._items: dict[asyncio.AbstractEventLoop | None, dict[Generation, list[Item]]] = {}  # None: readers that are threads

    def add(self, generation: Generation, items: list[Item]) -> None:
        if items:
            self._items.setdefault(generation.loop, {}).setdefault(generation, []).extend(items)

    def flush(self) -> None:
        while self._items:
            loop, deliveries = self._items.popitem()  # first of all: whatever one loop raises, the next flush goes on with the others
            if loop is None:
                _deliver_all(deliveries)
                continue
            try:
                loop.call_soon_threadsafe(_deliver_all, deliveries)
            except RuntimeError:  # the loop is closed: nobody is left to read
                continue


def _deliver_all(deliveries: dict[Generation, list[Item]]) -> None:
    for generation, items in deliveries.items():
        generation.deliver(items)
