"""Lines between the API's processes and replicas, by which a replica sees that whoever asked is gone.

Ray tells an actor nothing of the death of its callers: what they asked for would be generated to its end, for nobody. So each process of
the API listens, and each replica that works for it holds one connection to it, over which nothing is said.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator

logger = logging.getLogger(__name__)

CONNECT_S = 5.0
KEEP_ALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""Seconds, seconds, and tries, after which a machine that lost its power counts as gone."""


class Caller:
    """The end of the API: listens as long as its process lives."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self._starting = asyncio.Lock()
        self._held: set[asyncio.StreamWriter] = set()

    async def address(self, host: str) -> tuple[str, int]:
        """Where replicas reach it. host: this machine's address, as the cluster knows it; the first one counts."""
        async with self._starting:
            if self._server is None:
                self._server = await asyncio.start_server(self._hold, host, 0)
        where: tuple[str, int] = self._server.sockets[0].getsockname()[:2]
        return where

    def close(self) -> None:
        """Gone, as far as replicas see."""
        if self._server is not None:
            self._server.close()
        for writer in self._held:
            writer.close()

    async def _hold(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._held.add(writer)
        with contextlib.suppress(OSError):
            while await reader.read(1024):
                pass
        self._held.discard(writer)
        writer.close()


class Callers:
    """The end of a replica: cancels the work for a caller that is gone."""

    def __init__(self) -> None:
        self._work: dict[tuple[str, int], set[asyncio.Task[object]]] = {}
        self._lines: set[asyncio.Task[None]] = set()

    @contextlib.contextmanager
    def working_for(self, caller: tuple[str, int]) -> Iterator[None]:
        """The task that runs this is cancelled when the caller goes."""
        task = asyncio.current_task()
        assert task is not None
        if caller not in self._work:
            self._work[caller] = set()
            line = asyncio.create_task(self._watch(caller))
            self._lines.add(line)
            line.add_done_callback(self._lines.discard)
        work = self._work[caller]
        work.add(task)
        try:
            yield
        finally:
            work.discard(task)

    async def _watch(self, caller: tuple[str, int]) -> None:
        try:
            async with asyncio.timeout(CONNECT_S):
                reader, writer = await asyncio.open_connection(*caller)
        except OSError as error:
            # TimeoutError is one. A caller that died since, or a network that lets nobody through: then it is not known when one goes.
            logger.warning("the API at %s:%s cannot be watched: %s", *caller, error or "no answer")
            del self._work[caller]
            return
        _keep_alive(writer.get_extra_info("socket"))
        with contextlib.suppress(OSError):
            await reader.read()
        writer.close()
        work = self._work.pop(caller)
        if work:
            logger.warning("the API at %s:%s is gone; %d requests of it end", *caller, len(work))
        for task in list(work):
            task.cancel()


def _keep_alive(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEP_ALIVE.items():
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
