"""What the model runner asks of a KV cache, whatever its layout: slots on a CPU, pages on a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from mm_gateway.runtime.kv_cache.prefix_tiers.block_store import PrefixStore
from mm_gateway.runtime.kv_cache.prefix_tiers.restored_tokens import RestoredTokens
from mm_gateway.runtime.scheduling.allocator import KVAllocator
from mm_gateway.runtime.scheduling.scheduler import ScheduledSequence


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """What a model's attention layers need of a cache.

    Attributes:
        layers: attention layers, indexed from 0.
        heads, kv_heads, head_dim: of every layer.
    """

    layers: int
    heads: int
    kv_heads: int
    head_dim: int

    def bytes_per_token(self, head_bytes: int) -> int:
        """Keys and values of one token over all layers. head_bytes: of one head of keys, or of values."""
        return 2 * self.layers * self.kv_heads * head_bytes


class StepAttention(Protocol):
    """The attention of one packed step, over the cache."""

    layers_seen: int
    """Layers that have called so far; each must call exactly once."""

    def __call__(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, window: int | None
    ) -> torch.Tensor:
        """Write the step's keys and values and attend.

        Args:
            query: [1, heads, rows, head_dim]. key, value: [1, kv_heads, rows, head_dim]. Rows beyond the step's tokens are
                padding: nothing is written for them, and they come out as zeros.
            scaling: factor on the scores. window: tokens that a position sees, itself included; None: all before it.

        Returns:
            [1, rows, heads, head_dim].
        """
        ...


class FixedStep(Protocol):
    """The cache's part of decode steps of up to `size` sequences that read everything from the same tensors, as CUDA graphs must."""

    def fill(self, step: list[ScheduledSequence]) -> None:
        """Apply what the allocator decided, and copy a step's numbers in; rows beyond it become padding."""
        ...

    def attention(self) -> StepAttention:
        """Of one forward pass over what is filled in, padding included."""
        ...


class KVCache(Protocol):
    """Allocator and storage of one model's keys and values."""

    @property
    def allocator(self) -> KVAllocator: ...

    @property
    def capacity_bytes(self) -> int:
        """Memory that the cache may come to take."""
        ...

    @property
    def capturable(self) -> bool:
        """Whether a forward pass over `fixed_step` can be captured as a CUDA graph; only then is that asked for."""
        ...

    def fixed_step(self, size: int) -> FixedStep:
        """For decode steps of up to `size` sequences.

        Raises:
            NotImplementedError: this layout has none.
        """
        ...

    def begin_step(self, step: list[ScheduledSequence]) -> tuple[list[ScheduledSequence], StepAttention]:
        """Apply what the allocator decided, and give the order of rows that this layout wants with its attention."""
        ...

    def keep_prefixes(self, store: PrefixStore, model: bytes) -> bool:
        """Keep prefixes in a store from now on, when their room is needed, and bring them back; False: this layout cannot.

        model: says what computes keys and values; others never meet them.
        """
        ...

    @property
    def restored(self) -> RestoredTokens:
        """What came back from the store since the start; may be read by any thread."""
        ...

    def wait(self, timeout_s: float) -> None:
        """Apply what the allocator decided, and wait until a prefix has arrived, at most so long."""
        ...

    def close(self, save_s: float) -> None:
        """Nothing is computed any more. For at most `save_s` seconds, keep prefixes in the store, where there is one; 0: keep none."""
        ...
