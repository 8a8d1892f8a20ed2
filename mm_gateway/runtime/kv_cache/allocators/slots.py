"""Contiguous KV slots, one a sequence, for devices where memory is committed on first touch (CPU); knows nothing of tensors.

A slot can hold the longest context, but costs only what was written to it. The budget counts written tokens over all
slots; contents of finished sequences stay for reuse until the budget or a slot is needed. With a `PrefixTier` they go there then, and come
back into an idle slot, which is then like any other that holds a prefix: who needs it waits, as for one that is being computed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from mm_gateway.runtime.scheduling.allocator import Refusal, common_prefix_length
from mm_gateway.runtime.scheduling.sequence import Sequence

MIN_SHARED = 16
"""A shared prefix shorter than this is recomputed: cheaper than a copy."""


class PrefixTier(Protocol):
    """What is kept of prefixes that left their slots. Called by the engine's thread."""

    def longest(self, tokens: list[int], angles: int, limit: int) -> int:
        """How many of the first tokens, at most `limit`, are kept with these rotary angles."""
        ...

    def arrived(self) -> list[tuple[int, int]]:
        """(slot, tokens that are in it now) of each RestoreSlot that has ended since the last call. Fewer tokens than were asked for: the
        others are not kept any more, and `longest` counts them no longer."""
        ...


@dataclass(slots=True)
class Slot:
    """tokens: what it holds, known or still to be computed; angles: of its keys; valid: how many are computed; committed: high-water
    mark in tokens; restoring: its tokens are on their way from the tier."""

    index: int
    owner: int | None = None
    restoring: bool = False
    tokens: list[int] = field(default_factory=list[int])
    angles: int = 0
    valid: int = 0
    committed: int = 0
    last_used: int = 0

    @property
    def idle(self) -> bool:
        """Nobody has it: it may hold something all the same."""
        return self.owner is None and not self.restoring


@dataclass(frozen=True, slots=True)
class CopyPrefix:
    """Copy the first `length` tokens' keys and values from slot `source` to slot `target`."""

    source: int
    target: int
    length: int


@dataclass(frozen=True, slots=True)
class DropSlot:
    """Give the memory of slot `index` back to the system."""

    index: int


@dataclass(frozen=True, slots=True)
class SaveSlot:
    """Keep what slot `index` holds in the tier, keys and values of `tokens` with rotary angles `angles`: what stands from position
    `start` on is about to be lost."""

    index: int
    tokens: list[int]
    angles: int
    start: int


@dataclass(frozen=True, slots=True)
class RestoreSlot:
    """Begin to bring keys and values of `tokens` from the tier into slot `index`; `PrefixTier.arrived` tells of its end."""

    index: int
    tokens: list[int]
    angles: int


SlotChange = CopyPrefix | DropSlot | SaveSlot | RestoreSlot


class SlotAllocator:
    """KVAllocator over `slots` slots of `slot_len` tokens, with at most `budget_tokens` written at a time.

    `pending` lists changes in the order in which they must be applied to the storage, before anything is
    written for the sequences admitted since.

    Attributes:
        tier: keeps what leaves the slots; None: it is lost.
    """

    def __init__(self, slots: int, slot_len: int, budget_tokens: int, *, reuse: bool = True) -> None:
        self._slots = [Slot(i) for i in range(slots)]
        self._slot_len = slot_len
        self._budget = budget_tokens
        self._committed = 0
        self._reuse = reuse
        self._owned: dict[int, Slot] = {}
        self._clock = 0
        self.tier: PrefixTier | None = None
        self.pending: list[SlotChange] = []

    @property
    def max_tokens(self) -> int:
        return min(self._slot_len, self._budget)

    @property
    def committed_tokens(self) -> int:
        """Tokens' worth of memory written to and not given back."""
        return self._committed

    @property
    def capacity_tokens(self) -> int:
        return self._budget

    @property
    def free_tokens(self) -> int:
        # The list is made in one step, whatever the engine's thread does meanwhile.
        return self._budget - sum(slot.committed for slot in list(self._owned.values()))

    @property
    def transferring(self) -> bool:
        return any(slot.restoring for slot in self._slots)

    def slot_of(self, seq: Sequence) -> int:
        return self._owned[seq.id].index

    def allocate(self, seq: Sequence) -> int | Refusal:
        self._take_in()
        reuse = self._reuse and seq.reuse_prefix
        source, shared = self._longest_prefix(seq) if reuse else (None, 0)
        if source is not None and not source.idle:
            # A live sequence that will hold more of this prefix soon: waiting is cheaper than computing it twice.
            coming = common_prefix_length(source.tokens, seq.tokens, len(seq.tokens) - 1)
            if source.valid < len(source.tokens) - 1 and coming - shared >= MIN_SHARED:
                return Refusal.WAIT_FOR_PREFIX
        if reuse and self.tier is not None and (refusal := self._restore(self.tier, seq, shared)) is not None:
            return refusal
        if shared < MIN_SHARED:
            source, shared = None, 0
        target = self._place(seq, source, shared)
        if target is None:
            return Refusal.NO_ROOM
        self._save(target, shared if source is target else 0)
        if source is not None and source is not target:
            self.pending.append(CopyPrefix(source.index, target.index, shared))
        target.owner, target.tokens, target.angles, target.valid = seq.id, seq.tokens, seq.angles, shared
        self._commit_tokens(target, len(seq.tokens))
        self._owned[seq.id] = target
        return shared

    def extend(self, seq: Sequence) -> bool:
        self._take_in()
        slot = self._owned[seq.id]
        if not self._make_room(len(seq.tokens) - slot.committed, keep=(slot,)):
            return False
        self._commit_tokens(slot, len(seq.tokens))
        return True

    def commit(self, seq: Sequence) -> None:
        self._owned[seq.id].valid = seq.computed

    def release(self, seq: Sequence) -> None:
        slot = self._owned.pop(seq.id)
        self._clock += 1
        slot.owner, slot.valid, slot.last_used = None, seq.computed, self._clock
        slot.tokens = seq.tokens[: seq.computed]

    def discard(self, seq: Sequence) -> None:
        seq.computed = 0
        slot = self._owned[seq.id]
        self.release(seq)
        self._drop(slot)

    def save_all(self) -> None:
        """Have the tier keep all that is in slots, what was used last first. For the end: nothing may be asked for after it."""
        self._clock += 1
        for slot in sorted(self._slots, key=lambda slot: self._clock if slot.owner is not None else slot.last_used, reverse=True):
            self._save(slot, 0)

    def check_integrity(self) -> None:
        owners = {slot.owner: slot for slot in self._slots if slot.owner is not None}
        assert owners == self._owned, "a slot's owner is not who has it"
        assert self._committed == sum(slot.committed for slot in self._slots) <= self._budget
        for slot in self._slots:
            assert slot.committed <= self._slot_len
            assert slot.valid <= min(len(slot.tokens), slot.committed)
            # The last token of an owner may have been sampled since, and asks for room in the next step.
            assert len(slot.tokens) <= (slot.valid if slot.idle else slot.committed + 1)
            assert not slot.restoring or (slot.owner is None and not slot.valid)

    def _longest_prefix(self, seq: Sequence) -> tuple[Slot | None, int]:
        """The slot that holds, or will hold, most of this prompt's beginning, and how much it holds now."""
        limit = len(seq.tokens) - 1  # the last token must run, for its logits
        best, best_key, shared = None, (MIN_SHARED - 1, 0), 0
        for slot in self._slots:
            known = slot.tokens
            if slot.angles != seq.angles or len(known) < MIN_SHARED or known[:MIN_SHARED] != seq.tokens[:MIN_SHARED]:
                continue
            coming = common_prefix_length(known, seq.tokens, limit)
            now = min(coming, slot.valid)
            # Most shared tokens first; among equals one that holds them already, best an idle one.
            key = (coming, 2 * now + slot.idle)
            if key > best_key:
                best, best_key, shared = slot, key, now
        return best, shared

    def _place(self, seq: Sequence, source: Slot | None, shared: int) -> Slot | None:
        """An idle slot with room for the sequence, for which other idle ones are dropped; None where there is no room."""
        target = self._choose_target(source, shared)
        if target is not None and self._make_room(len(seq.tokens) - target.committed, keep=(source, target)):
            return target
        # No room beside the prefix: go on in its place, which costs what was kept after it. Keeping it at any price would
        # have the sequence wait for room that only itself can free.
        if source is not None and source.idle and self._make_room(len(seq.tokens) - source.committed, keep=(source,)):
            return source
        return None

    def _choose_target(self, source: Slot | None, shared: int) -> Slot | None:
        idle = [slot for slot in self._slots if slot.idle]
        if source is not None and source.idle and (2 * shared >= source.valid or len(idle) == 1):
            return source  # most of it is what we need: go on in place
        idle = [slot for slot in idle if slot is not source]
        if not idle:
            return None
        # Empty slots first, lowest first so that running slots stay neighbours; then the least recently used.
        return min(idle, key=lambda slot: (slot.last_used if slot.valid else 0, slot.index))

    def _make_room(self, growth: int, keep: tuple[Slot | None, ...]) -> bool:
        """Drop idle contents, least recently used first, until `growth` more tokens fit the budget."""
        if growth <= self._budget - self._committed:
            return True
        idle = [slot for slot in self._slots if slot.idle and slot.committed and slot not in keep]
        if growth > self._budget - self._committed + sum(slot.committed for slot in idle):
            return False
        for slot in sorted(idle, key=lambda slot: slot.last_used):
            self._drop(slot)
            if growth <= self._budget - self._committed:
                break
        return True

    def _restore(self, tier: PrefixTier, seq: Sequence, shared: int) -> Refusal | None:
        """Bring more of the prompt's beginning than the `shared` tokens of a slot from the tier, where it has it; what to wait for then."""
        kept = tier.longest(seq.tokens, seq.angles, len(seq.tokens) - 1)
        if kept - shared < MIN_SHARED:
            return None
        target = self._place(seq, None, 0)
        if target is None:
            return Refusal.NO_ROOM
        self._save(target, 0)
        target.restoring, target.tokens, target.angles, target.valid = True, seq.tokens[:kept], seq.angles, 0
        self._commit_tokens(target, len(seq.tokens))
        self.pending.append(RestoreSlot(target.index, target.tokens, target.angles))
        return Refusal.WAIT_FOR_PREFIX

    def _take_in(self) -> None:
        """What has arrived from the tier is the contents of an idle slot."""
        for index, length in self.tier.arrived() if self.tier is not None else ():
            slot = self._slots[index]
            self._clock += 1
            slot.restoring, slot.valid, slot.last_used = False, length, self._clock
            slot.tokens = slot.tokens[:length]

    def _save(self, slot: Slot, start: int) -> None:
        """What a slot holds from position `start` on is about to be lost."""
        if self.tier is not None and slot.valid - start >= MIN_SHARED:
            self.pending.append(SaveSlot(slot.index, slot.tokens[: slot.valid], slot.angles, start))

    def _drop(self, slot: Slot) -> None:
        self._save(slot, 0)
        self._committed -= slot.committed
        slot.tokens, slot.valid, slot.committed = [], 0, 0
        self.pending.append(DropSlot(slot.index))

    def _commit_tokens(self, slot: Slot, tokens: int) -> None:
        if tokens > slot.committed:
            self._committed += tokens - slot.committed
            slot.committed = tokens
