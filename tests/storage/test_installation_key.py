"""The key of an installation outlives a restart, is nobody else's to read, and another one for each purpose."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mm_gateway.errors import StorageError
from mm_gateway.storage.installation_key import installation_key


def test_a_key_stays_and_each_purpose_has_its_own(tmp_path: Path) -> None:
    path = tmp_path / "data" / "installation.key"
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: installation_key(path, "a"), range(32)))
    assert len(keys) == 1 and len(next(iter(keys))) == 32
    assert installation_key(path, "b") not in keys
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert installation_key(tmp_path / "other.key", "a") not in keys


def test_gateways_over_one_database_have_the_same_key(database_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        keys = set(pool.map(lambda _: installation_key(database_url, "a"), range(8)))
    assert len(keys) == 1 and len(next(iter(keys))) == 32
    assert installation_key(database_url, "b") not in keys


def test_a_file_that_is_no_key_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"x")
    with pytest.raises(StorageError, match="Remove it"):
        installation_key(tmp_path / "short", "a")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="cannot be read"):
        installation_key(tmp_path / "folder", "a")
