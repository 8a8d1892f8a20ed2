"""The storage behind a KV allocator with token ids in place of keys and values: what a sequence reads must be its own tokens."""

from __future__ import annotations

from mm_gateway.runtime.kv_cache.allocators.blocks import BlockAllocator
from mm_gateway.runtime.kv_cache.allocators.slots import CopyPrefix, DropSlot, SlotAllocator
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


class SlotStorage:
    """slots: of `slot_len` tokens each."""

    def __init__(self, kv: SlotAllocator, slots: int, slot_len: int, scaling: LengthScaling | None = None) -> None:
        self.kv, self.slot_len, self.scaling = kv, slot_len, scaling
        self.cells = [[-1] * slot_len for _ in range(slots)]

    def apply(self) -> None:
        """Carry out what the allocator decided."""
        for change in self.kv.pending:
            match change:
                case CopyPrefix(source, target, length):
                    self.cells[target][:length] = self.cells[source][:length]
                case DropSlot(index):
                    self.cells[index] = [-1] * self.slot_len
        self.kv.pending.clear()

    def write(self, seq: Sequence, start: int, stop: int) -> None:
        written = [cell(seq, position, seq.angle_len, self.scaling) for position in range(start, stop)]
        self.cells[self.kv.slot_of(seq)][start:stop] = written

    def read(self, seq: Sequence, count: int) -> list[int]:
        return self.cells[self.kv.slot_of(seq)][:count]
