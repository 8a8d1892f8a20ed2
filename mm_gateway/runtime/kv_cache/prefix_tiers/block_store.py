"""Blocks of kept prefixes of all models of a process: in memory, and from there written to a folder. Knows nothing of what is in them.

Every block comes into memory first. Those used longest ago go when `memory_bytes` are full; what still waits to be written counts, so
that a slow disk takes no memory but this. Blocks that are written stay in memory while there is room: they come from there faster.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.runtime.kv_cache.prefix_tiers.block_folder import BlockFolder

logger = logging.getLogger(__name__)

RETRY_S = 300.0
"""For which nothing is written after a disk was found full, or failed otherwise."""
CLOSE_TIMEOUT_S = 5.0
"""For what still waits to be written when the process ends, after the engines have."""


class PrefixStore:
    """Thread-safe.

    Args:
        memory_bytes: for blocks, > 0. folder: where they are written to; None: they are in memory alone.
    """

    def __init__(self, memory_bytes: int, folder: BlockFolder | None = None) -> None:
        self.memory_bytes = memory_bytes
        self._folder = folder
        self._changed = threading.Condition()  # guards all below; never held while a file is read or written
        self._kept: OrderedDict[bytes, memoryview] = OrderedDict()  # the one used longest ago first
        self._unwritten: OrderedDict[bytes, memoryview] = OrderedDict()  # the next one to be written first
        self._bytes = self._unwritten_bytes = 0
        self._paused_until = 0.0
        self._told = self._closing = False
        self._writer: threading.Thread | None = None
        if folder is not None:
            self._writer = threading.Thread(target=self._write, name="prefix cache", daemon=True)
            self._writer.start()

    @property
    def is_on_disk(self) -> bool:
        """Whether blocks outlive the process."""
        return self._folder is not None

    def __contains__(self, key: bytes) -> bool:
        return key in self._kept or key in self._unwritten or (self._folder is not None and key in self._folder)

    def room_bytes(self, *, timeout_s: float = 0.0, at_least: int = 1) -> int:
        """Memory for blocks that nothing has to wait for. With a timeout, waits until there are `at_least` so many bytes."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._room() >= at_least, timeout_s)
            return self._room()

    def put(self, key: bytes, block: memoryview) -> bool:
        """Keep a block, for which others go; False: there is no room until what waits to be written is on the disk."""
        with self._changed:
            if key in self._kept or key in self._unwritten:
                return True
            if block.nbytes > self._room():
                return False
            while self._bytes + block.nbytes > self.memory_bytes:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
            self._bytes += block.nbytes
            if self._folder is None or key in self._folder or time.monotonic() < self._paused_until:
                self._kept[key] = block
            else:
                self._unwritten[key] = block
                self._unwritten_bytes += block.nbytes
                self._changed.notify_all()
            return True

    def in_memory(self, key: bytes) -> memoryview | None:
        """A block, where it needs no reading."""
        with self._changed:
            return self._kept.get(key) or self._unwritten.get(key)

    def get(self, key: bytes, buffer: memoryview) -> memoryview | None:
        """A block, from memory or read into `buffer`, which has its size; None: it is not kept any more."""
        if (block := self.in_memory(key)) is not None:
            return block
        return buffer if self._folder is not None and self._folder.read(key, buffer) else None

    def forget(self, key: bytes) -> None:
        """A block turned out to be of no use."""
        with self._changed:
            if (block := self._kept.pop(key, None)) is not None:
                self._bytes -= block.nbytes
        if self._folder is not None:
            self._folder.remove(key)

    def touch(self, keys: Sequence[bytes]) -> None:
        """The blocks of one prefix were used. Its first ones will go last: without them the others are of no use."""
        with self._changed:
            for key in reversed(keys):
                if key in self._kept:
                    self._kept.move_to_end(key)
        if self._folder is not None:
            self._folder.touch(reversed(keys))

    def close(self) -> None:
        """Write what waits, for at most CLOSE_TIMEOUT_S; nothing is kept from now on. Idempotent."""
        with self._changed:
            self._changed.wait_for(lambda: not self._unwritten, CLOSE_TIMEOUT_S)
            if self._unwritten:
                logger.warning("%d blocks of the prefix cache were not written before the end", len(self._unwritten))
            self._closing = True
            self._kept.clear()
            self._unwritten.clear()
            self._bytes = self._unwritten_bytes = 0
            self._changed.notify_all()
        if self._writer is not None:
            self._writer.join(CLOSE_TIMEOUT_S)

    def _room(self) -> int:
        return 0 if self._closing else self.memory_bytes - self._unwritten_bytes

    def _write(self) -> None:
        """The writer's thread: a disk may take seconds, and no engine is to wait for it."""
        assert self._folder is not None
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._unwritten or self._closing)
                if self._closing:
                    return
                key, block = next(iter(self._unwritten.items()))
            error: OSError | None = None
            if time.monotonic() >= self._paused_until:
                try:
                    self._folder.write(key, block)
                except OSError as failure:
                    error = failure
            with self._changed:
                if error is not None:
                    self._paused_until = time.monotonic() + RETRY_S
                    if not self._told:
                        logger.error("prefix_cache_folder cannot be written to, so prefixes are kept in memory alone for now: %s", error)
                        self._told = True
                if self._unwritten.pop(key, None) is not None:
                    self._unwritten_bytes -= block.nbytes
                    self._kept[key] = block
                self._changed.notify_all()


def open_prefix_store(settings: EngineSettings) -> PrefixStore | None:
    """The store that is configured; None: none is. A folder that cannot be used is logged, and prefixes are kept in memory alone."""
    if not settings.prefix_cache or not settings.prefix_cache_bytes:
        return None
    folder: BlockFolder | None = None
    if settings.prefix_cache_folder is not None:
        try:
            folder = BlockFolder(Path(settings.prefix_cache_folder).expanduser(), settings.prefix_cache_folder_bytes)
        except OSError as error:
            logger.error("prefix_cache_folder cannot be used, so prefixes are kept in memory alone: %s", error)
    return PrefixStore(settings.prefix_cache_bytes, folder)
