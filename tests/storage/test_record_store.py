"""Records survive a restart, and go when they are old or too many."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from mm_gateway.errors import ConfigurationError, StorageError
from mm_gateway.storage import shared_store, sqlite
from mm_gateway.storage.database import Place
from mm_gateway.storage.record_store import RecordStore
from mm_gateway.storage.shared_store import SharedStore


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """As another process does that writes for long."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "WAIT_S", 0.2)
    monkeypatch.setattr(shared_store, "WAIT_S", 0.2)


def test_a_record_survives_a_restart(place: Place) -> None:
    store = RecordStore(place, "session", max_records=10)
    store.put("../a b", b"one")
    store.put("../a b", b"two")
    store.close()
    store.close()
    again = RecordStore(place, "session", max_records=10)
    assert again.get("../a b") == b"two"
    assert RecordStore(place, "response", max_records=10).get("../a b") is None
    assert again.delete("../a b") and not again.delete("../a b")
    assert again.get("../a b") is None


def test_old_records_and_surplus_ones_go(place: Place) -> None:
    now = 1000.0
    store = RecordStore(place, "x", max_records=2, ttl_s=60, clock=lambda: now)
    for key in ("a", "b", "c"):
        now += 1
        store.put(key, key.encode())
    assert [store.get(key) for key in ("a", "b", "c")] == [None, b"b", b"c"]
    now += 59.5  # b is 60.5 seconds old, c 59.5
    assert [store.get(key) for key in ("b", "c")] == [None, b"c"]
    store.put("d", b"d")
    with store._database.connected() as connection:
        assert connection.execute("SELECT count(*) FROM records").fetchone() == (2,)  # b is gone, and not only hidden


def test_a_large_store_looks_for_surplus_ones_after_each_hundredth(place: Place) -> None:
    now = 0.0
    store = RecordStore(place, "x", max_records=200, clock=lambda: now)
    most = 0
    for number in range(260):
        now += 1
        store.put(str(number), b"x")
        if number % 7 == 0:
            with store._database.connected() as connection:
                most = max(most, *connection.execute("SELECT count(*) FROM records").fetchone())
    assert 200 <= most <= 202
    assert store.get("259") and not store.get("3")


def test_changes_of_one_record_at_once_are_made_one_after_the_other(place: Place) -> None:
    stores = [RecordStore(place, "x", max_records=10) for _ in range(2)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda n: stores[n % 2].update("a", lambda known: (known or b"") + b"x"), range(40)))
    assert stores[0].get("a") == b"x" * 40


def test_many_threads_share_a_store(place: Place) -> None:
    store = RecordStore(place, "x", max_records=1000)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: store.put(str(number), str(number).encode()), range(200)))
    assert all(store.get(str(number)) == str(number).encode() for number in range(200))


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    path.write_text("not a database, but long enough to be taken for the header of one" * 10)
    with pytest.raises(ConfigurationError, match=r"store\.sqlite"):
        RecordStore(path, "x", max_records=1)


def test_a_lock_of_another_process_is_waited_for_within_a_bound(tmp_path: Path, impatient: None) -> None:
    path = tmp_path / "store.sqlite"
    store = RecordStore(path, "x", max_records=10)
    store.put("a", b"1")
    with locked(path):
        with pytest.raises(StorageError, match="another process holds its lock") as caught:
            store.put("a", b"2")
        assert caught.value.retry_after_s > 0
        assert store.get("a") == b"1"
    store.put("a", b"3")
    assert store.get("a") == b"3"


def test_a_store_that_cannot_be_opened_now_is_no_mistake_of_the_configuration(tmp_path: Path, impatient: None) -> None:
    path = tmp_path / "store.sqlite"
    with locked(path), pytest.raises(StorageError, match="lock"):
        RecordStore(path, "x", max_records=10)


async def test_requests_that_wait_for_a_lock_give_up_together_and_not_one_after_the_other(tmp_path: Path, impatient: None) -> None:
    path = tmp_path / "store.sqlite"
    store = SharedStore(lambda: RecordStore(path, "x", max_records=10))
    await store.run(lambda records: records.put("a", b"1"))
    with locked(path):
        async with asyncio.timeout(10):  # two threads, so one after the other would take 20 s
            calls = [store.run(lambda records: records.put("a", b"2")) for _ in range(200)]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(outcome, StorageError) for outcome in outcomes)
    assert await store.run(lambda records: records.get("a")) == b"1"
    store.close()


def test_a_full_disk_is_said_and_logged_and_nothing_is_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = RecordStore(tmp_path / "store.sqlite", "x", max_records=1000)
    store.put("a", b"1")
    assert isinstance(store._database, sqlite.SqliteDatabase)
    connection = store._database._connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + 4}")  # what a disk without room makes of a write
    with caplog.at_level(logging.ERROR), pytest.raises(StorageError, match="database or disk is full"):
        store.put("b", b"x" * 2**20)
    assert "disk is full" in caplog.text
    connection.execute(f"PRAGMA max_page_count = {2**20}")
    store.put("c", b"3")
    assert [store.get(key) for key in "abc"] == [b"1", None, b"3"]


def test_a_change_that_fails_leaves_the_record_as_it_was(place: Place) -> None:
    store = RecordStore(place, "x", max_records=10)
    store.put("a", b"1")
    with pytest.raises(ZeroDivisionError):
        store.update("a", lambda _: bytes(1 // 0))
    store.put("b", b"2")
    assert [store.get(key) for key in "ab"] == [b"1", b"2"]
