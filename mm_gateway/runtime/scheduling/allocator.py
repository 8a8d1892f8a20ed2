"""What the scheduler asks of a KV cache: the contract that slot and block allocators fulfil; knows nothing of tensors."""

from __future__ import annotations

import enum
from typing import Protocol

from mm_gateway.runtime.scheduling.sequence import Sequence


class Refusal(enum.Enum):
    """Why a sequence could not be given room now."""

    NO_ROOM = "no room until others finish"
    WAIT_FOR_PREFIX = "a prefix that this one shares is being computed by a running sequence, or on its way into the cache"


class KVAllocator(Protocol):
    """Gives sequences room for keys and values, and finds prefixes that are there already.

    Room is counted in tokens. What is released keeps its contents until the room is needed, and serves later
    sequences with the same beginning. All methods are called by one thread.
    """

    @property
    def max_tokens(self) -> int:
        """The longest sequence that can ever be held."""
        ...

    @property
    def capacity_tokens(self) -> int:
        """All the room there is, > 0."""
        ...

    @property
    def free_tokens(self) -> int:
        """Room that no sequence has; may be read by any thread."""
        ...

    @property
    def transferring(self) -> bool:
        """Whether a prefix is on its way into the cache, which those who wait may wait for."""
        ...

    def allocate(self, seq: Sequence) -> int | Refusal:
        """Room for all of `seq.tokens`; returns how many of them, fewer than all, are in the cache already.

        Where no other sequence has room and no prefix is on its way, one of at most `max_tokens` is never refused: what is kept of
        finished ones goes.
        """
        ...

    def extend(self, seq: Sequence) -> bool:
        """Room for tokens appended since; False where there is none, and nothing has changed."""
        ...

    def commit(self, seq: Sequence) -> None:
        """`seq.computed` has grown: those tokens may be shared from now on."""
        ...

    def release(self, seq: Sequence) -> None:
        """Give the room back; the first `seq.computed` tokens stay findable."""
        ...

    def discard(self, seq: Sequence) -> None:
        """Give the room back and forget the contents: they are not numbers that others may meet."""
        ...

    def check_integrity(self) -> None:
        """For tests. AssertionError: rooms, owners, what is free and what can be found do not add up."""
        ...


def common_prefix_length(a: list[int], b: list[int], limit: int) -> int:
    """Tokens that two lists have in common at the start, at most `limit`; compares in slices, at the speed of C."""
    stride = 64
    limit = min(limit, len(a), len(b))
    start = 0
    while start < limit and a[start : start + stride] == b[start : start + stride]:
        start += stride
    if start >= limit:
        return limit
    for i in range(start, min(start + stride, limit)):
        if a[i] != b[i]:
            return i
    return limit
