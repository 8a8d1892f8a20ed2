"""Connections to a PostgreSQL server: few, made as they are needed, given up when it does not answer, and tried again by themselves."""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from mm_gateway.errors import ConfigurationError, StorageError
from mm_gateway.storage.database import WAIT_S

try:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict
except ImportError as missing:
    raise ConfigurationError(f"storage.url needs psycopg ({missing}). Install it: pip install 'mm-gateway[postgres]'") from missing

from mm_gateway.storage.postgres_schema import NAME, bring_up_to_date

RETRY_S = 1.0
"""Between two attempts to reach a server that could not be reached; calls in between fail at once."""
CONNECT_S = 2
SILENT_S = 5
"""After which a connection is given up whose other end does not even confirm what was sent to it."""
WATCH_S = 1.0
HANGS_S = 8.0
"""After which a call is broken off whose server confirms what is sent to it and answers nothing, as one does that was stopped."""
LIFETIME_S = 3600.0
"""After which a connection is made anew: the address may lead elsewhere by then, and the clocks may have drifted."""

# Where the address does not say otherwise.
_OURS: Mapping[str, Any] = {
    "connect_timeout": CONNECT_S,
    "application_name": "mm_gateway",
    "keepalives_idle": SILENT_S,
    "keepalives_interval": SILENT_S,
    "keepalives_count": 1,
    "tcp_user_timeout": SILENT_S * 1000,
}
_BUSY = (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled, psycopg.errors.DeadlockDetected)

logger = logging.getLogger(__name__)


class PostgresServer:
    """Connections to one address, as many as there are callers at a time, which the threads of the storage pool bound.

    Not psycopg's own pool: that one makes connections in the background and tries again for minutes, so that a caller would wait
    for its whole patience, and not be told why.
    """

    _known: dict[str, PostgresServer] = {}  # noqa: RUF012 - of the process
    _registry = threading.Lock()

    def __init__(self, url: str) -> None:
        self._url = url
        given = _read(url)
        self._ours = {name: value for name, value in _OURS.items() if name not in given}
        self._lock = threading.Lock()
        self._idle: list[tuple[psycopg.Connection, float]] = []
        self._users = 0
        self._over = threading.Event()
        self._watched: dict[psycopg.Connection, float] = {}
        """Connections that a caller has, and when its call is broken off."""
        self._lost: StorageError | None = None
        self._retry_at = 0.0
        self._trying = False
        self.ahead_s = time.time() - time.monotonic()

    @classmethod
    def of(cls, url: str) -> PostgresServer:
        """The one of an address; `leave` it."""
        with cls._registry:
            found = cls._known.get(url)
            if found is None:
                found = cls._known[url] = cls(url)
                threading.Thread(target=found._watch, name="storage-watch", daemon=True).start()
            found._users += 1
            return found

    def leave(self) -> None:
        with self._registry:
            self._users -= 1
            if self._users == 0:
                del self._known[self._url]
                self._over.set()
                with self._lock:
                    for connection, _ in self._idle:
                        connection.close()
                    self._idle.clear()

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection]:
        """One for this caller alone.

        Raises:
            StorageError: there is none now, or the statement failed on the server's side. ConfigurationError: as `bring_up_to_date`.
        """
        connection, made_at = self._take()
        self._watched[connection] = time.monotonic() + HANGS_S
        keep = False
        try:
            yield connection
            keep = True
        except (psycopg.DataError, psycopg.IntegrityError):
            keep = True  # the statement's own fault, and no outage
            raise
        except psycopg.Error as error:
            keep = isinstance(error, _BUSY)  # else it may lead to a server that is no longer the one to ask
            raise self._failure(error) from error
        except BaseException:
            # What failed in the caller's own code is no fault of the connection.
            keep = not connection.closed and connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
            raise
        finally:
            with self._lock:  # not while it is being broken off
                del self._watched[connection]
            self._put(connection, made_at, keep)

    def _take(self) -> tuple[psycopg.Connection, float]:
        with self._lock:
            while self._idle:
                connection, made_at = self._idle.pop()
                if not _is_stale(connection, made_at):
                    return connection, made_at
                connection.close()
            # While it cannot be reached, one caller at a time tries, and the others need not wait for what comes of that.
            if self._lost is not None and (self._trying or time.monotonic() < self._retry_at):
                raise StorageError(str(self._lost), retry_after_s=RETRY_S)
            self._trying = True
        try:
            made = self._connect()
        except psycopg.Error as error:
            failure = self._failure(error)
            with self._lock:
                self._lost, self._retry_at = failure, time.monotonic() + RETRY_S
            raise failure from error
        finally:
            with self._lock:
                self._trying = False
        with self._lock:
            if self._lost is not None:
                logger.warning("storage.url: the database is back")
            self._lost = None
        return made

    def _watch(self) -> None:
        """End connections whose caller waits for too long: libpq knows no limit of its own for that."""
        while not self._over.wait(WATCH_S):
            with self._lock:
                late = [connection for connection, until in self._watched.items() if time.monotonic() > until]
                for connection in late:
                    with suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as end:
                        end.shutdown(socket.SHUT_RDWR)

    def _put(self, connection: psycopg.Connection, made_at: float, keep: bool) -> None:
        with self._lock:
            if keep and self._users and not connection.closed:
                self._idle.append((connection, made_at))
                return
        with suppress(psycopg.Error):
            connection.close()

    def _connect(self) -> tuple[psycopg.Connection, float]:
        connection = psycopg.connect(self._url, autocommit=True, **self._ours)
        try:
            began = time.monotonic()
            # Set here and not in the address, where what is given there for the same would be overwritten.
            row = connection.execute(
                "SELECT set_config('search_path', %s, false), set_config('statement_timeout', %s, false), "
                "set_config('lock_timeout', %s, false), extract(epoch FROM clock_timestamp())::float8",
                (NAME, f"{2 * WAIT_S}s", f"{WAIT_S}s"),
            ).fetchone()
            assert row is not None
            self.ahead_s = row[3] - (began + time.monotonic()) / 2
            bring_up_to_date(connection)  # each time: the server may be another one since, or its database have been made anew
        except BaseException:
            connection.close()
            raise
        return connection, time.monotonic()

    def _failure(self, error: psycopg.Error) -> StorageError:
        text = " ".join(str(error).split())  # has host and user in it, which are for the log and not for clients
        if isinstance(error, _BUSY):
            logger.error("storage.url: %s", text)
            return StorageError("Storage is busy: others hold what is needed of the database. Please try again")
        if self._lost is None:  # else everybody who asks would say it again
            logger.error("storage.url: %s", text)
        return StorageError("Storage failed: the database cannot be used now. Please try again", retry_after_s=RETRY_S)


def _is_stale(connection: psycopg.Connection, made_at: float) -> bool:
    """Whether it is old, or something came while nobody had asked: the server's last word, or its end."""
    if connection.closed or time.monotonic() - made_at > LIFETIME_S:
        return True
    try:
        waiting = select.poll()
        waiting.register(connection.fileno(), select.POLLIN | select.POLLHUP)
        return bool(waiting.poll(0))
    except psycopg.Error:  # it has no socket any more
        return True


def _read(url: str) -> Mapping[str, Any]:
    """What an address says, by libpq's names.

    Raises:
        ConfigurationError: it is none; the message repeats nothing of it, since any part may be one of a password.
    """
    try:
        given = conninfo_to_dict(url)
    except psycopg.Error:
        given = None
    # Of one with an @ in its password libpq takes the end for a part of the host.
    if given is None or any("@" in str(given.get(part, "")) for part in ("host", "port", "dbname")):
        raise ConfigurationError(
            "storage.url is no address of a database such as postgresql://USER:PASSWORD@HOST:5432/NAME; what is special in a URL has "
            "to be written as %XX in a password, and what follows a ? must be settings of libpq"
        )
    return given


def address(url: str) -> str:
    """Where an address leads, without a password: `host:port/name`.

    Raises:
        ConfigurationError: it is none.
    """
    given = _read(url)
    return f"{given.get('host') or 'localhost'}:{given.get('port') or 5432}/{given.get('dbname') or given.get('user') or ''}"
