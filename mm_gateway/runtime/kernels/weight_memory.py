"""Memory in large pages for the weights of a model.

A step reads every weight. In pages of 4 kB the processor stops at each to find where it lies, and fetches nothing ahead across its end;
Linux gives pages of 2 MB to those who ask (https://docs.kernel.org/admin-guide/mm/transhuge.html). Most layers of a small model are
smaller than such a page, so that layers lie one after the other in regions of several.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

PAGE_BYTES = 2 << 20
REGION_BYTES = 32 << 20
_ALIGNED = 64  # bytes: a line of the cache, and a register of AVX-512
_ADVICE: int | None = getattr(mmap, "MADV_HUGEPAGE", None)

_current: ContextVar[WeightMemory | None] = ContextVar("weight_memory", default=None)


class WeightMemory:
    """Regions for the layers of one model; one is given back to the system when the last tensor in it goes."""

    def __init__(self) -> None:
        self._rest = torch.empty(0, dtype=torch.uint8)  # of the newest region

    def place(self, tensor: torch.Tensor) -> torch.Tensor:
        """The same numbers, contiguous, in a region; where the system has no such pages, the tensor itself."""
        needed = -(-tensor.nbytes // _ALIGNED) * _ALIGNED
        if _ADVICE is None or needed == 0:
            return tensor
        if needed > len(self._rest):
            region = _region(max(needed, REGION_BYTES), _ADVICE)
            if region is None:
                return tensor
            self._rest = region
        taken, self._rest = self._rest[: tensor.nbytes], self._rest[needed:]
        placed = taken.view(tensor.dtype).view(tensor.shape)
        return placed.copy_(tensor)


@contextmanager
def weight_memory() -> Iterator[None]:
    """What `in_weight_memory` is given meanwhile, in this thread, lies in regions of one model."""
    token = _current.set(WeightMemory())
    try:
        yield
    finally:
        _current.reset(token)


def in_weight_memory(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor [...] of weights as it is to be kept; outside of `weight_memory` the tensor itself."""
    memory = _current.get()
    return tensor if memory is None else memory.place(tensor)


def _region(size: int, advice: int) -> torch.Tensor | None:
    """Bytes [size, to whole pages] at the beginning of a large page; None: the system does not give them. They live as long as a view."""
    size = -(-size // PAGE_BYTES) * PAGE_BYTES
    try:
        mapped = mmap.mmap(-1, size + PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        start = -ctypes.addressof(ctypes.c_char.from_buffer(mapped)) % PAGE_BYTES
        mapped.madvise(advice, start, size)
    except (OSError, ValueError):  # no memory, or a system without such pages
        return None
    return torch.frombuffer(mapped, dtype=torch.uint8, offset=start, count=size)
