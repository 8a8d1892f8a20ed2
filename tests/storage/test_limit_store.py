"""Buckets and reservations that gateways share: what all of them together take is bounded, and a killed one's reservations run out."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from mm_gateway.storage import limit_store
from mm_gateway.storage.limit_store import LimitStore
from mm_gateway.storage.usage_store import UsageStore, Used, UsedFor

DAYS = ("2026-11-29", "2026-11-01")


class FullError(Exception):
    pass


def below(most: int) -> Callable[[Used, Used, Used], None]:
    def check(today: Used, month: Used, reserved: Used) -> None:
        assert month.tokens >= today.tokens
        if today.tokens + reserved.tokens >= most:
            raise FullError

    return check


@pytest.fixture
def stores(database_url: str) -> list[LimitStore]:
    return [LimitStore(f"{database_url}-{number}") for number in range(3)]


def test_gateways_take_from_one_bucket(stores: list[LimitStore]) -> None:
    began = time.monotonic()
    with ThreadPoolExecutor(6) as pool:
        outcomes = list(pool.map(lambda n: stores[n % 3].take("requests/a", 60, 1), range(180)))
    refilled = (time.monotonic() - began) * 1.0
    taken = sum(took for took, _ in outcomes)
    assert 60 <= taken <= 60 + refilled + 1
    assert all((level >= 0) for _, level in outcomes)
    for store in stores:
        store.close()


def test_what_is_given_back_can_be_taken_and_what_is_owed_cannot(stores: list[LimitStore]) -> None:
    one, other, _ = stores
    assert one.take("tokens/a", 600, 500)[0]
    assert not other.take("tokens/a", 600, 500)[0]
    took, level = other.take("tokens/a", 600, 500, 450)
    assert took and 50 <= level < 100
    one.settle({}, [], [("tokens/a", 600, -300.0)], renew=False)
    took, level = other.take("tokens/a", 600, 1)
    assert not took and level < -100
    assert other.take("tokens/b", 600, 600, 50)[0]  # never more than the limit
    assert not other.take("tokens/b", 600, 60)[0]
    for store in stores:
        store.close()


def test_requests_at_once_do_not_pass_a_budget_together(stores: list[LimitStore], database_url: str) -> None:
    def begin(n: int) -> str | None:
        try:
            stores[n % 3].reserve(f"id{n}", "alice", Used(output_tokens=10), DAYS, below(95))
        except FullError:
            return None
        return f"id{n}"

    with ThreadPoolExecutor(6) as pool:
        begun = [id for id in pool.map(begin, range(40)) if id is not None]
    assert len(begun) == 10  # the tenth fills it
    # Counted and freed as one: the sum never falls in between.
    stores[0].settle({UsedFor("alice", DAYS[0], "m", "/e"): Used(output_tokens=100)}, begun, [], renew=True)
    with pytest.raises(FullError):
        stores[1].reserve("late", "alice", Used(output_tokens=1), DAYS, below(95))
    stores[1].reserve("late", "bob", Used(output_tokens=1), DAYS, below(95))
    usage = UsageStore(database_url)
    assert [row.tokens for row in usage.report(["key"])] == [100]
    usage.close()
    for store in stores:
        store.close()


def test_what_a_killed_gateway_had_reserved_is_free_after_a_while(stores: list[LimitStore], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit_store, "HOLD_S", 0.6)
    killed, alive, _ = stores
    killed.reserve("a", "k", Used(output_tokens=50), DAYS, below(100))
    alive.reserve("b", "k", Used(output_tokens=50), DAYS, below(100))
    with pytest.raises(FullError):
        alive.reserve("c", "k", Used(output_tokens=50), DAYS, below(100))
    deadline = time.monotonic() + 20
    while True:
        alive.settle({}, [], [], renew=True)
        try:
            alive.reserve("c", "k", Used(output_tokens=50), DAYS, below(100))
            break
        except FullError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    with pytest.raises(FullError):
        alive.reserve("d", "k", Used(output_tokens=50), DAYS, below(100))
    for store in stores:
        store.close()
