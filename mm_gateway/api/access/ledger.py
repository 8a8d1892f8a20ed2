"""What each key has used: counted as requests end, written in batches, and held against its budgets as requests begin.

A request begins while what its key has used, and what its running requests have reserved (the size of their prompts, and what they may
generate where they say it), is below each budget. So a budget is exceeded by no more than what running requests take beyond that. Where
gateways share a database they hold budgets together in it (`shared_limits.py`); else those that share a folder learn within a second
what the others have written.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

from mm_gateway.api.access.quota import hold_all
from mm_gateway.api.access.shared_limits import SharedLimits
from mm_gateway.api.observation.record import RequestRecord
from mm_gateway.configuration.api_key import ApiKey
from mm_gateway.configuration.price import Price
from mm_gateway.configuration.settings import StorageSettings
from mm_gateway.errors import ConfigurationError, StorageError
from mm_gateway.storage.shared_store import SharedStore
from mm_gateway.storage.usage_store import USAGE_FILE, Dimension, UsageRow, UsageStore, Used, UsedFor

WRITE_S = 1.0
"""Between two writes; what a process that is killed may lose. One that is told to end writes everything."""
SHARED_WRITE_S = 0.2
"""The same where gateways share a database: what requests had reserved is not free before, and others may wait for it."""

logger = logging.getLogger(__name__)

_Batch = dict[str, dict[UsedFor, Used]]
"""By key."""


@dataclass
class _Reserved:
    """What running requests of a key hold, and its sum, so that many of them cost the next one nothing."""

    by_request: dict[RequestRecord, Used] = field(default_factory=dict[RequestRecord, Used])
    tokens: int = 0
    cost: float = 0.0

    def take(self, record: RequestRecord, much: Used) -> None:
        self.by_request[record] = much
        self.tokens, self.cost = self.tokens + much.tokens, self.cost + much.cost

    def give_back(self, record: RequestRecord) -> None:
        if (much := self.by_request.pop(record, None)) is not None:
            self.tokens, self.cost = self.tokens - much.tokens, self.cost - much.cost


class Ledger:
    """An observer of requests. Belongs to one event loop.

    Args:
        settings: where it is written, and for how long it is kept. clock: Unix seconds. shared: holds budgets with other gateways.
    """

    def __init__(self, settings: StorageSettings, clock: Callable[[], float] = time.time, shared: SharedLimits | None = None) -> None:
        self._store = SharedStore(lambda: UsageStore(settings.place(USAGE_FILE)))
        self._shared = shared
        self._keep_days = settings.usage_days
        self._clock = clock
        self._pending: _Batch = {}
        self._writing: _Batch = {}
        self._written: dict[str, dict[str, Used]] = {}
        """Of keys with a budget: by day, as it is stored."""
        self._version: int | None = None
        """Of the store, when that was read: thousands of keys are read anew only where somebody else has written."""
        self._reserved: dict[str, _Reserved] = {}
        """Of keys with a budget."""
        self._one_at_a_time = asyncio.Lock()
        self._ending = asyncio.Event()
        self._cleaned = ""
        self._failing = False

    # --- budgets ---

    async def prepare(self, keys: Iterable[ApiKey]) -> None:
        """Learn what keys with a budget have used, before they open.

        Raises:
            StorageError, ConfigurationError: that cannot be read.
        """
        names = {key.principal for key in keys if key.has_budget}
        if names and self._shared is None:
            async with self._one_at_a_time:
                await self._learn(names | self._written.keys())

    async def admit(self, key: ApiKey, record: RequestRecord, output_tokens: int) -> None:
        """As `reserve`, together with the gateways that share the database.

        Raises:
            StorageError, ConfigurationError: what they have used cannot be known now.
        """
        if self._shared is None:
            self.reserve(key, record, output_tokens)
        elif key.has_budget:
            now = datetime.fromtimestamp(self._now(), UTC)
            much = _used(record.prompt_guess, 0, output_tokens, record.price)
            days = (f"{now:%Y-%m-%d}", f"{now:%Y-%m}-01")
            await self._shared.reserve(key.principal, record, much, days, partial(hold_all, key, now))

    def reserve(self, key: ApiKey, record: RequestRecord, output_tokens: int) -> None:
        """Let a request of a key begin, and hold back what it will need. output_tokens: as for `Ticket.begin`.

        Raises:
            QuotaExceededError: a budget is used up, or will be by the requests that run.
        """
        if not key.has_budget:
            return
        now = datetime.fromtimestamp(self._now(), UTC)
        name, day = key.principal, _day(now.timestamp())
        today, this_month = Used(), Used()
        for of_day, much in self._used(name):
            if of_day == day:
                today.add(much)
            if of_day[:7] == day[:7]:
                this_month.add(much)
        reserved = self._reserved.get(name) or _Reserved()
        hold_all(key, now, today, this_month, Used(prompt_tokens=reserved.tokens, cost=reserved.cost))
        reserved.take(record, _used(record.prompt_guess, 0, output_tokens, record.price))
        self._reserved[name] = reserved

    def finished(self, record: RequestRecord) -> None:
        """Count a request, and give back what it had reserved."""
        if (reserved := self._reserved.get(record.key)) is not None:
            reserved.give_back(record)
            if not reserved.by_request:
                del self._reserved[record.key]  # and with it what adding and subtracting money leaves of roundings
        if self._shared is not None:
            self._shared.finished(record)
        if record.begun is None:
            return
        what = UsedFor(record.key, _day(record.arrived_at + self._ahead_s), record.model, record.endpoint)
        self._pending.setdefault(record.key, {}).setdefault(what, Used()).add(used_by(record))

    # --- storage ---

    async def keep(self) -> None:
        """Write from time to time, until `close`."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), WRITE_S if self._shared is None else SHARED_WRITE_S)
                return
            try:
                await self.write()
            except Exception:
                logger.exception("usage could not be written, and is tried again")

    async def write(self) -> None:
        """Write what is not written yet, and see what others have written. What fails is logged, and tried again the next time."""
        async with self._one_at_a_time:
            batch, self._pending = self._pending, {}
            self._writing = batch
            try:
                await self._write(batch)
                self._writing = {}
                if self._written and await self._store.run(UsageStore.version) != self._version:
                    await self._learn(self._written.keys())
                if batch:
                    await self._clean()
                self._failing = False
            except (StorageError, ConfigurationError) as error:
                for what, much in _rows(self._writing):
                    self._pending.setdefault(what.key, {}).setdefault(what, Used()).add(much)
                if not self._failing:
                    logger.error("usage cannot be written now, and is kept in memory: %s", error)
                self._failing = True
            finally:
                self._writing = {}

    async def report(
        self,
        group_by: Sequence[Dimension],
        *,
        start: str | None = None,
        end: str | None = None,
        key: str | None = None,
        model: str | None = None,
        endpoint: str | None = None,
    ) -> list[UsageRow]:
        """As `UsageStore.report`, requests that ended just now included.

        Raises:
            StorageError, ConfigurationError: it cannot be read.
        """
        await asyncio.shield(self.write())  # one who asks and hangs up takes nothing with him
        return await self._store.run(lambda store: store.report(group_by, start=start, end=end, key=key, model=model, endpoint=endpoint))

    async def close(self) -> None:
        """Write what is left, and close the file; idempotent."""
        self._ending.set()
        await self.write()
        if self._pending:
            logger.error("usage of %d keys could not be written and is lost", len(self._pending))
        self._store.close()
        if self._shared is not None:
            self._shared.close()

    async def _write(self, batch: _Batch) -> None:
        """All at once; where that fails for another reason than the storage, row by row, so that what is at fault is lost alone."""
        try:
            await self._add(dict(_rows(batch)))
            self._now_written(batch)
        except (StorageError, ConfigurationError):
            raise
        except Exception:
            logger.exception("usage could not be written at once, so each row is tried by itself")
            for what, much in list(_rows(batch)):
                try:
                    await self._add({what: much})
                    self._now_written({what.key: {what: much}})
                except (StorageError, ConfigurationError):
                    raise
                except Exception:
                    logger.exception("usage is lost, since it cannot be written: %r of %r", much, what)
                del batch[what.key][what]

    async def _add(self, used: dict[UsedFor, Used]) -> None:
        if self._shared is not None:
            await self._shared.settle(used)
        elif used:
            await self._store.run(lambda store: store.add(used))

    @property
    def _ahead_s(self) -> float:
        return self._shared.ahead_s if self._shared is not None else 0.0

    def _now(self) -> float:
        return self._clock() + self._ahead_s

    async def _learn(self, names: Iterable[str]) -> None:
        since = datetime.fromtimestamp(self._now(), UTC).strftime("%Y-%m-01")
        # The version first: what is written in between is seen the next time.
        self._version, self._written = await self._store.run(lambda store: (store.version(), store.by_day(list(names), since)))

    async def _clean(self) -> None:
        today = _day(self._now())
        if today != self._cleaned:
            await self._store.run(lambda store: store.delete_older(self._keep_days, today))
            if self._shared is not None:
                await self._shared.forget()
            self._cleaned = today

    def _now_written(self, batch: _Batch) -> None:
        for what, much in _rows(batch):
            if (days := self._written.get(what.key)) is not None:
                days.setdefault(what.day, Used()).add(much)

    def _used(self, name: str) -> Iterator[tuple[str, Used]]:
        """What a key has used, by day, written and not."""
        yield from self._written.get(name, {}).items()
        for batch in (self._writing, self._pending):
            for what, much in batch.get(name, {}).items():
                yield what.day, much


def _day(time_s: float) -> str:
    """The day of a Unix time."""
    return _name_of_day(int(time_s // 86400))


@functools.lru_cache(maxsize=8)
def _name_of_day(number: int) -> str:
    return datetime.fromtimestamp(number * 86400, UTC).strftime("%Y-%m-%d")


def used_by(record: RequestRecord) -> Used:
    """What a request is counted as. Of one that was broken off before its model told the size of its prompt, that is estimated by its body;
    one that failed before anything came of it costs nothing.
    """
    if record.usage is None and record.error is not None and not record.pieces:
        return Used(requests=1)
    usage = record.usage
    cached, reasoning = (usage.cached_tokens, usage.reasoning_tokens) if usage is not None else (0, 0)
    used = _used(record.prompt_tokens or record.prompt_guess, cached, record.output_tokens, record.price_paid)
    used.requests, used.reasoning_tokens = 1, reasoning
    return used


def _used(prompt_tokens: int, cached_tokens: int, output_tokens: int, price: Price | None) -> Used:
    cost = price.cost(prompt_tokens, cached_tokens, output_tokens) if price is not None else 0.0
    return Used(prompt_tokens=prompt_tokens, cached_tokens=cached_tokens, output_tokens=output_tokens, cost=cost)


def _rows(batch: _Batch) -> Iterator[tuple[UsedFor, Used]]:
    return ((what, much) for used in batch.values() for what, much in used.items())
