"""A client's key: its hash, its name, and what it may use. The key itself is never kept.

Keys are high-entropy random (`new_key`), so a plain SHA-256 is enough: there is no dictionary to try, and a slow password hash
would cost every request what it costs an attacker.
"""

from __future__ import annotations

import hashlib
import math
import re
import secrets
from datetime import UTC, datetime

import msgspec

from mm_gateway.protocol.admin import LAST_SECOND

HASHED = "sha256:"
_HEX = re.compile(r"[0-9a-f]{64}")
_FROM_NOW = re.compile(r"(?P<number>\d{1,6})(?P<unit>[dhm])")
_SECONDS = {"d": 86400, "h": 3600, "m": 60}


NAME_FAULT = "a name must be printable, and without spaces around it"


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """One key.

    Attributes:
        digest: SHA-256 of the key. name: for people; "": none.
        requests_per_minute, tokens_per_minute: its own limits; None: those of `limits:`.
        tokens_per_day, tokens_per_month: of prompts and replies, by the calendar of UTC; None: no budget. cost_per_day, cost_per_month:
            likewise, in the currency of the entries' `price`.
        models: entries that it may use; empty: all.
        expires_at: Unix seconds from which on it opens nothing; None: never. disabled: it opens nothing for now.
    """

    digest: bytes
    name: str = ""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    tokens_per_month: int | None = None
    cost_per_day: float | None = None
    cost_per_month: float | None = None
    models: tuple[str, ...] = ()
    expires_at: float | None = None
    disabled: bool = False

    @property
    def principal(self) -> str:
        """Who uses it, as something stored belongs to: its name, so that a key can be replaced, else the beginning of its hash."""
        return self.name or self.digest.hex()[:16]

    @property
    def has_budget(self) -> bool:
        """Whether what it uses is bounded by the day or the month."""
        budgets = (self.tokens_per_day, self.tokens_per_month, self.cost_per_day, self.cost_per_month)
        return any(budget is not None for budget in budgets)


def read_expiry(text: str, now: float) -> float:
    """Unix seconds of a day or a time (`2027-01-31`, `2027-01-31T12:00+01:00`; UTC where it names no zone), or of a time from now on:
    `30d`, `12h`, `90m`.

    Raises:
        ValueError: it is none of these, or later than the year 9999.
    """
    try:
        time_s = _read_time(text, now)
    except OverflowError:
        time_s = math.inf
    if time_s > LAST_SECOND:
        raise ValueError(f"{text[:40]!r} is later than the year 9999")
    return time_s


def _read_time(text: str, now: float) -> float:
    if found := _FROM_NOW.fullmatch(text.strip()):
        return now + int(found["number"]) * _SECONDS[found["unit"]]
    try:
        time = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(f"{text[:40]!r} is no time: give a day such as 2027-01-31, a time, or 30d, 12h or 90m from now") from None
    return (time if time.tzinfo is not None else time.replace(tzinfo=UTC)).timestamp()


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
