"""What stores need of a database, which is a SQLite file or a PostgreSQL server: the statements are the same, and so are the errors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

WAIT_S = 2.5
"""For a lock that another thread or process holds: longer than any write takes, short enough to answer a client with it."""

Place = Path | str | None
"""A SQLite file; the address of a PostgreSQL database, `postgresql://…`; None: memory, gone at close."""


class Rows(Protocol):
    """What a statement found."""

    @property
    def rowcount(self) -> int: ...

    def fetchone(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...


class Connection(Protocol):
    """Statements have `?` where a value goes. Each is a transaction of its own, except inside `Database.writing`."""

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Rows: ...

    def executemany(self, statement: str, values: Iterable[Sequence[Any]], /) -> Any: ...


class Database(Protocol):
    """Thread-safe; several processes may share what is in it.

    Raises:
        StorageError: of every call: it cannot be had now; nothing was changed.
    """

    def connected(self) -> AbstractContextManager[Connection]:
        """A connection, for one caller at a time; what fails inside is undone."""
        ...

    def writing(self, lock: str) -> AbstractContextManager[Connection]:
        """As `connected`, in a transaction. lock: nobody else is in one of the same lock meanwhile; SQLite knows one for all."""
        ...

    def changed(self, connection: Connection, what: str) -> None:
        """Give `what` another version, inside `writing`."""
        ...

    def version(self, what: str) -> int:
        """Another number than before where somebody else has written it meanwhile."""
        ...

    def clock(self) -> float:
        """Unix seconds, by the clock that all who share the database go by."""
        ...

    def check(self) -> None:
        """See that it can be written to, now."""
        ...

    def close(self) -> None:
        """Idempotent."""
        ...


def can_be_stored(text: str) -> bool:
    """Whether a database may have such a text in it: PostgreSQL has none with a zero, and no database one with half a character, as
    arguments of a command may be. None of these is to be looked for.
    """
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def open_database(place: Place, schema: str, *, durable: bool = False) -> Database:
    """A database, with what is missing in it made.

    Args:
        schema: statements that make what is missing in a SQLite file. A server's is in `postgres_schema.py`, all of it.
        durable: what was written is on the disk when the call returns; else a machine that loses power may lose the last writes. A
            server does as it is configured, by default so.

    Raises:
        ConfigurationError: it cannot be used as it is. StorageError: not now.
    """
    if isinstance(place, str):
        from mm_gateway.storage.postgres import PostgresDatabase  # psycopg is an extra

        return PostgresDatabase(place)
    from mm_gateway.storage.sqlite import SqliteDatabase

    return SqliteDatabase(place, schema, durable=durable)
