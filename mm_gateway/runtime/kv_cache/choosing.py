"""Chooses a model's KV cache, slots or pages, and how large it may be."""

from __future__ import annotations

import logging
from typing import Literal

import psutil
import torch

from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.errors import OUT_OF_MEMORY_ADVICE, OutOfMemoryError
from mm_gateway.runtime.kernels.decoder import Cells
from mm_gateway.runtime.kv_cache.block_attention import choose_kernel
from mm_gateway.runtime.kv_cache.block_cache import BLOCK_SIZE, PagedKVCache
from mm_gateway.runtime.kv_cache.cache import AttentionShape, KVCache
from mm_gateway.runtime.kv_cache.slot_cache import SlotKVCache

logger = logging.getLogger(__name__)

Layout = Literal["slots", "paged"]


def make_kv_cache(
    shape: AttentionShape,
    *,
    device: torch.device,
    dtype: torch.dtype,
    context_length: int,
    settings: EngineSettings,
    budget_bytes: int | None = None,
    budget_tokens: int | None = None,
    flash_attention: bool = False,
    layout: Layout | None = None,
    block_size: int = BLOCK_SIZE,
    cells: Cells = Cells.FP32,
) -> KVCache:
    """The cache of one model.

    Args:
        dtype: of keys and values in pages on a GPU; on a CPU those are fp32, as activations are. cells: the same for slots.
        budget_bytes: memory that it may take; None: a quarter of the host's or half of the GPU's that is free now, so that
            other models find room, and never more than its sequences can use. budget_tokens: the same in tokens, instead.
        layout: None: slots on a CPU, where memory costs nothing before it is written; pages on a GPU.

    Raises:
        OutOfMemoryError: the budget does not hold one short sequence.
    """
    layout = layout or ("slots" if device.type == "cpu" else "paged")
    dtype = torch.float32 if device.type == "cpu" else dtype
    per_token = shape.bytes_per_token(cells.head_bytes(shape.head_dim) if layout == "slots" else shape.head_dim * dtype.itemsize)
    # As many again as run, so that finished conversations stay for their next turn.
    sequences = 2 * settings.max_running if settings.prefix_cache else settings.max_running
    if budget_tokens is not None:
        budget_bytes = budget_tokens * per_token
    if budget_bytes is None:
        free = torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else psutil.virtual_memory().available // 4
        budget_bytes = min(free, sequences * context_length * per_token)
    if layout == "slots":
        _check(budget_bytes, 64 * per_token)
        budget_bytes = min(budget_bytes, sequences * context_length * per_token)
        return SlotKVCache(
            shape, slots=sequences, slot_len=context_length, budget_bytes=budget_bytes, reuse=settings.prefix_cache, cells=cells
        )
    needed = sequences * -(-context_length // block_size) + 1
    blocks = min(budget_bytes // (per_token * block_size), needed)
    _check(blocks, 2)
    kernel = choose_kernel(
        device=device,
        dtype=dtype,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        block_size=block_size,
        flash_attention=flash_attention,
    )
    logger.info("attention: %s", kernel.name)
    return PagedKVCache(
        shape,
        blocks=blocks,
        max_seq_tokens=context_length,
        dtype=dtype,
        device=device,
        kernel=kernel,
        block_size=block_size,
        reuse=settings.prefix_cache,
    )


def _check(there: int, needed: int) -> None:
    if there < needed:
        raise OutOfMemoryError(f"The memory for the KV cache does not hold one short sequence. {OUT_OF_MEMORY_ADVICE}")
