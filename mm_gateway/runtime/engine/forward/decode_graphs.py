"""Decode steps as CUDA graphs, one per batch size in a short list: a step then costs one launch instead of one per operation.

Everything that changes from step to step is read from fixed tensors, which `run` fills; rows beyond the batch are
padding. See https://pytorch.org/blog/accelerating-pytorch-with-cuda-graphs/.
"""

from __future__ import annotations

import logging

import torch
from transformers import PreTrainedModel

from mm_gateway.runtime.engine.forward.attention_hook import forward
from mm_gateway.runtime.kv_cache.cache import KVCache
from mm_gateway.runtime.scheduling.scheduler import ScheduledSequence

logger = logging.getLogger(__name__)


def batch_sizes(max_running: int) -> list[int]:
    """Sizes that are captured: 1, 2, 4, then multiples of 8 up to `max_running`, itself included."""
    return sorted({size for size in (1, 2, 4, *range(8, max_running, 8)) if size < max_running} | {max_running})


class StaticDecodeBatch:
    """The fixed inputs of a decode step of up to `size` sequences.

    Attributes:
        tokens, positions: [size] int64.
    """

    def __init__(self, size: int, cache: KVCache, device: torch.device) -> None:
        self.size = size
        self._step = cache.fixed_step(size)
        self.tokens = torch.zeros(size, dtype=torch.int64, device=device)
        self.positions = torch.zeros(size, dtype=torch.int64, device=device)
        self.wanted = torch.arange(size, dtype=torch.int64, device=device)

    def fill(self, step: list[ScheduledSequence]) -> None:
        """Copy a step's numbers in; rows beyond it become padding. One transfer to the device each."""
        padding = [0] * (self.size - len(step))
        self.tokens.copy_(torch.tensor([s.seq.tokens[s.seq.computed] for s in step] + padding), non_blocking=True)
        self.positions.copy_(torch.tensor([s.seq.computed for s in step] + padding), non_blocking=True)
        self._step.fill(step)

    def forward(self, model: PreTrainedModel) -> tuple[torch.Tensor, int]:
        """Logits [size, vocabulary] of what was filled in, and how many layers used the cache."""
        attention = self._step.attention()
        return forward(model, self.tokens, self.positions, self.wanted, attention), attention.layers_seen


class DecodeGraphs:
    """Captured decode steps of one model. All calls come from the engine's thread, under inference mode.

    Args:
        cache: a capturable one. layers: attention layers of the model. max_running: the largest batch.
    """

    def __init__(self, model: PreTrainedModel, cache: KVCache, *, layers: int, max_running: int) -> None:
        self._graphs: dict[int, tuple[StaticDecodeBatch, torch.cuda.CUDAGraph, torch.Tensor]] = {}
        self._sizes = batch_sizes(max_running)
        pool = torch.cuda.graph_pool_handle()
        for size in reversed(self._sizes):  # largest first: the others fit into the memory that it took
            batch = StaticDecodeBatch(size, cache, model.device)
            stream = torch.cuda.Stream(model.device)
            stream.wait_stream(torch.cuda.current_stream(model.device))
            with torch.cuda.stream(stream):  # kernels are chosen and compiled outside the capture
                batch.forward(model)
                _, seen = batch.forward(model)
            torch.cuda.current_stream(model.device).wait_stream(stream)
            assert seen == layers
            graph = torch.cuda.CUDAGraph()
            # Thread-local: other models' engines go on allocating meanwhile.
            with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                logits, _ = batch.forward(model)
            self._graphs[size] = batch, graph, logits
        logger.info("captured decode graphs for %s sequences", ", ".join(map(str, self._sizes)))

    def run(self, step: list[ScheduledSequence]) -> torch.Tensor:
        """Logits [len(step), vocabulary] of a step of decodes alone; they hold until the next call."""
        size = next(size for size in self._sizes if size >= len(step))
        batch, graph, logits = self._graphs[size]
        batch.fill(step)
        graph.replay()
        return logits[: len(step)]
