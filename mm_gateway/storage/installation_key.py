"""The secret of an installation, in a file that only its user reads, or in the database that its gateways share: what they give out and are
brought back is signed with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
from pathlib import Path

from mm_gateway.errors import StorageError
from mm_gateway.storage.database import open_database

KEY_BYTES = 32


def installation_key(place: Path | str, purpose: str) -> bytes:
    """32 bytes that are the same after a restart; the secret is made where there is none. Blocks.

    Args:
        place: a file, or the address of a database. purpose: each has a key of its own.

    Raises:
        StorageError: the secret cannot be read or made, or the file holds something else. ConfigurationError: as for `open_database`.
    """
    secret = _of_database(place) if isinstance(place, str) else _of_file(place)
    return hmac.digest(secret, purpose.encode(), hashlib.sha256)


def _of_database(url: str) -> bytes:
    database = open_database(url, "")
    try:
        with database.connected() as connection:
            made = secrets.token_bytes(KEY_BYTES)
            connection.execute("INSERT INTO secrets VALUES ('installation', ?) ON CONFLICT (name) DO NOTHING", (made,))
            return connection.execute("SELECT value FROM secrets WHERE name = 'installation'").fetchone()[0]
    finally:
        database.close()


def _of_file(path: Path) -> bytes:
    try:
        secret = _read(path)
        if secret is None:
            _make(path)
            secret = _read(path)
    except OSError as error:
        raise StorageError(f"The key of this installation, {path.name}, cannot be read or made: {error.strerror}") from error
    if secret is None or len(secret) != KEY_BYTES:
        raise StorageError(f"{path.name} is no key of an installation: it must hold {KEY_BYTES} bytes. Remove it, and a new one is made")
    return secret


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _make(path: Path) -> None:
    """Several processes may do so at once: the first one's stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)  # so that nobody sees it half written
    finally:
        draft.unlink()
