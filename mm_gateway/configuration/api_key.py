"""A client's key: its hash, its name, and what it may use. The key itself is never kept.

Keys are high-entropy random (`new_key`), so a plain SHA-256 is enough: there is no dictionary to try, and a slow password hash
would cost every request what it costs an attacker.
"""

from __future__ import annotations

import hashlib
import re
import secrets

import msgspec

HASHED = "sha256:"
_HEX = re.compile(r"[0-9a-f]{64}")


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """One key.

    Attributes:
        digest: SHA-256 of the key. name: for people; "": none.
        requests_per_minute, tokens_per_minute: its own limits; None: those of `limits:`.
        models: entries that it may use; empty: all.
    """

    digest: bytes
    name: str = ""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    models: tuple[str, ...] = ()

    @property
    def principal(self) -> str:
        """Who uses it, as something stored belongs to: its name, so that a key can be replaced, else the beginning of its hash."""
        return self.name or self.digest.hex()[:16]


def new_key() -> str:
    """A fresh key of 256 random bits."""
    return f"mmg-{secrets.token_urlsafe(32)}"


def digest_of(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def parse_key(text: str) -> bytes:
    """The digest of an entry, which is a key or `sha256:HEX`.

    Raises:
        ValueError: neither; the message does not repeat it, since it may be a secret.
    """
    if not text.startswith(HASHED):
        if not text or any(character.isspace() for character in text):
            raise ValueError("a key must be a text without spaces")
        return digest_of(text)
    if not _HEX.fullmatch(text.removeprefix(HASHED).lower()):
        raise ValueError("sha256: must be followed by 64 hexadecimal digits")
    return bytes.fromhex(text.removeprefix(HASHED))


def hashed(key: str) -> str:
    """How a file names a key without holding it; what is hashed already stays as it is."""
    return HASHED + parse_key(key).hex()
