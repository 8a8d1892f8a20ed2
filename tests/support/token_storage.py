"""The storage behind a KV allocator with token ids in place of keys and values: what a sequence reads must be its own tokens."""

from __future__ import annotations

import random

from mm_gateway.runtime.kv_cache.allocators.blocks import BlockAllocator
from mm_gateway.runtime.kv_cache.allocators.slots import CopyPrefix, DropSlot, RestoreSlot, SaveSlot, SlotAllocator
from mm_gateway.runtime.scheduling.length_scaling import LengthScaling
from mm_gateway.runtime.scheduling.sequence import Sequence

ANGLE = 10
"""Keys are told apart by the rotary angles that they have, too: a cell holds its token, and this much more for each other set of them."""


def cell(seq: Sequence, position: int, length: int, scaling: LengthScaling | None) -> int:
    """What a sequence that is `length` long has written at a position."""
    if scaling is None:
        return seq.tokens[position]
    return seq.tokens[position] + ANGLE * scaling.as_if(max(length, position + 1))


class BlockStorage:
    """blocks: of `size` tokens each."""

    def __init__(self, kv: BlockAllocator, blocks: int, size: int, scaling: LengthScaling | None = None) -> None:
        self.kv, self.size, self.scaling = kv, size, scaling
        self.cells = [[-1] * size for _ in range(blocks)]

    def apply(self) -> None:
        """Carry out what the allocator decided."""
        for copy in self.kv.pending:
            self.cells[copy.target][: copy.length] = self.cells[copy.source][: copy.length]
        self.kv.pending.clear()

    def write(self, seq: Sequence, start: int, stop: int) -> None:
        table = self.kv.table_of(seq)
        for position in range(start, stop):
            self.cells[table[position // self.size]][position % self.size] = cell(seq, position, seq.angle_len, self.scaling)

    def read(self, seq: Sequence, count: int) -> list[int]:
        cells = [token for block in self.kv.table_of(seq)[: -(-count // self.size)] for token in self.cells[block]]
        return cells[:count]


class TokenTier:
    """A PrefixTier of blocks of `size` tokens that loses some, and brings others back at some later time."""

    def __init__(self, rng: random.Random, size: int) -> None:
        self.rng, self.size = rng, size
        self.blocks: dict[tuple[int, tuple[int, ...]], list[int]] = {}
        self.coming: list[RestoreSlot] = []
        self.slots: list[list[int]] = []
        self.restored = 0

    def longest(self, tokens: list[int], angles: int, limit: int) -> int:
        count = 0
        while count + self.size <= limit and (angles, tuple(tokens[: count + self.size])) in self.blocks:
            count += self.size
        return count

    def arrived(self) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        while self.coming and self.rng.random() < 0.5:
            change = self.coming.pop(self.rng.randrange(len(self.coming)))
            length = 0
            while length < len(change.tokens):
                key = (change.angles, tuple(change.tokens[: length + self.size]))
                if self.rng.random() < 0.1:
                    self.blocks.pop(key, None)
                if key not in self.blocks:
                    break
                self.slots[change.index][length : length + self.size] = self.blocks[key]
                length += self.size
            self.restored += length
            found.append((change.index, length))
        return found

    def save(self, change: SaveSlot) -> None:
        for stop in range(self.size, len(change.tokens) + 1, self.size):
            if self.rng.random() < 0.9:
                cells = self.slots[change.index][stop - self.size : stop]
                self.blocks.setdefault((change.angles, tuple(change.tokens[:stop])), cells)
        while len(self.blocks) > 100:
            del self.blocks[self.rng.choice(list(self.blocks))]


class SlotStorage:
    """slots: of `slot_len` tokens each."""

    def __init__(
        self, kv: SlotAllocator, slots: int, slot_len: int, scaling: LengthScaling | None = None, tier: TokenTier | None = None
    ) -> None:
        self.kv, self.slot_len, self.scaling, self.tier = kv, slot_len, scaling, tier
        self.cells = [[-1] * slot_len for _ in range(slots)]

    def apply(self) -> None:
        """Carry out what the allocator decided."""
        for change in self.kv.pending:
            match change:
                case CopyPrefix(source, target, length):
                    self.cells[target][:length] = self.cells[source][:length]
                case DropSlot(index):
                    self.cells[index] = [-1] * self.slot_len
                case SaveSlot():
                    assert self.tier is not None
                    self.tier.slots = self.cells
                    self.tier.save(change)
                case RestoreSlot():
                    assert self.tier is not None
                    self.tier.slots = self.cells
                    self.tier.coming.append(change)
        self.kv.pending.clear()

    def write(self, seq: Sequence, start: int, stop: int) -> None:
        written = [cell(seq, position, seq.angle_len, self.scaling) for position in range(start, stop)]
        self.cells[self.kv.slot_of(seq)][start:stop] = written

    def read(self, seq: Sequence, count: int) -> list[int]:
        return self.cells[self.kv.slot_of(seq)][:count]
