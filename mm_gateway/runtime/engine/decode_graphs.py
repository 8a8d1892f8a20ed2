"""Decode steps as CUDA graphs, one per batch size in a short list: a step then costs one launch instead of one per operation.

Everything that changes from step to step is read from fixed tensors, which `run` fills; rows beyond the batch are
padding that writes to the cache's block 0. See https://pytorch.org/blog/accelerating-pytorch-with-cuda-graphs/.
"""

from __future__ import annotations

import logging

import torch
from transformers import PreTrainedModel

from mm_gateway.runtime.engine.attention_hook import forward
from mm_gateway.runtime.kv_cache.block_attention import PagedBatch
from mm_gateway.runtime.kv_cache.block_cache import PagedKVCache, PagedStepAttention
from mm_gateway.runtime.scheduling.scheduler import ScheduledSequence

logger = logging.getLogger(__name__)


def batch_sizes(max_running: int) -> list[int]:
    """Sizes that are captured: 1, 2, 4, then multiples of 8 up to `max_running`, itself included."""
    return sorted({size for size in (1, 2, 4, *range(8, max_running, 8)) if size < max_running} | {max_running})


class StaticDecodeBatch:
    """The fixed inputs of a decode step of up to `size` sequences.

    Attributes:
        tokens, positions, rows: [size] int64. seq_lens: [size] int32. block_table: [size, blocks of the longest context] int32.
    """

    def __init__(self, size: int, cache: PagedKVCache) -> None:
        device = cache.device
        self.size = size
        self._cache = cache
        self.tokens = torch.zeros(size, dtype=torch.int64, device=device)
        self.positions = torch.zeros(size, dtype=torch.int64, device=device)
        self.rows = torch.zeros(size, dtype=torch.int64, device=device)
        self.seq_lens = torch.ones(size, dtype=torch.int32, device=device)
        self.block_table = torch.zeros((size, cache.max_blocks), dtype=torch.int32, device=device)
        self.query_starts = torch.arange(size + 1, dtype=torch.int32, device=device)
        self.wanted = torch.arange(size, dtype=torch.int64, device=device)

    def fill(self, step: list[ScheduledSequence]) -> None:
        """Copy a step's numbers in; rows beyond it become padding. One transfer to the device each."""
        padding = self.size - len(step)
        tables = [self._cache.allocator.table_of(scheduled.seq) for scheduled in step]
        ends = [scheduled.seq.computed for scheduled in step]
        # Padding rows write to the first rows of block 0, which no sequence has.
        rows = [self._cache.row_of(table, end) for table, end in zip(tables, ends, strict=True)] + [0] * padding
        width = self._cache.max_blocks
        self.tokens.copy_(torch.tensor([s.seq.tokens[s.seq.computed] for s in step] + [0] * padding), non_blocking=True)
        self.positions.copy_(torch.tensor(ends + [0] * padding), non_blocking=True)
        self.rows.copy_(torch.tensor(rows), non_blocking=True)
        self.seq_lens.copy_(torch.tensor([end + 1 for end in ends] + [1] * padding, dtype=torch.int32), non_blocking=True)
        table = torch.tensor([t + [0] * (width - len(t)) for t in tables] + [[0] * width] * padding, dtype=torch.int32)
        self.block_table.copy_(table, non_blocking=True)

    def forward(self, model: PreTrainedModel) -> tuple[torch.Tensor, int]:
        """Logits [size, vocabulary] of what was filled in, and how many layers used the cache."""
        longest = self._cache.max_blocks * self._cache.block_size
        batch = PagedBatch(self.query_starts, self.seq_lens, self.block_table, [1] * self.size, [longest] * self.size)
        attention = PagedStepAttention(self._cache, batch, self.rows)
        return forward(model, self.tokens, self.positions, self.wanted, attention), attention.layers_seen


class DecodeGraphs:
    """Captured decode steps of one model. All calls come from the engine's thread, under inference mode.

    Args:
        max_running: the largest batch.
    """

    def __init__(self, model: PreTrainedModel, cache: PagedKVCache, *, layers: int, max_running: int) -> None:
        self._cache = cache
        self._graphs: dict[int, tuple[StaticDecodeBatch, torch.cuda.CUDAGraph, torch.Tensor]] = {}
        self._sizes = batch_sizes(max_running)
        pool = torch.cuda.graph_pool_handle()
        for size in reversed(self._sizes):  # largest first: the others fit into the memory that it took
            batch = StaticDecodeBatch(size, cache)
            stream = torch.cuda.Stream(cache.device)
            stream.wait_stream(torch.cuda.current_stream(cache.device))
            with torch.cuda.stream(stream):  # kernels are chosen and compiled outside the capture
                batch.forward(model)
                _, seen = batch.forward(model)
            torch.cuda.current_stream(cache.device).wait_stream(stream)
            assert seen == layers
            graph = torch.cuda.CUDAGraph()
            # Thread-local: other models' engines go on allocating meanwhile.
            with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                logits, _ = batch.forward(model)
            self._graphs[size] = batch, graph, logits
        logger.info("captured decode graphs for %s sequences", ", ".join(map(str, self._sizes)))

    def run(self, step: list[ScheduledSequence]) -> torch.Tensor:
        """Logits [len(step), vocabulary] of a step of decodes alone; they hold until the next call."""
        self._cache.apply_pending()
        size = next(size for size in self._sizes if size >= len(step))
        batch, graph, logits = self._graphs[size]
        batch.fill(step)
        graph.replay()
        return logits[: len(step)]
