"""What each key has used, by day, model and endpoint. Days are those of UTC, as `2026-11-29`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Literal, get_args

import msgspec

from mm_gateway.storage.database import Connection, Place, can_be_stored, open_database

USAGE_FILE = "usage.sqlite"
Dimension = Literal["day", "month", "key", "model", "endpoint"]
DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)
LAST_DAYS = 7
"""With usage, that a clock has to be wrong for before it is believed."""
TRUSTED_DAYS = 31
"""In which they have to lie, or the clock is doubted."""
_COLUMNS: Mapping[Dimension, str] = {"day": "day", "month": "substr(day, 1, 7)", "key": "key", "model": "model", "endpoint": "endpoint"}
_SUMS = ("requests", "prompt_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "cost")
# The key comes first: budgets ask for one key's days.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS usage (
    key TEXT NOT NULL, day TEXT NOT NULL, model TEXT NOT NULL, endpoint TEXT NOT NULL,
    requests INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL, cost REAL NOT NULL, PRIMARY KEY (key, day, model, endpoint)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS usage_by_day ON usage (day);
"""


class UsedFor(msgspec.Struct, frozen=True):
    """What usage is counted by. key: the name of who asked; "" where no keys are asked for."""

    key: str
    day: str
    model: str
    endpoint: str


class Used(msgspec.Struct):
    """How much. cached_tokens: of the prompts'. reasoning_tokens: of the output's. cost: by the models' prices."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cost: float = 0.0

    @property
    def tokens(self) -> int:
        """Of prompts and output."""
        return self.prompt_tokens + self.output_tokens

    def add(self, other: Used) -> None:
        # Field by field: every request is added, and a loop over names takes six times as long.
        self.requests += other.requests
        self.prompt_tokens += other.prompt_tokens
        self.cached_tokens += other.cached_tokens
        self.output_tokens += other.output_tokens
        self.reasoning_tokens += other.reasoning_tokens
        self.cost += other.cost


class UsageRow(Used, kw_only=True):
    """A line of a report; what it is not grouped by is None."""

    day: str | None = None
    month: str | None = None
    key: str | None = None
    model: str | None = None
    endpoint: str | None = None


class UsageStore:
    """Thread-safe; several gateways, and the command line, may share the place. Calls block, and raise StorageError as `Database` says.

    Args:
        place: the database, as for `open_database`.

    Raises:
        ConfigurationError: it cannot be opened.
    """

    def __init__(self, place: Place) -> None:
        self._database = open_database(place, _SCHEMA)

    def add(self, used: Mapping[UsedFor, Used]) -> None:
        """Add to what is there: all of it, or, where that fails, nothing."""
        with self._database.writing("usage") as connection:
            add_usage(connection, used)

    def by_day(self, keys: Iterable[str], since: str) -> dict[str, dict[str, Used]]:
        """Of each key, what it used on each day from `since` on."""
        found: dict[str, dict[str, Used]] = {}
        with self._database.connected() as connection:
            for key in keys:
                rows = connection.execute(f"SELECT day, {_sums()} FROM usage WHERE key = ? AND day >= ? GROUP BY day", (key, since))
                found[key] = {day: Used(*sums) for day, *sums in rows.fetchall()}
        return found

    def report(
        self,
        group_by: Sequence[Dimension],
        *,
        start: str | None = None,
        end: str | None = None,
        key: str | None = None,
        model: str | None = None,
        endpoint: str | None = None,
    ) -> list[UsageRow]:
        """Usage summed up by what is asked for, in its order; by nothing: one row.

        Args:
            start, end: days, both included. key, model, endpoint: of this one alone.
        """
        conditions = {"day >= ?": start, "day <= ?": end, "key = ?": key, "model = ?": model, "endpoint = ?": endpoint}
        used = {condition: value for condition, value in conditions.items() if value is not None}
        if not all(map(can_be_stored, used.values())):
            return []
        columns = [_COLUMNS[dimension] for dimension in group_by]
        where = f" WHERE {' AND '.join(used)}" if used else ""
        grouped = f" GROUP BY {', '.join(columns)} ORDER BY {', '.join(columns)}" if columns else ""
        with self._database.connected() as connection:
            rows = connection.execute(
                f"SELECT {', '.join([*columns, _sums()])} FROM usage{where}{grouped}", tuple(used.values())
            ).fetchall()
        return [
            UsageRow(*row[len(columns) :], **dict(zip(group_by, row, strict=False)))
            for row in rows
            if row[len(columns)] is not None  # a sum of nothing
        ]

    def version(self) -> int:
        """Another number than before where somebody else has written meanwhile."""
        return self._database.version("usage")

    def delete_older(self, days: int, today: str) -> None:
        """Forget what was used more than so many days ago.

        A clock that is set years ahead, by mistake, must not make everything old at once: where the last `LAST_DAYS` days with usage
        before `today` do not lie within `TRUSTED_DAYS`, days are counted from the first of them. Of fewer days nothing goes.
        """
        with self._database.connected() as connection:
            row = connection.execute(
                "SELECT day FROM usage WHERE day < ? GROUP BY day ORDER BY day DESC LIMIT 1 OFFSET ?", (today, LAST_DAYS - 1)
            ).fetchone()
            if row is not None:
                newest, used = date.fromisoformat(today), date.fromisoformat(row[0])
                if newest - used > timedelta(days=TRUSTED_DAYS):
                    newest = used
                connection.execute("DELETE FROM usage WHERE day < ?", ((newest - timedelta(days=days)).isoformat(),))

    def close(self) -> None:
        """Idempotent."""
        self._database.close()


def add_usage(connection: Connection, used: Mapping[UsedFor, Used]) -> None:
    """Add to what is there, inside `Database.writing`."""
    # In one order, so that two that write at once never wait for each other.
    values = sorted((*msgspec.structs.astuple(what), *msgspec.structs.astuple(much)) for what, much in used.items())
    sums = ", ".join(f"{name} = usage.{name} + excluded.{name}" for name in _SUMS)
    connection.executemany(
        f"INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key, day, model, endpoint) DO UPDATE SET {sums}", values
    )


def _sums() -> str:
    # PostgreSQL's sum of integers is a number without bounds, which Python would get as a Decimal.
    return ", ".join(f"sum({name})" if name == "cost" else f"CAST(sum({name}) AS BIGINT)" for name in _SUMS)


def read_day(text: str) -> str:
    """A day such as `2026-11-29`, or `today`, `yesterday`.

    Raises:
        ValueError: it is none.
    """
    today = datetime.now(UTC).date()
    if text in ("today", "yesterday"):
        return (today - timedelta(days=text == "yesterday")).isoformat()
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise ValueError(f"{text[:40]!r} is no day such as {today}") from None


def read_dimensions(text: str) -> list[Dimension]:
    """What to group by, separated by commas.

    Raises:
        ValueError: there is no such thing, or one is given twice.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    found: list[Dimension] = [dimension for name in names for dimension in DIMENSIONS if dimension == name]
    if len(found) != len(names) or len(set(found)) != len(found):
        raise ValueError(f"{text[:100]!r} must be of {', '.join(DIMENSIONS)}, each once, separated by commas")
    return found
