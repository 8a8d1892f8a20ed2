"""What holds of every store: writes survive a restart, threads and processes share it, and what fails is typed and whole."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mm_gateway.configuration.api_key import ApiKey, digest_of
from mm_gateway.errors import ConfigurationError, StorageError
from mm_gateway.storage import sqlite
from mm_gateway.storage.database import Place
from mm_gateway.storage.key_store import KeyStore
from mm_gateway.storage.record_store import RecordStore
from mm_gateway.storage.usage_store import UsageStore, Used, UsedFor


@dataclass(frozen=True)
class Kind:
    """A store. write: something that is called by a number. count: how much was written."""

    open: Callable[[Place], Any]
    write: Callable[[Any, int], object]
    count: Callable[[Any], int]


KINDS = {
    "records": Kind(
        lambda place: RecordStore(place, "x", max_records=1000),
        lambda store, n: store.put(str(n), b"x" * 10_000),
        lambda store: sum(store.get(str(n)) is not None for n in range(100)),
    ),
    "keys": Kind(
        KeyStore,
        lambda store, n: store.add(ApiKey(digest=digest_of(str(n)), name=f"{n}{'x' * 10_000}")),
        lambda store: len(store.all()),
    ),
    "usage": Kind(
        UsageStore,
        lambda store, n: store.add({UsedFor(f"{n}{'x' * 10_000}", "2026-11-29", "m", "/e"): Used(requests=1)}),
        lambda store: sum(row.requests for row in store.report([])),
    ),
}


@pytest.fixture(params=KINDS.values(), ids=list(KINDS))
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


def test_what_was_written_survives_a_restart_and_others_see_it(kind: Kind, place: Place) -> None:
    store, other = kind.open(place), kind.open(place)
    kind.write(store, 1)
    assert kind.count(other) == 1
    for opened in (store, store, other):
        opened.close()
    again = kind.open(place)
    assert kind.count(again) == 1
    again.close()


def test_many_threads_write_at_once(kind: Kind, place: Place) -> None:
    stores = [kind.open(place) for _ in range(2)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: kind.write(stores[n % 2], n), range(40)))
    assert kind.count(stores[0]) == 40
    for store in stores:
        store.close()


def test_what_another_process_holds_is_waited_for_and_then_an_error(kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "WAIT_S", 0.1)
    store = kind.open(tmp_path / "store.sqlite")
    with closing(sqlite3.connect(tmp_path / "store.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StorageError, match="another process holds its lock"):
            kind.write(store, 1)
    kind.write(store, 2)
    assert kind.count(store) == 1


def test_a_full_disk_changes_nothing(kind: Kind, tmp_path: Path) -> None:
    store = kind.open(tmp_path / "store.sqlite")
    kind.write(store, 0)
    connection = store._database._connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")  # what a disk without room makes of a write
    with pytest.raises(StorageError, match="full"):
        for n in range(1, 10):
            kind.write(store, n)
    before = kind.count(store)
    connection.execute(f"PRAGMA max_page_count = {2**20}")
    kind.write(store, 50)
    assert kind.count(store) == before + 1


@pytest.mark.parametrize("replaced", [False, True])
def test_nothing_is_written_to_a_file_that_is_gone(kind: Kind, tmp_path: Path, replaced: bool) -> None:
    store = kind.open(tmp_path / "store.sqlite")
    kind.write(store, 0)
    (tmp_path / "store.sqlite").rename(tmp_path / "elsewhere")
    if replaced:
        (tmp_path / "store.sqlite").touch()
    with pytest.raises(StorageError, match=r"store.sqlite was deleted or replaced while it was open.*Restart the gateway"):
        kind.write(store, 1)
    (tmp_path / "elsewhere").rename(tmp_path / "store.sqlite")
    kind.write(store, 2)
    assert kind.count(store) == 2
    store.close()


def test_a_disk_without_room_for_the_file_itself_is_one_that_may_have_room_later(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(sqlite3.Connection):
        def executescript(self, sql_script: str) -> sqlite3.Cursor:
            self.execute("PRAGMA max_page_count = 1")
            return super().executescript(sql_script)

    with monkeypatch.context() as context:
        context.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Full))
        with pytest.raises(StorageError, match="full"):
            kind.open(tmp_path / "store.sqlite")
    kind.open(tmp_path / "store.sqlite").close()


def test_what_is_no_database_is_named(kind: Kind, tmp_path: Path) -> None:
    (tmp_path / "store.sqlite").write_text("no database " * 100)
    with pytest.raises(ConfigurationError, match=r"storage.folder: .*store.sqlite cannot be used"):
        kind.open(tmp_path / "store.sqlite")
