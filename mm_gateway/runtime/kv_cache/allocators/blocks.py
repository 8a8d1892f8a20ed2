"""KV memory in blocks of a fixed number of tokens, for devices whose memory is all there from the start (GPU); knows nothing of tensors.

A sequence has a table of blocks (PagedAttention, https://arxiv.org/abs/2309.06180). Full blocks with equal tokens after
equal tokens are shared; the part of a block that a new sequence has in common with another is copied. Contents of
finished sequences stay findable until their blocks are needed, least recently used first.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from mm_gateway.runtime.scheduling.allocator import Refusal, common_prefix_length
from mm_gateway.runtime.scheduling.sequence import Sequence

MIN_SHARED = 16
"""A shared part of a block shorter than this is recomputed: cheaper than a copy."""

Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CopyBlock:
    """Copy the first `length` tokens' keys and values from block `source` to block `target`."""

    source: int
    target: int
    length: int


@dataclass(frozen=True, slots=True)
class _Content:
    """What a block is known to hold. uid: names these tokens after everything before them. parent: uid of what comes before; of a first
    block `_root`, which is never a uid."""

    uid: int
    parent: int
    tokens: Tokens


@dataclass(slots=True)
class _Held:
    """A sequence's blocks. full: how many of them are known as full, the last one's uid being `uid`."""

    seq: Sequence
    table: list[int]
    full: int = 0
    uid: int = 0


def _root(seq: Sequence) -> int:
    """What comes before the first block: the angles that its keys have."""
    return -seq.angles


class BlockAllocator:
    """KVAllocator over `blocks` blocks of `block_size` tokens, for sequences of at most `max_seq_tokens`.

    Block 0 belongs to nobody: rows that pad a batch write there. `pending` lists copies in the order in which they must be
    carried out, before anything is written for the sequences admitted since.
    """

    def __init__(self, blocks: int, block_size: int, max_seq_tokens: int, *, reuse: bool = True) -> None:
        self.block_size = block_size
        self._max_tokens = min(max_seq_tokens, (blocks - 1) * block_size)
        self._reuse = reuse
        self._references = [0] * blocks
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(1, blocks))  # least recently used first
        self._held: dict[int, _Held] = {}
        self._contents: dict[int, _Content] = {}
        self._full: dict[tuple[int, Tokens], int] = {}
        self._beginnings: dict[tuple[int, Tokens], dict[int, None]] = {}  # by parent and first MIN_SHARED tokens
        self._last_uid = 0
        self.pending: list[CopyBlock] = []

    @property
    def max_tokens(self) -> int:
        return self._max_tokens

    @property
    def free_blocks(self) -> int:
        """Blocks that no sequence uses; some hold contents that may be found again."""
        return len(self._free)

    @property
    def capacity_tokens(self) -> int:
        return (len(self._references) - 1) * self.block_size

    @property
    def transferring(self) -> bool:
        return False

    @property
    def free_tokens(self) -> int:
        return len(self._free) * self.block_size

    def table_of(self, seq: Sequence) -> list[int]:
        """The sequence's blocks, in the order of its tokens. Not to be changed."""
        return self._held[seq.id].table

    def allocate(self, seq: Sequence) -> int | Refusal:
        shared, source, part = self._find_prefix(seq) if self._reuse and seq.reuse_prefix else ([], None, 0)
        cached = len(shared) * self.block_size + part
        if self._reuse and seq.reuse_prefix and self._is_coming(seq, cached):
            return Refusal.WAIT_FOR_PREFIX
        missing = self._blocks_for(seq) - len(shared)
        if missing > len(self._free) - sum(not self._references[block] for block in shared):
            return Refusal.NO_ROOM
        for block in shared:
            self._references[block] += 1
            self._free.pop(block, None)
        if source is not None and source in self._free:
            self._free.move_to_end(source)
        held = self._held[seq.id] = _Held(seq, shared + [self._take() for _ in range(missing)], uid=_root(seq))
        for block in shared:
            held.full, held.uid = held.full + 1, self._contents[block].uid
        if source is not None and source != held.table[len(shared)]:
            self.pending.append(CopyBlock(source, held.table[len(shared)], part))
        return cached

    def extend(self, seq: Sequence) -> bool:
        table = self._held[seq.id].table
        missing = self._blocks_for(seq) - len(table)
        if missing > len(self._free):
            return False
        table += [self._take() for _ in range(missing)]
        return True

    def commit(self, seq: Sequence) -> None:
        held, size = self._held[seq.id], self.block_size
        while self._reuse and (held.full + 1) * size <= seq.computed:
            tokens = tuple(seq.tokens[held.full * size : (held.full + 1) * size])
            known = self._full.get((held.uid, tokens))
            held.uid = self._contents[known].uid if known is not None else self._learn(held.table[held.full], held.uid, tokens)
            held.full += 1

    def release(self, seq: Sequence) -> None:
        held, size = self._held.pop(seq.id), self.block_size
        rest = tuple(seq.tokens[held.full * size : seq.computed])
        if self._reuse and len(rest) >= MIN_SHARED:
            self._learn(held.table[held.full], held.uid, rest)
        # The last block goes first, so that beginnings, which more sequences share, stay longest.
        for block in reversed(held.table):
            self._drop_reference(block)

    def discard(self, seq: Sequence) -> None:
        seq.computed = 0
        held = self._held.pop(seq.id)
        for block in reversed(held.table):
            if self._references[block] == 1:
                self._forget(block)
            self._drop_reference(block)

    def check_integrity(self) -> None:
        references = [0] * len(self._references)
        for held in self._held.values():
            assert len(set(held.table)) == len(held.table), "a sequence has a block twice"
            assert held.full * self.block_size <= held.seq.computed <= len(held.table) * self.block_size
            for block in held.table:
                references[block] += 1
        assert references == self._references, "a block is not used as often as is counted"
        assert not references[0] and 0 not in self._contents, "block 0 is somebody's"
        assert set(self._free) == {block for block, count in enumerate(references) if block and not count}
        uids = [content.uid for content in self._contents.values()]
        assert len(set(uids)) == len(uids)
        for (parent, tokens), block in self._full.items():
            assert (self._contents[block].parent, self._contents[block].tokens) == (parent, tokens)
        findable = {block: key for key, blocks in self._beginnings.items() for block in blocks}
        assert findable == {block: (content.parent, content.tokens[:MIN_SHARED]) for block, content in self._contents.items()}

    def _blocks_for(self, seq: Sequence) -> int:
        return -(-len(seq.tokens) // self.block_size)

    def _find_prefix(self, seq: Sequence) -> tuple[list[int], int | None, int]:
        """Full blocks that hold the beginning, then a block whose first so many tokens are the next ones, if any."""
        limit = len(seq.tokens) - 1  # the last token must run, for its logits
        shared, uid, position = self._find_full(_root(seq), seq.tokens, limit)
        source, part = self._find_part(uid, seq.tokens, position, limit)
        for other in self._held.values():  # of what runs, the block that is being filled is known to nobody else
            here = min(self._common(other.seq, seq, limit), other.seq.computed) - position
            if part < here < self.block_size and here >= MIN_SHARED:
                source, part = other.table[len(shared)], here
        return shared, source, part

    def _find_full(self, uid: int, tokens: list[int], limit: int) -> tuple[list[int], int, int]:
        found: list[int] = []
        position = 0
        while position + self.block_size <= limit:
            block = self._full.get((uid, tuple(tokens[position : position + self.block_size])))
            if block is None:
                break
            found.append(block)
            uid = self._contents[block].uid
            position += self.block_size
        return found, uid, position

    def _find_part(self, uid: int, tokens: list[int], position: int, limit: int) -> tuple[int | None, int]:
        rest = tokens[position : position + self.block_size]
        best, length = None, MIN_SHARED - 1
        for block in self._beginnings.get((uid, tuple(rest[:MIN_SHARED])), ()):
            common = common_prefix_length(list(self._contents[block].tokens), rest, limit - position)
            if common > length:
                best, length = block, common
        return (best, length) if best is not None else (None, 0)

    def _is_coming(self, seq: Sequence, cached: int) -> bool:
        """A running sequence is about to compute more of this beginning: waiting is cheaper than computing it twice."""
        limit = len(seq.tokens) - 1
        return any(
            other.seq.remaining > 1
            and (common := self._common(other.seq, seq, limit)) > other.seq.computed
            and common - cached >= MIN_SHARED
            for other in self._held.values()
        )

    def _common(self, other: Sequence, seq: Sequence, limit: int) -> int:
        if other.angles != seq.angles or other.tokens[:MIN_SHARED] != seq.tokens[:MIN_SHARED]:
            return 0
        return common_prefix_length(other.tokens, seq.tokens, limit)

    def _take(self) -> int:
        block, _ = self._free.popitem(last=False)
        self._forget(block)
        self._references[block] = 1
        return block

    def _drop_reference(self, block: int) -> None:
        self._references[block] -= 1
        if not self._references[block]:
            self._free[block] = None
            if block not in self._contents:
                self._free.move_to_end(block, last=False)  # empty ones are taken first

    def _learn(self, block: int, parent: int, tokens: Tokens) -> int:
        self._forget(block)
        self._last_uid += 1
        self._contents[block] = _Content(self._last_uid, parent, tokens)
        if len(tokens) == self.block_size:
            self._full[parent, tokens] = block
        self._beginnings.setdefault((parent, tokens[:MIN_SHARED]), {})[block] = None
        return self._last_uid

    def _forget(self, block: int) -> None:
        content = self._contents.pop(block, None)
        if content is None:
            return
        if self._full.get((content.parent, content.tokens)) == block:
            del self._full[content.parent, content.tokens]
        key = (content.parent, content.tokens[:MIN_SHARED])
        del self._beginnings[key][block]
        if not self._beginnings[key]:
            del self._beginnings[key]
