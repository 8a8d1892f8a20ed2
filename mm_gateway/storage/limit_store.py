"""What gateways over one PostgreSQL database hold together: buckets of limits per minute, and what running requests reserve of budgets.

A reservation is a row until its request is counted as usage, in one transaction with that, so that whoever sums both up sees each
request once. It counts for `HOLD_S` after its gateway has last renewed it: what a gateway that was killed had reserved is free again then.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence

from mm_gateway.storage.database import open_database
from mm_gateway.storage.usage_store import Used, UsedFor, add_usage

HOLD_S = 30.0
RENEW_S = 10.0
FORGET_S = 3600.0
"""After which a bucket that nobody takes from is full whatever its limit, so that its row says nothing."""

# The same throughout a statement. One that waited for the row of another began before that one wrote it, and must not turn its time back.
_NOW = "extract(epoch FROM statement_timestamp())::float8"
_REFILLED = f"least(?::float8, buckets.level + ?::float8 + greatest(0, {_NOW} - buckets.at) * ?::float8 / 60.0)"
"""Of a row: with its limit, what is given back, and its limit again."""


class LimitStore:
    """Thread-safe. Calls block, and raise StorageError as `Database` says.

    Args:
        url: of the database. gateway: names this process among those that share it; None: anything new.

    Raises:
        ConfigurationError: it cannot be opened.
    """

    def __init__(self, url: str, gateway: str | None = None) -> None:
        self._database = open_database(url, "")
        self._gateway = gateway or secrets.token_hex(8)

    def clock(self) -> float:
        """Unix seconds, by the clock of the server."""
        return self._database.clock()

    # --- limits per minute ---

    def take(self, name: str, limit: int, amount: float, given_back: float = 0.0) -> tuple[bool, float]:
        """Take `amount` of a bucket that refills with `limit` a minute and holds as much, if it is there; one that was never seen is full.

        Args:
            given_back: put in before; a negative one was spent beyond what was taken, and is owed.

        Returns:
            Whether it was taken, and what is left; negative: what is owed.
        """
        statement = (
            "INSERT INTO buckets (name, level, at, taken) "
            f"VALUES (?, least(?::float8, ?::float8 + ?::float8) - ?::float8, {_NOW}, true) "
            f"ON CONFLICT (name) DO UPDATE SET at = greatest(buckets.at, {_NOW}), taken = {_REFILLED} >= ?::float8, "
            f"level = {_REFILLED} - CASE WHEN {_REFILLED} >= ?::float8 THEN ?::float8 ELSE 0 END RETURNING taken, level"
        )
        refill = (limit, given_back, limit)
        with self._database.connected() as connection:
            taken, level = connection.execute(
                statement,
                (name, limit, limit, given_back, amount, *refill, amount, *refill, *refill, amount, amount),
            ).fetchone()
        return taken, level

    # --- budgets ---

    def reserve(self, id: str, key: str, much: Used, days: tuple[str, str], check: Callable[[Used, Used, Used], None]) -> None:
        """Hold back what a request of a key will need.

        Args:
            id: of the reservation. much: tokens and cost. days: today, and the first of this month. check: is given what was used today
                and in this month, and what all running requests of the key have reserved, with nobody reserving meanwhile; raises
                where the request must not begin, and then nothing is reserved.
        """
        today, first = days
        with self._database.writing(f"budget/{key}") as connection:
            # One statement, so one moment: a request is either reserved or used in it.
            row = connection.execute(
                "SELECT u.*, r.* FROM (SELECT coalesce(sum(prompt_tokens + output_tokens) FILTER (WHERE day = ?), 0)::bigint, "
                "coalesce(sum(cost) FILTER (WHERE day = ?), 0), coalesce(sum(prompt_tokens + output_tokens), 0)::bigint, "
                "coalesce(sum(cost), 0) FROM usage WHERE key = ? AND day >= ?) u, "
                "(SELECT coalesce(sum(tokens), 0)::bigint, coalesce(sum(cost), 0) FROM reservations WHERE key = ? AND until > ?) r",
                (today, today, key, first, key, self.clock()),
            ).fetchone()
            check(*(Used(prompt_tokens=tokens, cost=cost) for tokens, cost in zip(row[::2], row[1::2], strict=True)))
            connection.execute(
                "INSERT INTO reservations VALUES (?, ?, ?, ?, ?, ?)",
                (id, key, self._gateway, much.tokens, much.cost, self.clock() + HOLD_S),
            )

    def settle(
        self, used: Mapping[UsedFor, Used], ended: Iterable[str], given_back: Sequence[tuple[str, int, float]], *, renew: bool
    ) -> None:
        """Count what was used, free what ended requests had reserved, and give back to buckets: all of it, or, where that fails, nothing.

        Args:
            ended: ids of reservations. given_back: name, limit and amount. renew: the reservations of this gateway count for `HOLD_S` more.
        """
        with self._database.writing(f"settle/{self._gateway}") as connection:
            if used:
                add_usage(connection, used)
            ids = sorted(ended)
            if ids:
                connection.execute("DELETE FROM reservations WHERE id = ANY(?)", (ids,))
            for name, limit, amount in sorted(given_back):
                connection.execute(
                    f"UPDATE buckets SET at = greatest(at, {_NOW}), level = {_REFILLED} WHERE name = ?", (limit, amount, limit, name)
                )
            if renew:
                now = self.clock()
                connection.execute("UPDATE reservations SET until = ? WHERE gateway = ?", (now + HOLD_S, self._gateway))

    def forget(self) -> None:
        """Remove what counts for nothing any more."""
        now = self.clock()
        with self._database.connected() as connection:
            connection.execute("DELETE FROM reservations WHERE until < ?", (now - HOLD_S,))
            connection.execute("DELETE FROM buckets WHERE at < ?", (now - FORGET_S,))

    def close(self) -> None:
        """Idempotent."""
        self._database.close()
