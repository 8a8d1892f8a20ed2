"""Records survive a restart, and go when they are old or too many."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mm_gateway.errors import ConfigurationError
from mm_gateway.storage.record_store import RecordStore


def test_a_record_survives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "store.sqlite"
    store = RecordStore(path, "session", max_records=10)
    store.put("../a b", b"one")
    store.put("../a b", b"two")
    store.close()
    store.close()
    again = RecordStore(path, "session", max_records=10)
    assert again.get("../a b") == b"two"
    assert RecordStore(path, "response", max_records=10).get("../a b") is None
    assert again.delete("../a b") and not again.delete("../a b")
    assert again.get("../a b") is None


def test_old_records_and_surplus_ones_go() -> None:
    now = 1000.0
    store = RecordStore(None, "x", max_records=2, ttl_s=60, clock=lambda: now)
    for key in ("a", "b", "c"):
        now += 1
        store.put(key, key.encode())
    assert [store.get(key) for key in ("a", "b", "c")] == [None, b"b", b"c"]
    now += 59.5  # b is 60.5 seconds old, c 59.5
    assert [store.get(key) for key in ("b", "c")] == [None, b"c"]


def test_many_threads_share_a_store(tmp_path: Path) -> None:
    store = RecordStore(tmp_path / "store.sqlite", "x", max_records=1000)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: store.put(str(number), str(number).encode()), range(200)))
    assert all(store.get(str(number)) == str(number).encode() for number in range(200))


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    path.write_text("not a database, but long enough to be taken for the header of one" * 10)
    with pytest.raises(ConfigurationError, match=r"store\.sqlite"):
        RecordStore(path, "x", max_records=1)
