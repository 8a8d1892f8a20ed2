"""Blocks as files of one folder, which several gateways may share; the files used longest ago go. Knows nothing of what is in them.

A file appears by renaming and is never changed, so whoever finds it finds all of it; what is damaged all the same (a disk that was full,
a machine that lost its power) is told by its checksum, and removed.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import struct
import threading
import time
import zlib
from collections.abc import Iterable
from pathlib import Path

from mm_gateway.runtime.kv_cache.prefix_tiers.block_keys import KEY_BYTES

logger = logging.getLogger(__name__)

_HEADER = struct.Struct(f"<8s{KEY_BYTES}sQI")
"""Format with its version, the block's key, its bytes, their CRC-32. Not against who can write to the folder, but against accidents."""
_FORMAT = b"mmgw-kv\x01"
_NAME = re.compile(rf"[0-9a-f]{{{2 * KEY_BYTES}}}\.kv")
_UNFINISHED = ".unfinished"
_SCAN_INTERVAL_S = 10.0
_ABANDONED_S = 3600.0
"""Age of a file that somebody began to write and never will end."""


class BlockFolder:
    """Thread-safe. Files can be read by their owner alone, and so can the folder that is made for them.

    Args:
        path: made where it is not there. budget_bytes: of all its files; where others write to it at the same time, it is found to be
            beyond that within seconds.

    Raises:
        OSError: the folder cannot be made or read.
    """

    def __init__(self, path: Path, budget_bytes: int) -> None:
        self._path = path
        self._budget_bytes = budget_bytes
        self._lock = threading.Lock()  # of the three below; never held while a file is read or written
        self._sizes: dict[bytes, int] = {}  # of each file, the one used longest ago first
        self._total_bytes = 0
        self._scanned = 0.0
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.stat().st_mode & 0o077:
            logger.warning("%s can be opened by others than its owner: prompts can be made out from what is kept there", path)
        self._scan()

    def __contains__(self, key: bytes) -> bool:
        return key in self._sizes

    def read(self, key: bytes, into: memoryview) -> bool:
        """Fill `into` with a block; False: it is not there, or is not what was written, and then it is removed.

        By reading, not by mapping: a file that somebody shortens while it is mapped would end the process.
        """
        try:
            with self._file(key).open("rb", buffering=0) as file:
                header = _HEADER.unpack(file.read(_HEADER.size))
                whole = file.readinto(into) == len(into) and not file.read(1)
                if whole and header == (_FORMAT, key, len(into), zlib.crc32(into)):
                    return True
            logger.warning("%s is damaged, or something else than its name says; it is removed", self._file(key))
        except FileNotFoundError:
            pass  # another gateway needed its room
        except (OSError, struct.error) as error:
            logger.warning("%s cannot be read, so it is removed: %s", self._file(key), error)
        self.remove(key)
        return False

    def write(self, key: bytes, block: memoryview) -> None:
        """Add a block, and remove what the budget has no room for.

        Raises:
            OSError: it cannot be written, as where the disk is full. Nothing of it is left then.
        """
        size = _HEADER.size + block.nbytes
        if time.monotonic() - self._scanned > _SCAN_INTERVAL_S:
            self._scan()
        while self._total_bytes + size > self._budget_bytes:
            with self._lock:
                oldest = next(iter(self._sizes), None)
            if oldest is None:
                return  # it is larger than all the room
            self.remove(oldest)
        unfinished = self._path / f"{key.hex()}-{os.getpid()}{_UNFINISHED}"
        try:
            with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(_HEADER.pack(_FORMAT, key, block.nbytes, zlib.crc32(block)))
                file.write(block)
            unfinished.replace(self._file(key))
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise
        self._note(key, size)

    def touch(self, keys: Iterable[bytes]) -> None:
        """These were used, one after the other; for everybody who shares the folder."""
        for key in keys:
            try:
                now = time.time_ns()  # the system's own time of files stands still for milliseconds
                os.utime(self._file(key), ns=(now, now))
            except OSError:
                continue  # it is not there any more, which `read` will find
            with self._lock:
                if (size := self._sizes.pop(key, None)) is not None:
                    self._sizes[key] = size

    def _file(self, key: bytes) -> Path:
        return self._path / f"{key.hex()}.kv"

    def _note(self, key: bytes, size: int) -> None:
        with self._lock:
            self._total_bytes += size - self._sizes.pop(key, 0)
            self._sizes[key] = size

    def remove(self, key: bytes) -> None:
        """A block that is of no use, or has to make room."""
        with self._lock:
            self._total_bytes -= self._sizes.pop(key, 0)
        try:
            self._file(key).unlink(missing_ok=True)
        except OSError as error:
            logger.warning("%s cannot be removed: %s", self._file(key), error)

    def _scan(self) -> None:
        """Look at what is there, of this gateway and of others."""
        found: list[tuple[int, bytes, int]] = []
        with os.scandir(self._path) as files:
            for file in files:
                try:
                    known = file.stat(follow_symlinks=False)
                    if not stat.S_ISREG(known.st_mode):
                        continue
                    if _NAME.fullmatch(file.name):
                        found.append((known.st_mtime_ns, bytes.fromhex(file.name[: 2 * KEY_BYTES]), known.st_size))
                    elif file.name.endswith(_UNFINISHED) and time.time() - known.st_mtime > _ABANDONED_S:
                        os.unlink(file.path)
                except FileNotFoundError:
                    continue  # it went meanwhile
        with self._lock:
            self._sizes = {key: size for _, key, size in sorted(found)}
            self._total_bytes = sum(self._sizes.values())
            self._scanned = time.monotonic()
