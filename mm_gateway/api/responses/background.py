"""Responses of `background: true`: they run apart from the connection that asked for them, and are kept as they go.

One is `queued` until its first event, then `in_progress`, and ends like any other, or is `cancelled`. While it runs, its record in the
store says every few seconds that it does: a record that stopped saying so is of a process that has ended, and is told as `failed`. Of
streams the events are kept in memory for those who come back; nothing of that outlives the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Protocol

import msgspec
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from mm_gateway.api.access.admission import Ticket
from mm_gateway.api.connection import Disconnect
from mm_gateway.api.pump import PRELIMINARY, Pump
from mm_gateway.api.responses.reply import ResponseReply
from mm_gateway.api.serve_events import without_line_separators
from mm_gateway.core import GenerationEvent, Progress
from mm_gateway.errors import GatewayError, InvalidRequestError, NotStoredError, RateLimitError, ShuttingDownError, StorageError
from mm_gateway.protocol.responses import Item, ResponseFailure, ResponseObject, StoredResponse

MAX_KEPT_BYTES = 64 * 2**20
"""Of events of streams, of all that have ended; beyond it the oldest go."""
ALIVE_S = 20.0
"""Seconds after which the record of one that runs is written again."""
LOST_S = 3 * ALIVE_S
"""Seconds without that after which it runs no more."""


class Store(Protocol):
    """As `ResponseStore.put`, of one owner."""

    def __call__(self, stored: StoredResponse, /, *, again: bool = False) -> Awaitable[bool]: ...


class BackgroundResponse:
    """One response that runs, or has ended.

    Args:
        response: as it is before the first event. items: of its conversation. reply: makes the events, and keeps the response at its end.
        streamed: its events are kept. store: writes its record. over: called at its end.

    Attributes:
        response: as it is now. ended: nothing more comes.
    """

    def __init__(
        self, response: ResponseObject, items: list[Item], reply: ResponseReply, store: Store, *, streamed: bool, over: Callable[[], None]
    ) -> None:
        self.response = response
        self.streamed = streamed
        self.ended = False
        self.kept_bytes = 0
        self._items, self._reply, self._store = items, reply, store
        self._over = over
        self._events: list[bytes] = []
        self._pump: Pump | None = None
        self._cancelled = False
        self._changed = asyncio.Condition()
        self.task: asyncio.Task[None] | None = None

    async def begin(self, events: AsyncIterator[GenerationEvent], ticket: Ticket) -> None:
        """Write its record, and run. The ticket is closed at the end.

        Raises:
            StorageError: it cannot be kept, so that nobody could ask for it.
        """
        if not await self._put(self.response):
            ticket.close()
            raise StorageError("The response could not be stored, which one of background: true has to be. Please try again")
        self._pump = Pump(events, ticket)
        self.task = asyncio.create_task(self._run(self._pump, ticket))

    async def cancel(self) -> None:
        """End it as `cancelled`, whatever it had come to; returns once that is kept. One that has ended stays as it is."""
        self._cancelled = not self.ended
        if self._pump is not None:
            await self._pump.cancel()
        if self.task is not None:
            await asyncio.wait([self.task])

    def interrupt(self, error: GatewayError) -> None:
        """End it as `failed`."""
        if self._pump is not None:
            self._pump.interrupt(error)

    async def events(self, after: int, heartbeat_s: float) -> AsyncIterator[bytes]:
        """Its server-sent events behind the one of that number, while they come; empty after so many seconds without one."""
        at = after + 1
        while True:
            await self._wait_beyond(at, heartbeat_s)
            ended, news = self.ended, self._events[at:]
            at += len(news)
            yield b"".join(news)
            if ended:
                return

    async def _wait_beyond(self, number: int, timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with self._changed, asyncio.timeout(timeout_s):
                await self._changed.wait_for(lambda: self.ended or len(self._events) > number)

    async def _run(self, pump: Pump, ticket: Ticket) -> None:
        over = asyncio.Event()
        alive = asyncio.create_task(self._say_alive(over))
        error: BaseException | None = None
        try:
            await self._tell(self._reply.queued())
            await self._follow(pump)
            error = pump.error
        except Exception as failure:  # noqa: BLE001 - whatever failed, the record has to say that it ended
            await pump.cancel()
            error = failure
        try:
            over.set()
            await alive  # what it may be writing must not come after the last word
            await self._tell(await self._reply.cancelled() if self._cancelled else await self._reply.end(error))
        finally:
            ticket.close()
            self._over()
            self.response = self._reply.response
            self._items = []
            async with self._changed:
                self.ended = True
                self._changed.notify_all()

    async def _follow(self, pump: Pump) -> None:
        while not pump.ended or pump.buffer:
            await pump.wait()
            pieces: list[bytes] = []
            while pump.buffer:
                event = pump.take()
                if isinstance(event, Progress):
                    continue
                if self.response.status == "queued" and not isinstance(event, PRELIMINARY):
                    pieces.append(self._reply.in_progress())
                    self.response = self._reply.response
                pieces.append(self._reply.chunk(event))
            await self._tell(b"".join(pieces))

    async def _tell(self, events: bytes) -> None:
        if not self.streamed or not events:
            return
        for event in without_line_separators(events).split(b"\n\n")[:-1]:
            self._events.append(event + b"\n\n")
            self.kept_bytes += len(event)
        async with self._changed:
            self._changed.notify_all()

    async def _say_alive(self, over: asyncio.Event) -> None:
        while not over.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ALIVE_S):
                    await over.wait()
                    return
            try:
                await self._put(self.response, again=True)
            except NotStoredError:  # deleted, by a process that does not run it
                self._cancelled = True
                assert self._pump is not None
                await self._pump.cancel()
                return

    async def _put(self, response: ResponseObject, *, again: bool = False) -> bool:
        return await self._store(StoredResponse(response, self._items, alive_at=time.time()), again=again)


class BackgroundResponses:
    """Those of this process, by owner and id. most: that run at once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: dict[tuple[str, str], BackgroundResponse] = {}

    def check_room(self) -> None:
        """Raises:
        RateLimitError: as many run as may.
        """
        running = len(self._running())
        if running >= self._most:
            raise RateLimitError(f"{running} responses of background: true are running. Please try again later", retry_after_s=5.0)

    def add(self, owner: str, response: BackgroundResponse) -> None:
        self._forget()
        self._known[owner, response.response.id] = response

    def get(self, owner: str, id: str) -> BackgroundResponse | None:
        return self._known.get((owner, id))

    async def remove(self, owner: str, id: str) -> None:
        """End it, where it runs, and forget it."""
        found = self._known.pop((owner, id), None)
        if found is not None:
            await found.cancel()

    async def close(self, grace_s: float) -> None:
        """Wait for those that run; those that take longer end as `failed`."""
        running = self._running()
        tasks = [found.task for found in running if found.task is not None]
        if not tasks:
            return
        await asyncio.wait(tasks, timeout=grace_s)
        for found in running:
            if not found.ended:
                found.interrupt(ShuttingDownError("The server shut down before the response was complete"))
        await asyncio.wait(tasks)

    def _running(self) -> list[BackgroundResponse]:
        return [found for found in self._known.values() if not found.ended]

    def _forget(self) -> None:
        """Those that have ended and have no events; of the others the oldest, where they take too much."""
        ended = [(key, found) for key, found in self._known.items() if found.ended]
        size = sum(found.kept_bytes for _, found in ended)
        for key, found in ended:
            if not found.streamed or size > MAX_KEPT_BYTES:
                del self._known[key]
                size -= found.kept_bytes


def as_known(stored: StoredResponse) -> ResponseObject:
    """A stored response, as it can be told by a process that does not run it."""
    response = stored.response
    if stored.alive_at is None or time.time() - stored.alive_at < LOST_S:
        return response
    failure = ResponseFailure("server_error", "The server ended while it ran this response")
    return msgspec.structs.replace(response, status="failed", error=failure)


def not_streamable() -> InvalidRequestError:
    return InvalidRequestError(
        "stream: only responses of background: true and stream: true can be streamed again, while the process that ran them keeps their "
        "events. Retrieve it without",
        param="stream",
    )


class BackgroundStream(ASGIResponse):
    """Its events as a stream that a client may leave and come back to.

    Args:
        after: the number of the last event that the client has; -1: none. heartbeat_s: interval of comments while nothing comes.
    """

    _should_set_content_length = False

    def __init__(
        self, job: BackgroundResponse, receive: Receive, *, after: int = -1, heartbeat_s: float, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(
            media_type="text/event-stream", headers={"cache-control": "no-cache", "x-accel-buffering": "no", **(headers or {})}
        )
        self._job, self._receive, self._after, self._heartbeat_s = job, receive, after, heartbeat_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = Disconnect(self._receive)
        try:
            await self.start_response(send)
            await client.race(asyncio.create_task(self._send(send)))
        finally:
            client.stop()

    async def _send(self, send: Send) -> None:
        async for events in self._job.events(self._after, self._heartbeat_s):
            await send({"type": "http.response.body", "body": events or b": waiting\n\n", "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
