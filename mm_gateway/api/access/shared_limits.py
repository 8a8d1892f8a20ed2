"""Limits per minute and budgets of keys where several gateways share a database: what all of them together take and use.

Each request of a key with a limit or a budget asks the database before it begins. What requests give back at their end waits for the
next write of usage, a second at most.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Mapping

from mm_gateway.api.observation.record import RequestRecord
from mm_gateway.errors import ConfigurationError, StorageError
from mm_gateway.storage.limit_store import RENEW_S, LimitStore
from mm_gateway.storage.shared_store import SharedStore
from mm_gateway.storage.usage_store import Used, UsedFor
from mm_gateway.token_bucket import TokenBucket

logger = logging.getLogger(__name__)


class SharedLimits:
    """Belongs to one event loop.

    Args:
        url: of the database.

    Attributes:
        ahead_s: seconds that the database's clock is ahead of this machine's; days are those of the database.
    """

    def __init__(self, url: str) -> None:
        gateway = secrets.token_hex(8)
        self._store = SharedStore(lambda: LimitStore(url, gateway))
        self._given_back: dict[str, tuple[int, float]] = {}
        """By bucket: its limit and the amount."""
        self._held: dict[RequestRecord, str] = {}
        """Ids of reservations, of requests that run."""
        self._ended: list[str] = []
        self._renew_at = 0.0
        self._failing = False
        self.ahead_s = 0.0

    # --- limits per minute ---

    async def take(self, name: str, bucket: TokenBucket, amount: int, now: float) -> float:
        """As `TokenBucket.take`, of the bucket that all gateways share; while the database cannot be asked, of this one's own."""
        limit, given = bucket.per_minute, self._given_back.pop(name, (0, 0.0))[1]
        try:
            taken, level = await self._store.run(lambda store: store.take(name, limit, amount, given))
        except (StorageError, ConfigurationError) as error:
            self._give_back(name, limit, given)
            if not self._failing:
                logger.error("limits per minute are held by each gateway for itself now: %s", error)
            self._failing = True
            return bucket.take(amount, now)
        self._failing = False
        bucket.learn(level, now)
        return 0.0 if taken else bucket.wait_s(amount, now)

    def correct(self, name: str, bucket: TokenBucket, amount: int) -> None:
        """As `TokenBucket.correct`: with the next that is taken, or with the next write of usage."""
        self._give_back(name, bucket.per_minute, amount)

    # --- budgets ---

    async def reserve(
        self, key: str, record: RequestRecord, much: Used, days: tuple[str, str], check: Callable[[Used, Used, Used], None]
    ) -> None:
        """Hold back what a request of a key will need; arguments and errors as for `LimitStore.reserve`."""
        id = self._held[record] = secrets.token_hex(12)
        try:
            await self._store.run(lambda store: store.reserve(id, key, much, days, check))
        except Exception:
            # Where the answer was lost it may be reserved all the same.
            self.finished(record)
            raise

    def finished(self, record: RequestRecord) -> None:
        """A request has ended: what it had reserved is free when its usage is written."""
        if (id := self._held.pop(record, None)) is not None:
            self._ended.append(id)

    async def settle(self, used: Mapping[UsedFor, Used]) -> None:
        """Write what was used, and give back what ended requests had taken beyond it, as one.

        Raises:
            StorageError, ConfigurationError: it cannot be written; all of it counts the next time.
        """
        ended, self._ended = self._ended, []
        given_back, self._given_back = self._given_back, {}
        renew = time.monotonic() >= self._renew_at
        if not (used or ended or given_back or (renew and self._held)):
            return
        buckets = [(name, limit, amount) for name, (limit, amount) in given_back.items()]
        try:
            self.ahead_s = await self._store.run(lambda store: _settle(store, used, ended, buckets, renew=renew))
        except BaseException:
            self._ended += ended
            for name, limit, amount in buckets:
                self._give_back(name, limit, amount)
            raise
        if renew:
            self._renew_at = time.monotonic() + RENEW_S

    async def forget(self) -> None:
        """Remove what counts for nothing any more; errors as for `settle`."""
        await self._store.run(LimitStore.forget)

    def close(self) -> None:
        """Idempotent."""
        self._store.close()

    def _give_back(self, name: str, limit: int, amount: float) -> None:
        if amount:
            self._given_back[name] = (limit, self._given_back.get(name, (0, 0.0))[1] + amount)


def _settle(
    store: LimitStore, used: Mapping[UsedFor, Used], ended: list[str], given_back: list[tuple[str, int, float]], *, renew: bool
) -> float:
    store.settle(used, ended, given_back, renew=renew)
    return store.clock() - time.time()
