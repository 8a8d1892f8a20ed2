"""Keys that were made while the gateway runs, in SQLite: their hashes, names and limits. The keys themselves are kept nowhere."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from mm_gateway.configuration.api_key import ApiKey
from mm_gateway.errors import InvalidRequestError, NotStoredError
from mm_gateway.storage.database import Database

KEYS_FILE = "keys.sqlite"
_SCHEMA = "CREATE TABLE IF NOT EXISTS keys (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, created_at REAL NOT NULL, value BLOB NOT NULL);"


class MadeKey(msgspec.Struct, frozen=True):
    """A key by its id, `key_…`. created_at: Unix seconds."""

    id: str
    created_at: float
    key: ApiKey


class KeyStore:
    """Thread-safe; several gateways, and the command line, may share the file. Calls block, and raise StorageError as `Database` says.

    Args:
        path: of the file. clock: Unix seconds; for tests.

    Raises:
        ConfigurationError: the file cannot be opened.
    """

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._database = Database(path, _SCHEMA, durable=True)

    def all(self) -> tuple[MadeKey, ...]:
        """Every key, in the order in which they were made; those that are disabled or have expired too."""
        with self._database.connected() as connection:
            return tuple(map(_made, connection.execute("SELECT id, created_at, value FROM keys ORDER BY created_at, id").fetchall()))

    def add(self, key: ApiKey) -> MadeKey:
        """Keep a key; one without a name is called by its id.

        Raises:
            InvalidRequestError: its name is taken.
        """
        id = f"key_{secrets.token_hex(12)}"
        made = MadeKey(id, self._clock(), key if key.name else msgspec.structs.replace(key, name=id))
        with self._database.writing() as connection:
            _unless_taken(
                connection, made.key.name, "INSERT INTO keys VALUES (?, ?, ?, ?)", (id, made.key.name, made.created_at, _value(made.key))
            )
        return made

    def change(self, id: str, change: Callable[[ApiKey], ApiKey]) -> MadeKey:
        """Replace a key by what `change` makes of it. id: or its name.

        Raises:
            NotStoredError: there is none. InvalidRequestError: its new name is taken.
        """
        with self._database.writing() as connection:
            made = _found(connection, id)
            key = change(made.key)
            _unless_taken(connection, key.name, "UPDATE keys SET name = ?, value = ? WHERE id = ?", (key.name, _value(key), made.id))
        return MadeKey(made.id, made.created_at, key)

    def delete(self, id: str) -> MadeKey:
        """Forget a key, and return it. id: or its name.

        Raises:
            NotStoredError: there is none.
        """
        with self._database.writing() as connection:
            made = _found(connection, id)
            connection.execute("DELETE FROM keys WHERE id = ?", (made.id,))
        return made

    def version(self) -> int:
        """Another number than before where somebody else has written meanwhile."""
        return self._database.version()

    def close(self) -> None:
        """Idempotent."""
        self._database.close()


def holds_keys(path: Path) -> bool:
    """Whether a gateway that is started over this file asks for keys; it is not made where there is none. Errors as for `KeyStore`."""
    if not path.is_file():
        return False
    store = KeyStore(path)
    try:
        return bool(store.all())
    finally:
        store.close()


def _found(connection: sqlite3.Connection, id: str) -> MadeKey:
    row = connection.execute("SELECT id, created_at, value FROM keys WHERE id = ?1 OR name = ?1", (id,)).fetchone()
    if row is None:
        raise NotStoredError(f"No key that was made in the running gateway has the id or the name '{id[:100]}'")
    return _made(row)


def _unless_taken(connection: sqlite3.Connection, name: str, statement: str, values: tuple[object, ...]) -> None:
    try:
        connection.execute(statement, values)
    except sqlite3.IntegrityError:
        raise InvalidRequestError(f"'{name[:100]}' already names another key", param="name") from None


def _made(row: tuple[str, float, bytes]) -> MadeKey:
    return MadeKey(row[0], row[1], msgspec.json.decode(row[2], type=ApiKey))


def _value(key: ApiKey) -> bytes:
    return msgspec.json.encode(key)
