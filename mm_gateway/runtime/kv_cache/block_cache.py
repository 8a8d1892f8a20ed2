"""The KV cache of a GPU: the block allocator joined to its storage and an attention kernel."""

from __future__ import annotations

from collections.abc import Sequence as AbstractSequence

import torch

from mm_gateway.runtime.kv_cache.allocators.blocks import BlockAllocator
from mm_gateway.runtime.kv_cache.block_attention import ChosenKernel, PagedBatch
from mm_gateway.runtime.kv_cache.cache import AttentionShape
from mm_gateway.runtime.kv_cache.prefix_tiers.block_store import PrefixStore
from mm_gateway.runtime.kv_cache.prefix_tiers.restored_tokens import RestoredTokens
from mm_gateway.runtime.scheduling.scheduler import ScheduledSequence

BLOCK_SIZE = 256
"""Tokens of a block: what flash-attn's paged kernels ask for."""


class PagedKVCache:
    """KVCache in blocks. All memory is taken at once.

    Args:
        shape: the model's attention. blocks: of BLOCK_SIZE tokens each, one of them for padding rows, >= 2.
        kernel: reads them. max_seq_tokens: the longest context.
    """

    def __init__(
        self,
        shape: AttentionShape,
        *,
        blocks: int,
        max_seq_tokens: int,
        dtype: torch.dtype,
        device: torch.device,
        kernel: ChosenKernel,
        block_size: int = BLOCK_SIZE,
        reuse: bool = True,
    ) -> None:
        self.kernel = kernel
        self.block_size = block_size
        self.max_blocks = -(-max_seq_tokens // block_size)
        self.device = device
        # Zeros: what a kernel reads of a block beyond a sequence's end must be numbers.
        stored = torch.zeros((2 * shape.layers, blocks, block_size, shape.kv_heads, shape.head_dim), dtype=dtype, device=device)
        self.layers = list(zip(stored[0::2].unbind(), stored[1::2].unbind(), strict=True))
        self._stored = stored
        self.allocator = BlockAllocator(blocks, block_size, max_seq_tokens, reuse=reuse)

    @property
    def capacity_bytes(self) -> int:
        return self._stored.numel() * self._stored.element_size()

    @property
    def capturable(self) -> bool:
        return self.kernel.graphs

    def fixed_step(self, size: int) -> PagedFixedStep:
        return PagedFixedStep(self, size)

    def keep_prefixes(self, store: PrefixStore, model: bytes) -> bool:
        return False

    @property
    def restored(self) -> RestoredTokens:
        return RestoredTokens()

    def wait(self, timeout_s: float) -> None:
        """Nothing is ever on its way."""

    def close(self, save_s: float) -> None:
        """Nothing is kept."""

    def begin_step(self, step: list[ScheduledSequence]) -> tuple[list[ScheduledSequence], PagedStepAttention]:
        self.apply_pending()
        # Decodes first: they are one call of the kernel that gathers.
        step = sorted(step, key=lambda scheduled: scheduled.count > 1)
        tables = [self.allocator.table_of(scheduled.seq) for scheduled in step]
        width = max(len(table) for table in tables)
        starts, rows = [0], []
        for scheduled, table in zip(step, tables, strict=True):
            first = scheduled.seq.computed
            rows += [self.row_of(table, position) for position in range(first, first + scheduled.count)]
            starts.append(starts[-1] + scheduled.count)
        lengths = [scheduled.seq.computed + scheduled.count for scheduled in step]
        batch = PagedBatch(
            query_starts=self._int32(starts),
            seq_lens=self._int32(lengths),
            block_table=self._int32([table + [0] * (width - len(table)) for table in tables]),
            query_lens=[scheduled.count for scheduled in step],
            lengths=lengths,
        )
        return step, PagedStepAttention(self, batch, torch.tensor(rows, dtype=torch.int64).to(self.device, non_blocking=True))

    def apply_pending(self) -> None:
        """Carry out the copies that the allocator decided."""
        for copy in self.allocator.pending:
            self._stored[:, copy.target, : copy.length] = self._stored[:, copy.source, : copy.length]
        self.allocator.pending.clear()

    def row_of(self, table: AbstractSequence[int], position: int) -> int:
        """Where a sequence's token is, counted over all blocks."""
        return table[position // self.block_size] * self.block_size + position % self.block_size

    def _int32(self, numbers: list[int] | list[list[int]]) -> torch.Tensor:
        return torch.tensor(numbers, dtype=torch.int32).to(self.device, non_blocking=True)


class PagedStepAttention:
    """One step's attention: writes the step's keys and values, then runs the kernel. Called once per layer.

    Args:
        batch: what the kernel reads. rows: [tokens] int64, the storage row of each token of the step.
    """

    def __init__(self, cache: PagedKVCache, batch: PagedBatch, rows: torch.Tensor) -> None:
        self._cache = cache
        self._batch = batch
        self._rows = rows
        self.layers_seen = 0

    def __call__(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, window: int | None
    ) -> torch.Tensor:
        self.layers_seen += 1
        tokens, rows = len(self._rows), query.shape[2]
        keys, values = self._cache.layers[layer]
        keys.flatten(0, 1).index_copy_(0, self._rows, key[0, :, :tokens].transpose(0, 1).to(keys.dtype))
        values.flatten(0, 1).index_copy_(0, self._rows, value[0, :, :tokens].transpose(0, 1).to(values.dtype))
        queries = query[0, :, :tokens].transpose(0, 1).contiguous()
        attended = self._cache.kernel.run(queries, keys, values, self._batch, scaling, window)
        if rows > tokens:
            attended = torch.nn.functional.pad(attended, (0, 0, 0, 0, 0, rows - tokens))
        return attended[None]


class PagedFixedStep:
    """FixedStep over blocks.

    Attributes:
        rows: [size] int64. seq_lens: [size] int32. block_table: [size, blocks of the longest context] int32.
    """

    def __init__(self, cache: PagedKVCache, size: int) -> None:
        self._cache = cache
        self._size = size
        self.rows = torch.zeros(size, dtype=torch.int64, device=cache.device)
        self.seq_lens = torch.ones(size, dtype=torch.int32, device=cache.device)
        self.block_table = torch.zeros((size, cache.max_blocks), dtype=torch.int32, device=cache.device)
        self.query_starts = torch.arange(size + 1, dtype=torch.int32, device=cache.device)

    def fill(self, step: list[ScheduledSequence]) -> None:
        self._cache.apply_pending()
        padding, width = self._size - len(step), self._cache.max_blocks
        tables = [self._cache.allocator.table_of(scheduled.seq) for scheduled in step]
        ends = [scheduled.seq.computed for scheduled in step]
        # Padding rows write to the first rows of block 0, which no sequence has.
        rows = [self._cache.row_of(table, end) for table, end in zip(tables, ends, strict=True)] + [0] * padding
        self.rows.copy_(torch.tensor(rows), non_blocking=True)
        self.seq_lens.copy_(torch.tensor([end + 1 for end in ends] + [1] * padding, dtype=torch.int32), non_blocking=True)
        table = torch.tensor([t + [0] * (width - len(t)) for t in tables] + [[0] * width] * padding, dtype=torch.int32)
        self.block_table.copy_(table, non_blocking=True)

    def attention(self) -> PagedStepAttention:
        longest = self._cache.max_blocks * self._cache.block_size
        batch = PagedBatch(self.query_starts, self.seq_lens, self.block_table, [1] * self._size, [longest] * self._size)
        return PagedStepAttention(self._cache, batch, self.rows)
