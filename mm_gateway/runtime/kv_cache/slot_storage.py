"""Keys and values of a model in contiguous slots of host memory; owns the bytes, and knows nothing of who uses them.

Memory is mapped without being committed: a slot costs what was written to it, and dropping it gives the pages back.
"""

from __future__ import annotations

import math
import mmap

import numpy as np
import torch

from mm_gateway.runtime.kernels.decoder import Cells
from mm_gateway.runtime.kv_cache.allocators.slots import CopyPrefix, DropSlot

_TYPES = {Cells.FP32: torch.float32, Cells.FP16: torch.float16, Cells.INT8: torch.uint8}


class SlotStorage:
    """Per layer two tensors [slots * slot_len, kv_heads * head_dim], zero where never written; of int8 cells as bytes, with their scales.

    Args:
        layers: attention layers. kv_heads, head_dim: of each layer.
        slots: sequences that can be held. slot_len: tokens of one, rounded up so that slots start on memory pages.
    """

    def __init__(self, *, layers: int, slots: int, slot_len: int, kv_heads: int, head_dim: int, cells: Cells = Cells.FP32) -> None:
        self._row_bytes = kv_heads * cells.head_bytes(head_dim)
        tokens_per_page = mmap.PAGESIZE // math.gcd(mmap.PAGESIZE, self._row_bytes)
        self.slots = slots
        self.slot_len = -(-slot_len // tokens_per_page) * tokens_per_page
        self.kv_heads, self.head_dim = kv_heads, head_dim
        rows = slots * self.slot_len
        self._maps = [_anonymous_map(rows * self._row_bytes) for _ in range(2 * layers)]
        tensors = [torch.frombuffer(pages, dtype=_TYPES[cells]).view(rows, -1) for pages in self._maps]
        self.layers = list(zip(tensors[0::2], tensors[1::2], strict=True))
        # For copies beside the engine's thread: torch would make a team of threads for each thread that copies, which wait for each
        # other, and for the engine's, at each of thousands of copies.
        self._rows = [np.frombuffer(pages, dtype=np.uint8).reshape(rows, self._row_bytes) for pages in self._maps]

    @property
    def bytes_per_token(self) -> int:
        return len(self._maps) * self._row_bytes

    def apply(self, change: CopyPrefix | DropSlot) -> None:
        """Carry out what the allocator decided."""
        match change:
            case CopyPrefix(source, target, length):
                start, stop = source * self.slot_len, target * self.slot_len
                for keys, values in self.layers:
                    keys[stop : stop + length] = keys[start : start + length]
                    values[stop : stop + length] = values[start : start + length]
            case DropSlot(index):
                slot_bytes = self.slot_len * self._row_bytes
                for pages in self._maps:
                    pages.madvise(mmap.MADV_DONTNEED, index * slot_bytes, slot_bytes)

    def copy_out(self, slot: int, first: int, count: int) -> memoryview:
        """The bytes of `count` tokens of a slot from position `first` on: keys and values by layer, each [count, bytes of a token]."""
        start = slot * self.slot_len + first
        block = np.empty((len(self._rows), count, self._row_bytes), dtype=np.uint8)
        for part, rows in zip(block, self._rows, strict=True):
            part[:] = rows[start : start + count]
        return block.reshape(-1).data

    def copy_in(self, slot: int, first: int, count: int, block: memoryview) -> None:
        """What `copy_out` gave, into a slot. Any thread, for a slot that is its own."""
        start = slot * self.slot_len + first
        parts = np.frombuffer(block, dtype=np.uint8).reshape(len(self._rows), count, self._row_bytes)
        for part, rows in zip(parts, self._rows, strict=True):
            rows[start : start + count] = part


def _anonymous_map(length: int) -> mmap.mmap:
    # NORESERVE: the address space is no promise to use it all, so the kernel must not count it as one.
    return mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0))
