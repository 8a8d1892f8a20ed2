"""Takes new connections, many in one turn of the event loop, so that nobody waits behind a crowd that connects at one moment."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable

PER_TURN = 64
"""About two milliseconds of work."""
PAUSE_S = 0.1
"""Where no more files can be open, until some may be closed."""
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

logger = logging.getLogger(__name__)


class Acceptor(asyncio.AbstractServer):
    """Listens from its creation, in a running loop, until it is closed.

    In the place of uvloop's server, whose libuv takes one connection in a turn of the loop (since 1.45), beside a turn's share of
    requests: behind a thousand connections a new one waited for a thousand turns.

    Args:
        listener: bound and non-blocking; closed at the end. protocol: called for each connection. backlog: how many may wait in the
        kernel.
    """

    def __init__(self, listener: socket.socket, protocol: Callable[[], asyncio.Protocol], backlog: int) -> None:
        self._listener = listener
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._beginning: set[asyncio.Task[object]] = set()
        """The loop itself holds tasks weakly."""
        self._paused: asyncio.TimerHandle | None = None
        listener.listen(backlog)
        self._loop.add_reader(listener, self._accept)

    def close(self) -> None:
        """Take no more connections; those that were taken go on."""
        if self._paused is not None:
            self._paused.cancel()
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener)
            self._listener.close()

    async def wait_closed(self) -> None:
        """Nothing is left to wait for."""

    def _accept(self) -> None:
        for _ in range(PER_TURN):
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:  # gone while it waited
                continue
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                self._pause(error)
                return
            connection.setblocking(False)
            task = self._loop.create_task(self._loop.connect_accepted_socket(self._protocol, connection))
            self._beginning.add(task)
            task.add_done_callback(self._beginning.discard)

    def _pause(self, error: OSError) -> None:
        """Otherwise the loop would do nothing but try again."""
        logger.error("no new connections for %g s: %s", PAUSE_S, error)
        self._loop.remove_reader(self._listener)
        self._paused = self._loop.call_later(PAUSE_S, self._loop.add_reader, self._listener, self._accept)
