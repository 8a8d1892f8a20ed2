"""Attention over a paged KV cache: three interchangeable kernels, and the one batch that they all read.

A kernel takes query [tokens, heads, head_dim] and one layer's keys and values [blocks, block_size, kv_heads, head_dim],
and gives [tokens, heads, head_dim]. Every sequence's queries are its last positions, each seeing all before it.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.functional import scaled_dot_product_attention

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PagedBatch:
    """Which rows belong to which sequence, and where its keys and values are. Tensors are int32 on the device.

    Attributes:
        query_starts: [sequences + 1], first row of each. query_lens, lengths: the same on the host, and tokens of each with this step's.
        seq_lens: [sequences], tokens of each. block_table: [sequences, blocks of the longest].
    """

    query_starts: torch.Tensor
    seq_lens: torch.Tensor
    block_table: torch.Tensor
    query_lens: list[int]
    lengths: list[int]

    @property
    def max_query(self) -> int:
        return max(self.query_lens)

    @property
    def max_length(self) -> int:
        return max(self.lengths)


Kernel = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, PagedBatch, float, int | None], torch.Tensor]


def flash_attn_kernel(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, batch: PagedBatch, scaling: float, window: int | None
) -> torch.Tensor:
    """The flash-attn package (https://arxiv.org/abs/2307.08691); blocks must be multiples of 256 tokens."""
    from flash_attn import flash_attn_varlen_func  # type: ignore[import-not-found]

    return flash_attn_varlen_func(
        query,
        keys,
        values,
        cu_seqlens_q=batch.query_starts,
        cu_seqlens_k=torch.nn.functional.pad(batch.seq_lens.cumsum(0, dtype=torch.int32), (1, 0)),
        max_seqlen_q=batch.max_query,
        max_seqlen_k=batch.max_length,
        softmax_scale=scaling,
        causal=True,
        window_size=(-1, -1) if window is None else (window - 1, 0),
        block_table=batch.block_table,
    )


def torch_varlen_kernel(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, batch: PagedBatch, scaling: float, window: int | None
) -> torch.Tensor:
    """torch's own FlashAttention with a block table (`torch.nn.attention.varlen`)."""
    from torch.nn.attention.varlen import varlen_attn

    attended = varlen_attn(
        query,
        keys,
        values,
        batch.query_starts,
        None,
        batch.max_query,
        batch.max_length,
        scale=scaling,
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=query.shape[1] != keys.shape[2],
        seqused_k=batch.seq_lens,
        block_table=batch.block_table,
    )
    assert isinstance(attended, torch.Tensor)
    return attended


def gather_kernel(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, batch: PagedBatch, scaling: float, window: int | None
) -> torch.Tensor:
    """Any device and dtype: gathers the blocks for scaled_dot_product_attention; decodes in one call, chunks one by one."""
    decodes = next((row for row, count in enumerate(batch.query_lens) if count > 1), len(batch.query_lens))
    pieces = [_gather_decodes(query[:decodes], keys, values, batch, scaling, window)] if decodes else []
    first = decodes
    for row in range(decodes, len(batch.query_lens)):
        count, length = batch.query_lens[row], batch.lengths[row]
        pieces.append(_gather_chunk(query[first : first + count], keys, values, batch.block_table[row], length, scaling, window))
        first += count
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def _gather_decodes(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, batch: PagedBatch, scaling: float, window: int | None
) -> torch.Tensor:
    rows, length = len(query), max(batch.lengths[: len(query)])
    used = -(-length // keys.shape[1])
    table = batch.block_table[:rows, :used].long()
    # [rows, kv_heads, used * block_size, head_dim]
    own_keys, own_values = (cache[table].flatten(1, 2)[:, :length].transpose(1, 2) for cache in (keys, values))
    ends = batch.seq_lens[:rows, None]
    positions = torch.arange(length, device=query.device)
    seen = positions < ends
    if window is not None:
        seen &= positions >= ends - window
    grouped = query.unflatten(1, (keys.shape[2], -1))  # query heads of one KV head become query rows
    attended = scaled_dot_product_attention(grouped, own_keys, own_values, attn_mask=seen[:, None, None], scale=scaling)
    return attended.flatten(1, 2)


def _gather_chunk(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, table: torch.Tensor, length: int, scaling: float, window: int | None
) -> torch.Tensor:
    used = -(-length // keys.shape[1])
    own_keys, own_values = (cache[table[:used].long()].flatten(0, 1)[:length].transpose(0, 1) for cache in (keys, values))
    rows = torch.arange(length - len(query), length, device=query.device)[:, None]
    positions = torch.arange(length, device=query.device)
    seen = positions <= rows
    if window is not None:
        seen &= positions > rows - window
    attended = scaled_dot_product_attention(
        query.transpose(0, 1)[None], own_keys[None], own_values[None], attn_mask=seen, scale=scaling, enable_gqa=True
    )
    return attended[0].transpose(0, 1)


@dataclass(frozen=True, slots=True)
class ChosenKernel:
    """graphs: whether it may be captured in a CUDA graph: it then reads everything that changes from tensors."""

    name: str
    run: Kernel
    graphs: bool


def choose_kernel(
    *, device: torch.device, dtype: torch.dtype, heads: int, kv_heads: int, head_dim: int, block_size: int, flash_attention: bool
) -> ChosenKernel:
    """The fastest kernel that runs here and gives what `gather_kernel` gives, on a small batch with all that occurs.

    Args:
        flash_attention: whether the flash-attn package may be used.
    """
    fallback = ChosenKernel("gathered blocks, scaled_dot_product_attention", gather_kernel, graphs=False)
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16):
        return fallback
    candidates = [ChosenKernel("torch FlashAttention, paged", torch_varlen_kernel, graphs=True)]
    if flash_attention and importlib.util.find_spec("flash_attn") is not None:
        candidates.insert(0, ChosenKernel("flash-attn, paged", flash_attn_kernel, graphs=True))
    for candidate in candidates:
        try:
            if agrees(candidate.run, device=device, dtype=dtype, heads=heads, kv_heads=kv_heads, head_dim=head_dim, block_size=block_size):
                return candidate
            logger.warning("%s gives other results here than plain attention, so it is not used", candidate.name)
        except Exception as error:  # noqa: BLE001 - whatever a kernel says of a device it does not support
            logger.info("%s cannot be used: %s", candidate.name, str(error).splitlines()[0] if str(error) else type(error).__name__)
    return fallback


def agrees(kernel: Kernel, *, device: torch.device, dtype: torch.dtype, heads: int, kv_heads: int, head_dim: int, block_size: int) -> bool:
    """Whether a kernel gives what plain attention gives: two decodes, a first chunk and a later one, with and without a window."""
    generator = torch.Generator(device=device).manual_seed(0)
    lengths, query_lens = [3, block_size + 5, 7, block_size + 9], [1, 1, 7, 4]

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, device=device, dtype=torch.float32).to(dtype)

    batch = PagedBatch(
        query_starts=torch.tensor([0, 1, 2, 9, 13], dtype=torch.int32, device=device),
        seq_lens=torch.tensor(lengths, dtype=torch.int32, device=device),
        block_table=torch.tensor([[3, 0], [5, 1], [4, 0], [2, 6]], dtype=torch.int32, device=device),
        query_lens=query_lens,
        lengths=lengths,
    )
    query = random(sum(query_lens), heads, head_dim)
    keys, values = random(7, block_size, kv_heads, head_dim), random(7, block_size, kv_heads, head_dim)
    for window in (None, 5):
        expected = gather_kernel(query.float(), keys.float(), values.float(), batch, 0.3, window)
        difference = (kernel(query, keys, values, batch, 0.3, window).float() - expected).abs().max()
        if not difference < 0.05:
            return False
    return True
