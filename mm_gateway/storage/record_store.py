"""Small records by opaque key, bounded in number and age; knows nothing of what is in them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from mm_gateway.errors import StorageError
from mm_gateway.storage.database import Connection, Place, open_database

logger = logging.getLogger(__name__)

PRUNE_S = 60.0
"""After which a write looks for old and surplus records at the latest."""
PRUNE_SHARE = 0.01
"""Of `max_records`: after so many writes one looks for them. Counting at each of them would cost a large store more than the write."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, used_at REAL NOT NULL, PRIMARY KEY (kind, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS records_by_use ON records (kind, used_at);
"""


class RecordStore:
    """Records of one kind. Thread-safe; several processes may share a place. Calls block for a write, and `WAIT_S` at most for others.

    Args:
        place: the database, as for `open_database`.
        kind: keeps records of different use apart in one database.
        max_records: >= 1; beyond it, or a hundredth more, those go first that were written longest ago.
        ttl_s: seconds after its last write for which a record is kept; None: for good.
        clock: Unix seconds; None: the database's own.

    Raises:
        ConfigurationError: the database cannot be opened or is none.
        StorageError: of every call: somebody else holds it, or it cannot be had now; nothing was changed.
    """

    def __init__(
        self, place: Place, kind: str, *, max_records: int, ttl_s: float | None = None, clock: Callable[[], float] | None = None
    ) -> None:
        self._database = open_database(place, _SCHEMA)
        self._kind = kind
        self._max_records = max_records
        self._ttl_s = ttl_s
        self._clock = clock or self._database.clock
        self._pruning = threading.Lock()
        self._writes = 0
        self._pruned_at = float("-inf")

    def get(self, key: str) -> bytes | None:
        """The record's value; None where there is none, or it is too old."""
        with self._database.connected() as connection:
            return self._read(connection, key)

    def put(self, key: str, value: bytes) -> None:
        """Write or replace a record."""
        with self._database.connected() as connection:
            self._write(connection, key, value)
        self._prune()

    def replace(self, key: str, value: bytes) -> bool:
        """Write a record that is there; False: there is none, and so it stays."""
        with self._database.connected() as connection:
            statement = "UPDATE records SET value = ?, used_at = ? WHERE kind = ? AND key = ?"
            return connection.execute(statement, (value, self._clock(), self._kind, key)).rowcount > 0

    def update(self, key: str, change: Callable[[bytes | None], bytes]) -> None:
        """Write what `change` makes of the record, None where there is none, with nobody writing between."""
        with self._database.writing(f"{self._kind}/{key}") as connection:
            self._write(connection, key, change(self._read(connection, key)))
        self._prune()

    def delete(self, key: str) -> bool:
        """Whether there was such a record."""
        with self._database.connected() as connection:
            return connection.execute("DELETE FROM records WHERE kind = ? AND key = ?", (self._kind, key)).rowcount > 0

    def ahead_s(self) -> float:
        """Seconds that its clock, by which all who share it go, is ahead of this machine's."""
        return self._clock() - time.time()

    def check(self) -> None:
        """See that it can be written to, now."""
        self._database.check()

    def close(self) -> None:
        """Idempotent."""
        self._database.close()

    def _write(self, connection: Connection, key: str, value: bytes) -> None:
        connection.execute(
            "INSERT INTO records (kind, key, value, used_at) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (kind, key) DO UPDATE SET value = excluded.value, used_at = excluded.used_at",
            (self._kind, key, value, self._clock()),
        )

    def _prune(self) -> None:
        """Old and surplus ones go, where it is time to look for them."""
        with self._pruning:
            self._writes += 1
            if self._writes < self._max_records * PRUNE_SHARE and time.monotonic() < self._pruned_at + PRUNE_S:
                return
            self._writes, self._pruned_at = 0, time.monotonic()
        try:
            self._remove_surplus()
        except StorageError as error:
            # The write itself has succeeded, which is what its caller wants to know.
            logger.warning("old records could not be removed now: %s", error)

    def _remove_surplus(self) -> None:
        with self._database.writing(f"prune/{self._kind}") as connection:
            connection.execute("DELETE FROM records WHERE kind = ? AND used_at < ?", (self._kind, self._oldest()))
            # Counting walks an index; choosing by OFFSET would sort all of them.
            (count,) = connection.execute("SELECT count(*) FROM records WHERE kind = ?", (self._kind,)).fetchone()
            if count > self._max_records:
                connection.execute(
                    "DELETE FROM records WHERE kind = ? AND key IN "
                    "(SELECT key FROM records WHERE kind = ? ORDER BY used_at, key DESC LIMIT ?)",
                    (self._kind, self._kind, count - self._max_records),
                )

    def _read(self, connection: Connection, key: str) -> bytes | None:
        row = connection.execute(
            "SELECT value FROM records WHERE kind = ? AND key = ? AND used_at >= ?", (self._kind, key, self._oldest())
        ).fetchone()
        return row[0] if row is not None else None

    def _oldest(self) -> float:
        return float("-inf") if self._ttl_s is None else self._clock() - self._ttl_s
