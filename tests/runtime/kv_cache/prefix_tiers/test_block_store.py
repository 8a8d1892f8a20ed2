"""Blocks in memory and in files: who goes when there is no room, and what is made of files that are not what they seem."""

from __future__ import annotations

import logging
import os
import random
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mm_gateway.runtime.kv_cache.prefix_tiers.block_folder import BlockFolder
from mm_gateway.runtime.kv_cache.prefix_tiers.block_keys import BLOCK_TOKENS, KEY_BYTES, block_keys
from mm_gateway.runtime.kv_cache.prefix_tiers.block_store import PrefixStore

SIZE = 1000


def key(number: int) -> bytes:
    return number.to_bytes(KEY_BYTES, "big")


def block(number: int) -> memoryview:
    return memoryview(random.Random(number).randbytes(SIZE))


def get(store: PrefixStore, number: int) -> memoryview | None:
    return store.get(key(number), memoryview(bytearray(SIZE)))


def written(store: PrefixStore) -> None:
    """Wait until everything is in its file."""
    store.room_bytes(timeout_s=10, at_least=store.memory_bytes)


def test_a_name_says_model_angles_and_every_token_before() -> None:
    tokens = list(range(3 * BLOCK_TOKENS + 5))
    names = list(block_keys(b"model", tokens, 0, len(tokens)))
    assert len(names) == 3
    assert names[:2] == list(block_keys(b"model", tokens, 0, 3 * BLOCK_TOKENS - 1))
    others = [
        list(block_keys(b"other", tokens, 0, len(tokens))),
        list(block_keys(b"model", tokens, 1, len(tokens))),
        list(block_keys(b"model", [7, *tokens[1:]], 0, len(tokens))),
    ]
    assert len({name for each in (names, *others) for name in each}) == 12
    later = list(block_keys(b"model", [*tokens[:BLOCK_TOKENS], 7, *tokens[BLOCK_TOKENS + 1 :]], 0, len(tokens)))
    assert [a == b for a, b in zip(names, later, strict=True)] == [True, False, False]


def test_memory_keeps_what_was_used_last_and_never_more_than_its_bytes() -> None:
    store = PrefixStore(3 * SIZE)
    for number in (1, 2, 3):
        assert store.put(key(number), block(number))
    store.touch([key(1)])
    assert store.put(key(4), block(4))
    assert [number for number in range(1, 5) if key(number) in store] == [1, 3, 4]
    assert get(store, 1) == block(1)
    assert get(store, 2) is None
    assert not PrefixStore(SIZE - 1).put(key(1), block(1))


def test_the_beginning_of_a_prefix_goes_last() -> None:
    store = PrefixStore(3 * SIZE)
    for number in (1, 2, 3):
        store.put(key(number), block(number))
    store.touch([key(1), key(2), key(3)])
    store.put(key(9), block(9))
    assert [number for number in (1, 2, 3) if key(number) in store] == [1, 2]


def test_a_restart_finds_what_was_written_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "here"
    store = PrefixStore(10 * SIZE, BlockFolder(folder, 10**6))
    for number in range(5):
        store.put(key(number), block(number))
    store.close()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}
    again = PrefixStore(10 * SIZE, BlockFolder(folder, 10**6))
    assert [get(again, number) for number in range(6)] == [*map(block, range(5)), None]
    again.close()


def test_files_used_longest_ago_go(tmp_path: Path) -> None:
    store = PrefixStore(2 * SIZE, BlockFolder(tmp_path, 4 * (SIZE + 100)))
    for number in range(4):
        store.put(key(number), block(number))
        written(store)
    assert get(store, 0) == block(0)
    store.touch([key(0)])
    for number in (4, 5):
        store.put(key(number), block(number))
        written(store)
    assert [number for number in range(6) if key(number) in BlockFolder(tmp_path, 10**6)] == [0, 3, 4, 5]
    store.close()


def test_what_waits_to_be_written_takes_no_more_memory_than_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_write, write = threading.Event(), BlockFolder.write

    def slow(self: BlockFolder, name: bytes, data: memoryview) -> None:
        may_write.wait(10)
        write(self, name, data)

    monkeypatch.setattr(BlockFolder, "write", slow)
    store = PrefixStore(3 * SIZE, BlockFolder(tmp_path, 10**6))
    assert [store.put(key(number), block(number)) for number in range(5)] == [True, True, True, False, False]
    assert store.room_bytes() == 0
    assert get(store, 1) == block(1)
    may_write.set()
    written(store)
    assert store.put(key(4), block(4))
    store.close()


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def _lengthen(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"x")


def _other_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-17] ^= 4
    file.write_bytes(data)


def _other_version(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[7] += 1
    file.write_bytes(data)


def _another_block(file: Path) -> None:
    shutil.copy(file.parent / f"{key(2).hex()}.kv", file)


@pytest.mark.parametrize("damage", [_empty, _cut, _lengthen, _other_bit, _other_version, _another_block])
def test_a_file_that_is_not_what_was_written_is_ignored_and_removed(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    first = PrefixStore(10 * SIZE, BlockFolder(tmp_path, 10**6))
    for number in (1, 2):
        first.put(key(number), block(number))
    first.close()
    file = tmp_path / f"{key(1).hex()}.kv"
    damage(file)
    store = PrefixStore(10 * SIZE, BlockFolder(tmp_path, 10**6))
    assert get(store, 1) is None
    assert key(1) not in store
    assert not file.exists()
    assert get(store, 2) == block(2)
    assert store.put(key(1), block(1))  # it is written anew
    written(store)
    assert file.is_file()
    store.close()


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    for name in ("notes.txt", "x.kv", f"{key(1).hex()}.kv.bak"):
        (tmp_path / name).write_text("mine")
    (tmp_path / f"{key(1).hex()}.kv").mkdir()
    folder = BlockFolder(tmp_path, 2 * SIZE)
    assert key(1) not in folder
    for number in range(2, 6):
        folder.write(key(number), block(number))
    assert len(list(tmp_path.iterdir())) == 5
    with pytest.raises(OSError):
        folder.write(key(1), block(1))
    assert not list(tmp_path.glob("*.unfinished"))


def test_what_somebody_never_ended_to_write_goes_after_an_hour(tmp_path: Path) -> None:
    old, new = tmp_path / "1-1.unfinished", tmp_path / "2-2.unfinished"
    for file in (old, new):
        file.write_bytes(b"half")
    os.utime(old, (0, time.time() - 7200))
    BlockFolder(tmp_path, 10**6)
    assert not old.exists()
    assert new.exists()


def test_a_disk_that_fails_is_logged_once_and_memory_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "gone"
    store = PrefixStore(10 * SIZE, BlockFolder(folder, 10**6))
    folder.rmdir()
    with caplog.at_level(logging.WARNING):
        for number in range(5):
            assert store.put(key(number), block(number))
            written(store)
    assert [get(store, number) for number in range(5)] == list(map(block, range(5)))
    assert [record.message[:19] for record in caplog.records] == ["prefix_cache_folder"]
    store.close()


def test_a_folder_that_others_can_open_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tmp_path.chmod(0o755)
    BlockFolder(tmp_path, 10**6)
    assert "can be opened by others" in caplog.text


def test_gateways_share_a_folder(tmp_path: Path) -> None:
    """Each writes, reads and removes what it likes in a folder with room for a part; whoever finds a block finds it whole."""
    stores = [PrefixStore(4 * SIZE, BlockFolder(tmp_path, 12 * SIZE)) for _ in range(2)]
    wrong: list[int] = []

    def work(store: PrefixStore, seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(300):
            number = rng.randrange(20)
            found = get(store, number)
            if found is None:
                store.put(key(number), block(number))
            elif found != block(number):
                wrong.append(number)
            else:
                store.touch([key(number)])

    threads = [threading.Thread(target=work, args=(store, seed)) for seed, store in enumerate(stores * 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for store in stores:
        store.close()
    assert not wrong
    assert not list(tmp_path.glob("*.unfinished"))
