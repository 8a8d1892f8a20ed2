"""Small records by opaque key in SQLite, bounded in number and age; knows nothing of what is in them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from mm_gateway.storage.database import Database

_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, used_at REAL NOT NULL, PRIMARY KEY (kind, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS records_by_use ON records (kind, used_at);
"""


class RecordStore:
    """Records of one kind. Thread-safe; several processes may share a file. Calls block for a disk write, and `WAIT_S` at most for others.

    Args:
        path: the database file, made with its folder where it is missing; None: in memory, gone at close.
        kind: keeps records of different use apart in one file.
        max_records: >= 1; beyond it those go first that were written longest ago.
        ttl_s: seconds after its last write for which a record is kept; None: for good.
        clock: Unix seconds; for tests.

    Raises:
        ConfigurationError: the file cannot be opened or is no database.
        StorageError: of every call: somebody else holds the file, or the disk refuses; nothing was changed.
    """

    def __init__(
        self, path: Path | None, kind: str, *, max_records: int, ttl_s: float | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = Database(path, _SCHEMA)
        self._kind = kind
        self._max_records = max_records
        self._ttl_s = ttl_s
        self._clock = clock

    def get(self, key: str) -> bytes | None:
        """The record's value; None where there is none, or it is too old."""
        with self._database.connected() as connection:
            return self._read(connection, key)

    def put(self, key: str, value: bytes) -> None:
        """Write or replace a record; old and surplus ones go."""
        self.update(key, lambda _: value)

    def update(self, key: str, change: Callable[[bytes | None], bytes]) -> None:
        """Write what `change` makes of the record, None where there is none, with nobody writing between; old and surplus ones go."""
        with self._database.writing() as connection:
            value = change(self._read(connection, key))
            connection.execute("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?)", (self._kind, key, value, self._clock()))
            connection.execute("DELETE FROM records WHERE kind = ? AND used_at < ?", (self._kind, self._oldest()))
            # Counting walks an index; choosing by OFFSET would sort all of them at every write.
            (count,) = connection.execute("SELECT count(*) FROM records WHERE kind = ?", (self._kind,)).fetchone()
            if count > self._max_records:
                connection.execute(
                    "DELETE FROM records WHERE kind = ?1 AND key IN "
                    "(SELECT key FROM records WHERE kind = ?1 ORDER BY used_at, key DESC LIMIT ?2)",
                    (self._kind, count - self._max_records),
                )

    def delete(self, key: str) -> bool:
        """Whether there was such a record."""
        with self._database.connected() as connection:
            return connection.execute("DELETE FROM records WHERE kind = ? AND key = ?", (self._kind, key)).rowcount > 0

    def check(self) -> None:
        """See that it can be written to, now."""
        with self._database.connected() as connection:
            connection.execute("BEGIN IMMEDIATE")

    def close(self) -> None:
        """Idempotent."""
        self._database.close()

    def _read(self, connection: sqlite3.Connection, key: str) -> bytes | None:
        row = connection.execute(
            "SELECT value FROM records WHERE kind = ? AND key = ? AND used_at >= ?", (self._kind, key, self._oldest())
        ).fetchone()
        return row[0] if row is not None else None

    def _oldest(self) -> float:
        return float("-inf") if self._ttl_s is None else self._clock() - self._ttl_s
