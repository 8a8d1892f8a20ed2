"""The tables in a PostgreSQL database: made, and brought up to date, by whichever gateway comes first."""

from __future__ import annotations

import psycopg

from mm_gateway.errors import ConfigurationError

NAME = "mm_gateway"
"""The schema that all of them are in, so that the database may hold other things too."""
_LOCK = 0x6D6D67617465  # any number that other programs are not likely to take

# Each makes what the one before left out; a database has had so many of them as its version says. They stay as they are for good.
# Texts are compared byte by byte, as SQLite does and Python.
_STEPS = (
    """
CREATE TABLE records (
    kind TEXT NOT NULL, key TEXT COLLATE "C" NOT NULL, value BYTEA NOT NULL, used_at DOUBLE PRECISION NOT NULL, PRIMARY KEY (kind, key)
);
CREATE INDEX records_by_use ON records (kind, used_at);
CREATE TABLE keys (
    id TEXT COLLATE "C" PRIMARY KEY, name TEXT COLLATE "C" NOT NULL UNIQUE, created_at DOUBLE PRECISION NOT NULL, value BYTEA NOT NULL
);
CREATE TABLE usage (
    key TEXT COLLATE "C" NOT NULL, day TEXT COLLATE "C" NOT NULL, model TEXT COLLATE "C" NOT NULL, endpoint TEXT COLLATE "C" NOT NULL,
    requests BIGINT NOT NULL, prompt_tokens BIGINT NOT NULL, cached_tokens BIGINT NOT NULL, output_tokens BIGINT NOT NULL,
    reasoning_tokens BIGINT NOT NULL, cost DOUBLE PRECISION NOT NULL, PRIMARY KEY (key, day, model, endpoint)
);
CREATE INDEX usage_by_day ON usage (day);
CREATE TABLE versions (what TEXT PRIMARY KEY, version BIGINT NOT NULL);
CREATE TABLE secrets (name TEXT PRIMARY KEY, value BYTEA NOT NULL);
CREATE TABLE reservations (
    id TEXT COLLATE "C" PRIMARY KEY, key TEXT COLLATE "C" NOT NULL, gateway TEXT NOT NULL, tokens BIGINT NOT NULL,
    cost DOUBLE PRECISION NOT NULL, until DOUBLE PRECISION NOT NULL
);
CREATE INDEX reservations_by_key ON reservations (key);
CREATE INDEX reservations_by_gateway ON reservations (gateway);
CREATE TABLE buckets (
    name TEXT COLLATE "C" PRIMARY KEY, level DOUBLE PRECISION NOT NULL, at DOUBLE PRECISION NOT NULL, taken BOOLEAN NOT NULL
) WITH (fillfactor = 50);
""",
)


def bring_up_to_date(connection: psycopg.Connection) -> None:
    """Several gateways may do so at once.

    Raises:
        ConfigurationError: a newer version of the gateway has changed the tables, or they may not be made. psycopg.Error: not now.
    """
    try:
        if _version(connection) == len(_STEPS):
            return
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            if _version(connection) is None:
                connection.execute("CREATE SCHEMA IF NOT EXISTS mm_gateway")
                connection.execute("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)")
                connection.execute("INSERT INTO schema_version SELECT 0 WHERE NOT EXISTS (SELECT FROM schema_version)")
            version = _version(connection) or 0
            if version > len(_STEPS):
                raise ConfigurationError(
                    f"storage.url: the tables in schema {NAME} are of version {version}, and this gateway knows {len(_STEPS)}: a newer one "
                    "has changed them. Start that one, or name another database"
                )
            for step in _STEPS[version:]:
                connection.execute(step.encode())
            if version < len(_STEPS):
                connection.execute("UPDATE schema_version SET version = %s", (len(_STEPS),))
    except psycopg.errors.InsufficientPrivilege as error:
        raise ConfigurationError(
            f"storage.url: its user may not use or make the schema {NAME}: {_first_line(error)}. Make it with: "
            f"CREATE SCHEMA {NAME} AUTHORIZATION its user; one that is there already must be that user's, with its tables"
        ) from error


def _version(connection: psycopg.Connection) -> int | None:
    if connection.execute("SELECT to_regclass(%s)", (f"{NAME}.schema_version",)).fetchone() == (None,):
        return None
    row = connection.execute("SELECT version FROM schema_version").fetchone()
    return row[0] if row is not None else None


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
