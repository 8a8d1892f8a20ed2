"""Attention of one packed step over KV slots, with torch's scaled_dot_product_attention on views: no gather of the cache.

Rows of the packed batch are decoding sequences in slot order, then the chunks of prefills. Neighbouring slots of about
the same length are attended in one call, masked to each one's length; grouped query heads become query rows, so keys
and values are never expanded.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch.nn.functional import scaled_dot_product_attention

from mm_gateway.runtime.kv_cache.slot_storage import SlotStorage

CALL_COST_TOKENS = 512
"""What one more attention call costs, as tokens that could be attended in vain in its place."""


@dataclass(slots=True)
class DecodeRun:
    """Rows [first_row, first_row + rows) attend slots [first_slot, first_slot + span) up to `length` tokens.

    lengths: tokens that each row's sequence has, this step's included. row_slots: each row's slot within the span, or
    None where rows and slots match one to one.
    """

    first_row: int
    first_slot: int
    lengths: list[int]
    slots: list[int]
    span: int = 0
    length: int = 0
    row_slots: torch.Tensor | None = None
    masks: dict[int | None, torch.Tensor | None] = field(default_factory=dict)

    def seal(self) -> DecodeRun:
        self.span = self.slots[-1] - self.first_slot + 1
        self.length = max(self.lengths)
        if self.span != len(self.slots):
            self.row_slots = torch.tensor(self.slots) - self.first_slot
        return self

    def mask(self, window: int | None) -> torch.Tensor | None:
        """Additive [span, 1, 1, length]; None where every row sees all. Rows without a sequence see their first token."""
        if window not in self.masks:
            self.masks[window] = self._make_mask(window)
        return self.masks[window]

    def _make_mask(self, window: int | None) -> torch.Tensor | None:
        if self.row_slots is None and min(self.lengths) == self.length and (window is None or self.length <= window):
            return None
        ends = torch.tensor(self.lengths)
        if self.row_slots is not None:
            ends = torch.ones(self.span, dtype=torch.int64).index_copy_(0, self.row_slots, ends)
        positions = torch.arange(self.length)
        seen = positions < ends[:, None]
        if window is not None:
            seen &= positions >= ends[:, None] - window
        return torch.zeros(seen.shape, dtype=torch.float32).masked_fill_(~seen, -torch.inf)[:, None, None, :]


@dataclass(slots=True)
class PrefillChunk:
    """Rows [first_row, first_row + count) are positions [start, start + count) of the sequence in `slot`."""

    first_row: int
    count: int
    slot: int
    start: int
    masks: dict[int | None, torch.Tensor | None] = field(default_factory=dict)

    def mask(self, window: int | None) -> torch.Tensor | None:
        """Additive [count, start + count]; None where plain causal attention does."""
        if window not in self.masks:
            self.masks[window] = self._make_mask(window)
        return self.masks[window]

    def _make_mask(self, window: int | None) -> torch.Tensor | None:
        end = self.start + self.count
        if self.start == 0 and (window is None or end <= window):
            return None
        rows, positions = torch.arange(self.start, end)[:, None], torch.arange(end)
        hidden = positions > rows
        if window is not None:
            hidden |= positions <= rows - window
        return torch.zeros(hidden.shape, dtype=torch.float32).masked_fill_(hidden, -torch.inf)


class SlotAttention:
    """One step's attention: writes the step's keys and values, then attends. Called once per layer.

    Args:
        storage: where keys and values live.
        rows: [tokens] int64, the storage row of each token of the step.
        decodes: runs that together cover the first rows. prefills: chunks that cover the rest.
    """

    def __init__(self, storage: SlotStorage, rows: torch.Tensor, decodes: list[DecodeRun], prefills: list[PrefillChunk]) -> None:
        self._storage = storage
        self._rows = rows
        self._decodes = decodes
        self._prefills = prefills
        self.layers_seen = 0

    def __call__(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, window: int | None
    ) -> torch.Tensor:
        """query [1, heads, rows, head_dim], key and value [1, kv_heads, rows, head_dim] -> [1, rows, heads, head_dim].

        Rows beyond the step's tokens are padding; they come out as zeros.
        """
        self.layers_seen += 1
        _, heads, rows, head_dim = query.shape
        tokens = len(self._rows)
        keys, values = self._storage.layers[layer]
        keys.index_copy_(0, self._rows, key[0, :, :tokens].transpose(0, 1).reshape(tokens, -1))
        values.index_copy_(0, self._rows, value[0, :, :tokens].transpose(0, 1).reshape(tokens, -1))
        queries = query[0].transpose(0, 1)
        slotted = (self._storage.slots, self._storage.slot_len, self._storage.kv_heads, head_dim)
        slot_keys, slot_values = keys.view(slotted), values.view(slotted)
        pieces = [self._decode(run, queries, slot_keys, slot_values, scaling, window) for run in self._decodes]
        pieces += [self._prefill(chunk, queries, slot_keys, slot_values, scaling, window) for chunk in self._prefills]
        if rows > tokens:
            pieces.append(query.new_zeros(rows - tokens, heads * head_dim))
        return (pieces[0] if len(pieces) == 1 else torch.cat(pieces)).view(1, rows, heads, head_dim)

    def _decode(
        self, run: DecodeRun, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scaling: float, window: int | None
    ) -> torch.Tensor:
        rows = len(run.slots)
        here = queries[run.first_row : run.first_row + rows].unflatten(1, (keys.shape[2], -1))
        if run.row_slots is not None:
            here = here.new_zeros((run.span, *here.shape[1:])).index_copy_(0, run.row_slots, here)
        slots = slice(run.first_slot, run.first_slot + run.span)
        attended = scaled_dot_product_attention(
            here,
            keys[slots, : run.length].transpose(1, 2),
            values[slots, : run.length].transpose(1, 2),
            attn_mask=run.mask(window),
            scale=scaling,
        )
        if run.row_slots is not None:
            attended = attended.index_select(0, run.row_slots)
        return attended.reshape(rows, -1)

    def _prefill(
        self, chunk: PrefillChunk, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scaling: float, window: int | None
    ) -> torch.Tensor:
        # [1, count, kv_heads, group, head_dim]
        here = queries[None, chunk.first_row : chunk.first_row + chunk.count].unflatten(2, (keys.shape[2], -1))
        end = chunk.start + chunk.count
        slot_keys, slot_values = keys[chunk.slot, None, :end].transpose(1, 2), values[chunk.slot, None, :end].transpose(1, 2)
        mask = chunk.mask(window)
        attended = [
            scaled_dot_product_attention(
                here[:, :, :, member].transpose(1, 2), slot_keys, slot_values, attn_mask=mask, is_causal=mask is None, scale=scaling
            ).transpose(1, 2)
            for member in range(here.shape[3])
        ]
        # Heads are ordered by KV head, then by member of its group.
        return torch.stack(attended, dim=3).view(chunk.count, -1) if len(attended) > 1 else attended[0].reshape(chunk.count, -1)


def plan_decodes(slots: list[int], lengths: list[int]) -> list[DecodeRun]:
    """Cut rows, in slot order, into runs: one more slot joins where that wastes less than another call costs."""
    runs: list[DecodeRun] = []
    for row, (slot, length) in enumerate(zip(slots, lengths, strict=True)):
        if runs:
            run = runs[-1]
            longest = max(run.lengths)
            before = (run.slots[-1] - run.first_slot + 1) * longest
            joined = (slot - run.first_slot + 1) * max(longest, length)
            if joined - before - length <= CALL_COST_TOKENS:
                run.slots.append(slot)
                run.lengths.append(length)
                continue
        runs.append(DecodeRun(first_row=row, first_slot=slot, slots=[slot], lengths=[length]))
    return [run.seal() for run in runs]
