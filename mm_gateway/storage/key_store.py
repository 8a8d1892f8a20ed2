"""Keys that were made while the gateway runs: their hashes, names and limits. The keys themselves are kept nowhere."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

import msgspec

from mm_gateway.configuration.api_key import ApiKey
from mm_gateway.errors import InvalidRequestError, NotStoredError
from mm_gateway.storage.database import Connection, Place, can_be_stored, open_database

KEYS_FILE = "keys.sqlite"
_SCHEMA = "CREATE TABLE IF NOT EXISTS keys (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, created_at REAL NOT NULL, value BLOB NOT NULL);"

_LOCK = "keys"


class MadeKey(msgspec.Struct, frozen=True):
    """A key by its id, `key_…`. created_at: Unix seconds."""

    id: str
    created_at: float
    key: ApiKey


class KeyStore:
    """Thread-safe; several gateways, and the command line, may share the place. Calls block, and raise StorageError as `Database` says.

    Args:
        place: the database, as for `open_database`. clock: Unix seconds; None: the database's own.

    Raises:
        ConfigurationError: it cannot be opened.
    """

    def __init__(self, place: Place, clock: Callable[[], float] | None = None) -> None:
        self._database = open_database(place, _SCHEMA, durable=True)
        self._clock = clock or self._database.clock

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
        with self._database.writing(_LOCK) as connection:
            _check_name(connection, made.key.name, id)
            connection.execute(
                "INSERT INTO keys (id, name, created_at, value) VALUES (?, ?, ?, ?)", (id, made.key.name, made.created_at, _value(made.key))
            )
            self._database.changed(connection, _LOCK)
        return made

    def change(self, id: str, change: Callable[[ApiKey], ApiKey]) -> MadeKey:
        """Replace a key by what `change` makes of it. id: or its name.

        Raises:
            NotStoredError: there is none. InvalidRequestError: its new name is taken.
        """
        with self._database.writing(_LOCK) as connection:
            made = _found(connection, id)
            key = change(made.key)
            _check_name(connection, key.name, made.id)
            connection.execute("UPDATE keys SET name = ?, value = ? WHERE id = ?", (key.name, _value(key), made.id))
            self._database.changed(connection, _LOCK)
        return MadeKey(made.id, made.created_at, key)

    def delete(self, id: str) -> MadeKey:
        """Forget a key, and return it. id: or its name.

        Raises:
            NotStoredError: there is none.
        """
        with self._database.writing(_LOCK) as connection:
            made = _found(connection, id)
            connection.execute("DELETE FROM keys WHERE id = ?", (made.id,))
            self._database.changed(connection, _LOCK)
        return made

    def version(self) -> int:
        """Another number than before where somebody else has written meanwhile."""
        return self._database.version(_LOCK)

    def close(self) -> None:
        """Idempotent."""
        self._database.close()


def holds_keys(place: Place) -> bool:
    """Whether a gateway that is started over this database asks for keys; a file is not made where there is none. Errors as for
    `KeyStore`.
    """
    if isinstance(place, Path) and not place.is_file():
        return False
    store = KeyStore(place)
    try:
        return bool(store.all())
    finally:
        store.close()


def _found(connection: Connection, id: str) -> MadeKey:
    row = None
    if can_be_stored(id):
        row = connection.execute("SELECT id, created_at, value FROM keys WHERE id = ? OR name = ?", (id, id)).fetchone()
    if row is None:
        raise NotStoredError(f"No key that was made in the running gateway has the id or the name '{id[:100]}'")
    return _made(row)


def _check_name(connection: Connection, name: str, id: str) -> None:
    if connection.execute("SELECT 1 FROM keys WHERE name = ? AND id <> ?", (name, id)).fetchone() is not None:
        raise InvalidRequestError(f"'{name[:100]}' already names another key", param="name")


def _made(row: tuple[str, float, bytes]) -> MadeKey:
    return MadeKey(row[0], row[1], msgspec.json.decode(row[2], type=ApiKey))


def _value(key: ApiKey) -> bytes:
    return msgspec.json.encode(key)
