"""Reads a Backend's generator in a task of its own into a buffer: bounded where its reader may be slow, ended from either side."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from mm_gateway.api.access.admission import Ticket
from mm_gateway.api.errors import error_code
from mm_gateway.core import (
    ChoiceFields,
    GenerationEvent,
    Ignored,
    MessageFields,
    Progress,
    ReasoningDelta,
    ReplyFields,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageSoFar,
    WorkflowStep,
)
from mm_gateway.errors import GatewayError

MAX_BUFFERED_EVENTS = 64
"""Of a stream whose reader is behind."""
MAX_BUFFERED_CHARACTERS = 256 * 2**10
"""Likewise; one event more, however large it is."""

PRELIMINARY = (Progress, WorkflowStep, ReplyFields, UsageSoFar)
"""Events that are no part of the text: an error after them can still have its own status."""


class Pump:
    """Reads events as they come, until they end, fail, or are no longer wanted.

    Args:
        ticket: told of the first event and of the end. ignored: parts of the request that are left out, so far.
        bounded: do not read on while the buffer is full; `take` makes room.

    Attributes:
        record: of the request; it is told of every event, and of what failed.
        buffer: what has arrived; of progress within one stage only the newest. progress: the newest.
        ignored: parts of the request that are left out.
        begun: there is something to reply with. What only tells of work under way is none, unless `stages_begin`: an
            error that comes after it can still have its own status.
    """

    def __init__(
        self,
        events: AsyncIterator[GenerationEvent],
        ticket: Ticket,
        ignored: Sequence[str] = (),
        *,
        stages_begin: bool = False,
        bounded: bool = False,
    ) -> None:
        self._events = events
        self._ticket = ticket
        self.record = ticket.record
        self.buffer: deque[GenerationEvent] = deque()
        self.progress: Progress | None = None
        self.ignored = [*ignored]
        self.begun = False
        self._stages_begin = stages_begin
        self.error: BaseException | None = None
        self.ended = False
        self._bounded = bounded
        self._characters = 0
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        ticket.on_interrupt = self.interrupt
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        last: GenerationEvent | None = None
        count = 0
        try:
            # Closed here, in the task that iterated: its clean-up must not wait for the garbage collector.
            async with contextlib.aclosing(self._events):  # type: ignore[type-var]
                async for event in self._events:
                    if isinstance(event, Ignored):
                        self.ignored += event.fields
                        continue
                    self.record.observe(event)
                    if isinstance(event, PRELIMINARY):
                        self._add_preliminary(event)
                    else:
                        if not count:
                            self._ticket.first_event()
                        count += 1
                        last = event
                        self.begun = True
                        self._add(event)
                    while self._bounded and self._is_full():
                        self._room.clear()
                        await self._room.wait()
        except Exception as error:  # noqa: BLE001 - whatever failed, each reader is told of it
            self.error = self.error or error  # one of a clean-up after `interrupt` is no news
        finally:
            self._ticket.on_interrupt = None
            if self.error is not None:
                self.record.failed(self.error, error_code(self.error))
            self._ticket.end(last if isinstance(last, Usage) else None, count, failed=self.error is not None)
            self.ended = True
            self._changed.set()

    def _add_preliminary(self, event: GenerationEvent) -> None:
        if isinstance(event, Progress):
            same_stage = self.progress is not None and self.progress.stage == event.stage
            self.progress = event
            if same_stage and not self._stages_begin:
                return  # the next heartbeat tells
            if self.buffer and same_stage and isinstance(self.buffer[-1], Progress):
                self.buffer.pop()
        self.begun = self.begun or self._stages_begin
        self._add(event)

    def _add(self, event: GenerationEvent) -> None:
        self.buffer.append(event)
        self._characters += _size(event)
        self._changed.set()

    def _is_full(self) -> bool:
        return len(self.buffer) >= MAX_BUFFERED_EVENTS or self._characters >= MAX_BUFFERED_CHARACTERS

    def take(self) -> GenerationEvent:
        """The next event, out of the buffer."""
        event = self.buffer.popleft()
        self._characters = self._characters - _size(event) if self.buffer else 0
        self._room.set()
        return event

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Until something arrived or it ended; False after `timeout_s` seconds without."""
        return await self._wait(lambda: bool(self.buffer) or self.ended, timeout_s)

    async def wait_begun(self, timeout_s: float) -> bool:
        """Until a reply can begin or it ended; False after `timeout_s` seconds without."""
        return await self._wait(lambda: self.begun or self.ended, timeout_s)

    async def _wait(self, arrived: Callable[[], bool], timeout_s: float | None) -> bool:
        if arrived():
            return True
        try:
            async with asyncio.timeout(timeout_s):
                while not arrived():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    async def wait_end(self) -> None:
        """Until it ended; failures are in `error`."""
        await asyncio.wait([self._task])

    def interrupt(self, error: GatewayError) -> None:
        """Stop the generator; the reply ends with this error."""
        if not self._task.done():
            self.error = error
            self._task.cancel()

    async def cancel(self) -> None:
        """Stop the generator and wait for its clean-up."""
        if not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])


def _size(event: GenerationEvent) -> int:
    """Characters of an event, roughly."""
    match event:
        case TextDelta(text=text, logprobs=logprobs) | ReasoningDelta(text=text, logprobs=logprobs):
            return len(text) + (sum(50 * (1 + len(token.top)) for token in logprobs) if logprobs else 0)
        case ToolCallDelta(arguments=arguments):
            return len(arguments)
        case MessageFields(fields=fields) | ChoiceFields(fields=fields) | ReplyFields(fields=fields):
            return len(msgspec.json.encode(fields))
        case _:
            return 0
