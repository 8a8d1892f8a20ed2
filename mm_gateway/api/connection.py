"""Litestar's connections with their type parameters, what a guard is, and the client at the other end, who may leave."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeAlias, TypeVar

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.handlers import BaseRouteHandler
from litestar.types import Receive

HTTPConnection: TypeAlias = ASGIConnection[Any, Any, Any, State]
HTTPRequest: TypeAlias = Request[Any, Any, State]
AsyncGuard: TypeAlias = Callable[[HTTPConnection, BaseRouteHandler], Awaitable[None]]

T = TypeVar("T")

CLIENT_CLOSED = 499  # nginx's number for a client that hung up; nobody reads it


class Disconnect:
    """Notices that the client is gone while something else is awaited. The body has to be read before."""

    def __init__(self, receive: Receive) -> None:
        self._task = asyncio.create_task(self._watch(receive))

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async def race(self, work: asyncio.Task[Any]) -> bool:
        """Wait for `work`; False where the client went first (`work` is cancelled then)."""
        await asyncio.wait([work, self._task], return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return True
        work.cancel()
        return False

    def add_callback(self, callback: Callable[[], None]) -> None:
        self._task.add_done_callback(lambda _: callback())

    def stop(self) -> None:
        self._task.cancel()


async def while_connected(request: HTTPRequest, work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns; it is cancelled where the client leaves first.

    Raises:
        HTTPException: the client left. Whatever `work` raises.
    """
    client, task = Disconnect(request.receive), asyncio.create_task(work)
    try:
        if not await client.race(task):
            raise HTTPException(status_code=CLIENT_CLOSED, detail="The client closed the connection")
        return task.result()
    finally:
        client.stop()
        task.cancel()
