"""The KV cache of a CPU: the slot allocator joined to its storage."""

from __future__ import annotations

import time
from hashlib import blake2b

import torch

from mm_gateway.runtime.kernels.decoder import Cells
from mm_gateway.runtime.kv_cache.allocators.slots import RestoreSlot, SaveSlot, SlotAllocator
from mm_gateway.runtime.kv_cache.cache import AttentionShape, FixedStep
from mm_gateway.runtime.kv_cache.prefix_tiers.block_store import PrefixStore
from mm_gateway.runtime.kv_cache.prefix_tiers.restored_tokens import RestoredTokens
from mm_gateway.runtime.kv_cache.prefix_tiers.slot_tier import SlotTier
from mm_gateway.runtime.kv_cache.slot_attention import PrefillChunk, SlotAttention, plan_decodes
from mm_gateway.runtime.kv_cache.slot_storage import SlotStorage
from mm_gateway.runtime.scheduling.scheduler import ScheduledSequence


class SlotKVCache:
    """KVCache in slots.

    Args:
        shape: the model's attention. slots: sequences that can be held, running and kept for reuse.
        slot_len: tokens of the longest context. budget_bytes: memory that may be written to.
        cells: what keys and values are kept in; those that are not fp32 are for compiled models alone.
    """

    def __init__(
        self, shape: AttentionShape, *, slots: int, slot_len: int, budget_bytes: int, reuse: bool = True, cells: Cells = Cells.FP32
    ) -> None:
        self.cells = cells
        self._shape = shape
        self._tier: SlotTier | None = None
        self._storage = SlotStorage(
            layers=shape.layers, slots=slots, slot_len=slot_len, kv_heads=shape.kv_heads, head_dim=shape.head_dim, cells=cells
        )
        budget_tokens = min(budget_bytes // self._storage.bytes_per_token, slots * slot_len)
        self._capacity_bytes = budget_tokens * self._storage.bytes_per_token
        self.allocator = SlotAllocator(slots, slot_len, budget_tokens, reuse=reuse)

    @property
    def capacity_bytes(self) -> int:
        return self._capacity_bytes

    @property
    def capturable(self) -> bool:
        return False

    def fixed_step(self, size: int) -> FixedStep:
        raise NotImplementedError("slots have no fixed steps: they are for CPUs")

    def keep_prefixes(self, store: PrefixStore, model: bytes) -> bool:
        layout = f"{self._shape} in {self.cells.name}".encode()
        self._tier = self.allocator.tier = SlotTier(store, blake2b(model + layout, digest_size=32).digest(), self._storage)
        return True

    @property
    def restored(self) -> RestoredTokens:
        return self._tier.restored if self._tier is not None else RestoredTokens()

    def wait(self, timeout_s: float) -> None:
        self._apply_pending()
        if self._tier is not None:
            self._tier.wait(timeout_s)

    def close(self, save_s: float) -> None:
        if self._tier is None:
            return
        if save_s:
            self._apply_pending()
            self.allocator.save_all()
            self._apply_pending(deadline=time.monotonic() + save_s)
        self._tier.close()

    @property
    def layers(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values by layer, as `SlotStorage` has them."""
        return self._storage.layers

    def begin_rows(self, step: list[ScheduledSequence]) -> list[int]:
        """Apply what the allocator decided, and say where in `layers` position 0 of each sequence of the step is."""
        self._apply_pending()
        return [self.allocator.slot_of(scheduled.seq) * self._storage.slot_len for scheduled in step]

    def begin_step(self, step: list[ScheduledSequence]) -> tuple[list[ScheduledSequence], SlotAttention]:
        assert self.cells is Cells.FP32, "the model's modules attend to fp32"
        self._apply_pending()
        slot_of, slot_len = self.allocator.slot_of, self._storage.slot_len
        # Slot order makes neighbouring decodes one call; chunks follow.
        decodes = sorted((scheduled for scheduled in step if scheduled.count == 1), key=lambda scheduled: slot_of(scheduled.seq))
        chunks = [scheduled for scheduled in step if scheduled.count > 1]
        slots = [slot_of(scheduled.seq) for scheduled in decodes]
        lengths = [scheduled.seq.computed + 1 for scheduled in decodes]
        rows = [torch.tensor([slot * slot_len + length - 1 for slot, length in zip(slots, lengths, strict=True)], dtype=torch.int64)]
        prefills: list[PrefillChunk] = []
        first_row = len(decodes)
        for scheduled in chunks:
            slot, start = slot_of(scheduled.seq), scheduled.seq.computed
            prefills.append(PrefillChunk(first_row, scheduled.count, slot, start))
            rows.append(torch.arange(slot * slot_len + start, slot * slot_len + start + scheduled.count))
            first_row += scheduled.count
        return decodes + chunks, SlotAttention(self._storage, torch.cat(rows), plan_decodes(slots, lengths), prefills)

    def _apply_pending(self, *, deadline: float | None = None) -> None:
        for change in self.allocator.pending:
            if isinstance(change, RestoreSlot) and self._tier is not None:
                self._tier.hold(change)
        for change in self.allocator.pending:
            match change:
                case SaveSlot():
                    assert self._tier is not None
                    self._tier.save(change, deadline=deadline)
                case RestoreSlot():
                    assert self._tier is not None
                    self._tier.restore(change)
                case _:
                    self._storage.apply(change)
        self.allocator.pending.clear()
