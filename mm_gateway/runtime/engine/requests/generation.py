"""The handle of one request in the engine: events come out of it, to a thread or to an event loop, and it can be cancelled."""

from __future__ import annotations

import asyncio
import queue
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator

from mm_gateway.core import GenerationEvent, ReasoningDelta, TextDelta, Usage
from mm_gateway.timeline import past

Item = GenerationEvent | BaseException

MAX_UNREAD_EVENTS = 16_384
"""Events of one request that wait for its reader."""
MAX_UNREAD_BYTES = 16 * 2**20
"""Memory of them, roughly. Even 128 choices with 20 log-probabilities a token may pause for 20 steps."""
_MAX_EVENT_BYTES = 64 * 2**10


class Generation:
    """Events of one request, in order, ending with Usage or with an exception.

    Iterate it with `for` where it was submitted without a loop, with `async for` where it was submitted with one.
    Leaving the iteration early does not cancel: call `cancel`. What was produced and not yet read is counted, so that
    whoever produces can end a request whose client reads too slowly (`is_read_too_slowly`).

    Args:
        loop: the event loop that iterates; None for a thread.
        on_cancel: told once when the reader is no longer interested.

    Attributes:
        submitted: when it was made. admitted: when its first sequence was first computed. first_token: when that gave a token, or a
            vector. Seconds of `time.monotonic`; the last two are the engine's thread's, and None until then.
    """

    def __init__(self, on_cancel: Callable[[Generation], None], loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.loop = loop
        self._on_cancel = on_cancel
        self._queue: queue.SimpleQueue[list[Item]] = queue.SimpleQueue()  # to a thread
        self._arrived: deque[Item] = deque()
        self._wakeup = asyncio.Event() if loop is not None else None
        self._ended = False
        self.submitted = time.monotonic()
        self.admitted: float | None = None
        self.first_token: float | None = None
        # Two counters that only grow, each with one writer, need no lock: the engine's thread counts what it hands over, the
        # reader what it takes. (events, bytes)
        self._produced = (0, 0)
        self._read = (0, 0)

    def cancel(self) -> None:
        """Stop the work; everything it holds is free within one step. Any thread; no effect once it has ended."""
        if not self._ended:
            self._on_cancel(self)

    def note_admitted(self) -> None:
        """Its turn has come; only the first call counts, as for `note_output`. The engine's thread."""
        if self.admitted is None:
            self.admitted = time.monotonic()

    def note_output(self) -> None:
        """There is a token or a vector."""
        if self.first_token is None:
            self.first_token = time.monotonic()

    def tell_times(self) -> None:
        """To the request's timeline: until its turn came, its prompt was read, and it wrote. By the reader, once, at the end."""
        ended = time.monotonic()
        past("queue", self.submitted, ended if self.admitted is None else self.admitted)
        if self.admitted is not None:
            past("prefill", self.admitted, ended if self.first_token is None else self.first_token)
        if self.first_token is not None:
            past("decode", self.first_token, ended)

    @property
    def is_read_too_slowly(self) -> bool:
        """Whether more waits for the reader than memory is kept for. Engine's thread."""
        (produced, produced_bytes), (read, read_bytes) = self._produced, self._read
        return produced - read > MAX_UNREAD_EVENTS or produced_bytes - read_bytes > MAX_UNREAD_BYTES

    def count_produced(self, items: list[Item]) -> None:
        """These are on their way to the reader. Engine's thread."""
        events, size_bytes = self._produced
        self._produced = events + len(items), size_bytes + sum(map(approximate_bytes, items))

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
        events, size_bytes = self._read
        self._read = events + 1, size_bytes + approximate_bytes(item)
        if isinstance(item, BaseException):
            self._ended = True
            raise item
        self._ended = isinstance(item, Usage)
        return item


def approximate_bytes(item: Item) -> int:
    """Memory of an event, to a factor of two: objects of a few hundred bytes, most of them entries of log-probabilities.

    The rare events above 64 KiB (an echoed prompt) count as that: the request itself bounds them, so one of them is no sign
    of a slow reader.
    """
    if not isinstance(item, TextDelta | ReasoningDelta):
        return 256
    entries = sum(1 + len(token.top) for token in item.logprobs)
    return min(256 + len(item.text) + 32 * len(item.token_ids) + 256 * entries, _MAX_EVENT_BYTES)


class Outbox:
    """Collects a step's events and hands them over with one wake-up per event loop."""

    def __init__(self) -> None:
        self._items: dict[asyncio.AbstractEventLoop | None, dict[Generation, list[Item]]] = {}  # None: readers that are threads

    def add(self, generation: Generation, items: list[Item]) -> None:
        if items:
            generation.count_produced(items)
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
