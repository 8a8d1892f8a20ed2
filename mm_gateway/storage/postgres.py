"""One PostgreSQL database for several gateways, as stores see it."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mm_gateway.errors import ConfigurationError, StorageError
from mm_gateway.storage.database import Connection, Rows
from mm_gateway.storage.postgres_schema import NAME
from mm_gateway.storage.postgres_server import RETRY_S, PostgresServer

if TYPE_CHECKING:
    import psycopg


_WRITABLE = (
    "SELECT current_setting('transaction_read_only'), (SELECT string_agg(relname, ', ' ORDER BY relname) FROM pg_class "
    f"WHERE relnamespace = '{NAME}'::regnamespace AND relkind = 'r' AND relname <> 'schema_version' AND NOT ("
    + " AND ".join(f"has_table_privilege(oid, '{right}')" for right in ("SELECT", "INSERT", "UPDATE", "DELETE"))
    + "))"
)
"""Whether nothing may be written now, and the tables that this user may not write to."""


class PostgresDatabase:
    """Thread-safe. Methods as `Database` says. Those of one address share their connections.

    Args:
        url: `postgresql://…`, or anything else that libpq takes for an address.

    Raises:
        ConfigurationError: the address is none, or the database cannot be used as it is. StorageError: it cannot be reached now.
    """

    def __init__(self, url: str) -> None:
        self._server = PostgresServer.of(url)
        self._closed = False
        try:
            with self._server.connection():
                pass
        except BaseException:
            self.close()
            raise

    @contextmanager
    def connected(self) -> Iterator[Connection]:
        with self._server.connection() as connection:
            yield _Statements(connection)

    @contextmanager
    def writing(self, lock: str) -> Iterator[Connection]:
        with self._server.connection() as connection, connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (lock,))
            yield _Statements(connection)

    def changed(self, connection: Connection, what: str) -> None:
        connection.execute(
            "INSERT INTO versions VALUES (?, 1) ON CONFLICT (what) DO UPDATE SET version = versions.version + 1",
            (what,),
        )

    def version(self, what: str) -> int:
        """Another number than before where anybody has written it meanwhile, this process too."""
        with self.connected() as connection:
            row = connection.execute("SELECT version FROM versions WHERE what = ?", (what,)).fetchone()
        return row[0] if row is not None else 0

    def clock(self) -> float:
        """The server's, as it was told when the last connection was made, and went on since."""
        return self._server.ahead_s + time.monotonic()

    def check(self) -> None:
        with self.connected() as connection:
            read_only, forbidden = connection.execute(_WRITABLE).fetchone()
        if read_only == "on":
            raise StorageError("Storage failed: the database takes no writes now", retry_after_s=RETRY_S)
        if forbidden is not None:
            raise StorageError(
                f"Storage failed: the user of storage.url may not write to {forbidden}. Let it own the schema {NAME} and its tables",
                retry_after_s=RETRY_S,
            )

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._server.leave()


class _Statements:
    """A connection, with `?` where a value goes."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Rows:
        return self._connection.execute(_translated(statement), values)

    def executemany(self, statement: str, values: Iterable[Sequence[Any]], /) -> None:
        with self._connection.cursor() as cursor:
            cursor.executemany(_translated(statement), values)


@functools.lru_cache(maxsize=256)
def _translated(statement: str) -> bytes:
    return statement.replace("%", "%%").replace("?", "%s").encode()


def why_not(url: str) -> str | None:
    """Why the database cannot be used, in words for whoever runs the gateway, with no password in them; None: it can."""
    try:
        database = PostgresDatabase(url)
        try:
            database.check()
        finally:
            database.close()
    except (StorageError, ConfigurationError) as error:
        cause = error.__cause__
        return " ".join(str(cause).split()) if isinstance(error, StorageError) and cause is not None else str(error)
    return None
