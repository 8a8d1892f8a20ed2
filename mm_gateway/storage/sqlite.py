"""One SQLite file for several threads and processes: opened with its folder, no wait without a bound, every failure typed."""

from __future__ import annotations

import errno
import logging
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mm_gateway.errors import ConfigurationError, StorageError
from mm_gateway.storage.database import WAIT_S, Connection

logger = logging.getLogger(__name__)


class SqliteDatabase:
    """Thread-safe; several processes may share the file. Methods as `Database` says.

    Args:
        path: of the file, made with its folder where it is missing; None: in memory, gone at close.
        schema: statements that make what is missing.
        durable: what was written is on the disk when the call returns; else a machine that loses power may lose the last writes.

    Raises:
        ConfigurationError: the file cannot be opened or is no database.
    """

    def __init__(self, path: Path | None, schema: str, *, durable: bool = False) -> None:
        self._path = path
        # One connection serves all threads in turn: SQLite would make them wait for each other anyway.
        self._lock = threading.Lock()
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._connection = sqlite3.connect(path or ":memory:", check_same_thread=False, isolation_level=None, timeout=WAIT_S)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._connection.executescript(schema)
        except (OSError, sqlite3.Error) as error:
            if is_busy(error) or _is_full(error):
                raise self._failure(error) from error
            raise ConfigurationError(f"storage.folder: {path} cannot be used: {error}") from error
        self._file = _identity(path)

    @contextmanager
    def connected(self) -> Iterator[sqlite3.Connection]:
        """The connection, for one caller at a time; what fails inside is undone.

        Raises:
            StorageError: somebody else holds the file, the disk refuses, or the file is no longer there; nothing was changed.
        """
        give_up_at = time.monotonic() + WAIT_S
        if not self._lock.acquire(timeout=WAIT_S):
            raise StorageError("Storage is busy: other requests wait for the disk. Please try again")
        try:
            # What is written to a file that has no name any more is gone with the process, whatever its writer was told.
            if _identity(self._path) != self._file:
                text = "was deleted or replaced while it was open, so that nothing written to it would stay. Restart the gateway"
                raise StorageError(f"Storage failed: {self._path.name if self._path else ''} {text}", retry_after_s=30.0)
            # Who waited for other threads has so much less patience left for other processes.
            self._connection.execute(f"PRAGMA busy_timeout = {max(0, round((give_up_at - time.monotonic()) * 1000))}")
            yield self._connection
        except sqlite3.Error as error:
            raise self._failure(error) from error
        finally:
            with suppress(sqlite3.Error):  # SQLite ends some transactions by itself; what went wrong first is the news
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
            self._lock.release()

    @contextmanager
    def writing(self, lock: str) -> Iterator[sqlite3.Connection]:
        """As `connected`, in a transaction that nobody else writes in between, whatever the lock is called."""
        with self.connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")

    def changed(self, connection: Connection, what: str) -> None:
        """SQLite counts by itself."""

    def version(self, what: str) -> int:
        """Another number than before where another connection has written meanwhile, whatever it was."""
        with self.connected() as connection:
            return connection.execute("PRAGMA data_version").fetchone()[0]

    def clock(self) -> float:
        return time.time()

    def check(self) -> None:
        with self.connected() as connection:
            connection.execute("BEGIN IMMEDIATE")

    def close(self) -> None:
        """Idempotent."""
        with self._lock:
            self._connection.close()

    def _failure(self, error: BaseException) -> StorageError:
        logger.error("%s: %s", self._path, error)
        if is_busy(error):
            return StorageError("Storage is busy: another process holds its lock. Please try again")
        return StorageError(f"Storage failed: {error}", retry_after_s=30.0)


def _identity(path: Path | None) -> tuple[int, int] | None:
    """Which file a path leads to; None: to none."""
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_full(error: BaseException) -> bool:
    """Whether it is the disk that has no room, which passes."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL


def is_busy(error: BaseException) -> bool:
    """Whether an error of SQLite says that another process or connection holds the lock."""
    # The low byte: SQLite's codes of more bytes say more exactly why.
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
