"""The prefix tier of one model in slots: cuts what leaves a slot into blocks for the store, and brings blocks back into slots."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from mm_gateway.runtime.kv_cache.allocators.slots import RestoreSlot, SaveSlot
from mm_gateway.runtime.kv_cache.prefix_tiers.block_keys import BLOCK_TOKENS, block_keys
from mm_gateway.runtime.kv_cache.prefix_tiers.block_store import PrefixStore
from mm_gateway.runtime.kv_cache.prefix_tiers.restored_tokens import RestoredTokens
from mm_gateway.runtime.kv_cache.slot_storage import SlotStorage

logger = logging.getLogger(__name__)


class SlotTier:
    """PrefixTier of a slot allocator, and what carries out its decisions. Called by the engine's thread.

    Args:
        store: of all models. model: says what computes keys and values and how they are laid out (`block_keys`).
        storage: of the slots.

    Attributes:
        restored: since the start; grows on a thread of its own.
    """

    def __init__(self, store: PrefixStore, model: bytes, storage: SlotStorage) -> None:
        self._store = store
        self._model = model
        self._storage = storage
        self._block_bytes = BLOCK_TOKENS * storage.bytes_per_token
        # One thread: reading is as fast as the disk, or as memory. Its slot belongs to it alone until `arrived` has told of it.
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="prefix cache reads")
        self._arrived: deque[tuple[int, int]] = deque()
        self._arrival = threading.Event()
        self.restored = RestoredTokens()
        self._held: dict[int, list[tuple[bytes, memoryview | None]]] = {}  # by slot

    def longest(self, tokens: list[int], angles: int, limit: int) -> int:
        count = 0
        for key in block_keys(self._model, tokens, angles, limit):
            if key not in self._store:
                break
            count += BLOCK_TOKENS
        return count

    def arrived(self) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        while self._arrived:
            found.append(self._arrived.popleft())
        return found

    def wait(self, timeout_s: float) -> None:
        """Until a slot arrives, or for that time."""
        if self._arrival.wait(timeout_s):
            self._arrival.clear()

    def save(self, change: SaveSlot, *, deadline: float | None = None) -> None:
        """Copy the blocks of a slot that are not kept yet into the store, as far as it has room now.

        deadline: of time.monotonic; until then wait for room, which writing to the disk makes.
        """
        keys = list(block_keys(self._model, change.tokens, change.angles, len(change.tokens)))
        if len(keys) * BLOCK_TOKENS <= change.start:
            return  # no whole block is about to be lost
        # Those before `start` too: a block is found by all that stand before it.
        missing = [at for at, key in enumerate(keys) if key not in self._store]
        while missing:
            wait_s = 0.0 if deadline is None else max(0.0, deadline - time.monotonic())
            count = self._store.room_bytes(timeout_s=wait_s, at_least=self._block_bytes) // self._block_bytes
            now, missing = missing[:count], missing[count:]
            for at in reversed(now):  # the first ones last, so that they are those that go last
                block = self._storage.copy_out(change.index, at * BLOCK_TOKENS, BLOCK_TOKENS)
                self._store.put(keys[at], block)
            if not now or deadline is None or not self._store.is_on_disk:
                break

    def hold(self, change: RestoreSlot) -> None:
        """Called before anything of the same step is saved, which may push out of memory what is to be restored."""
        keys = list(block_keys(self._model, change.tokens, change.angles, len(change.tokens)))
        self._held[change.index] = [(key, self._store.in_memory(key)) for key in keys]

    def restore(self, change: RestoreSlot) -> None:
        """Begin to bring blocks that are held into a slot, which nobody else reads or writes until it has arrived."""
        self._reader.submit(self._restore, change.index, self._held.pop(change.index))

    def close(self) -> None:
        """Returns when nothing is on its way any more."""
        self._reader.shutdown(cancel_futures=True)

    def _restore(self, slot: int, held: Sequence[tuple[bytes, memoryview | None]]) -> None:
        keys, count = [key for key, _ in held], 0
        try:
            buffer = memoryview(bytearray(self._block_bytes))
            for key, in_memory in held:
                block = in_memory or self._store.get(key, buffer)
                if block is None:
                    break
                self._storage.copy_in(slot, count * BLOCK_TOKENS, BLOCK_TOKENS, block)
                count += 1
                if in_memory is not None:
                    self.restored.memory += BLOCK_TOKENS
                else:
                    self.restored.disk += BLOCK_TOKENS
            self._store.touch(keys[:count])
        except Exception:
            logger.exception("a kept prefix could not be read; what is missing of it is computed")
        finally:
            if count < len(keys):
                self._store.forget(keys[count])  # or those who wait would ask for it again and again
            self._arrived.append((slot, count * BLOCK_TOKENS))
            self._arrival.set()
