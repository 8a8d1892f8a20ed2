"""Linear layers for a CPU whose weights are laid out for its matrix kernels once, at load; arithmetic and results are fp32.

By our own kernels (runtime/kernels). Where there is no compiler for them, 32 bits by oneDNN and 16 by FBGEMM
(https://arxiv.org/abs/2101.05615), which torch ships. The packed copy is the only one: the parameter it was made from goes.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from mm_gateway.configuration.settings import ModelConfig
from mm_gateway.runtime.kernels.block_linear import BlockLinear
from mm_gateway.runtime.kernels.blocks import Blocks, quantize_4bit, quantize_8bit
from mm_gateway.runtime.kernels.dense_linear import DenseLinear
from mm_gateway.runtime.kernels.library import library

BlockWeights = Literal["int8", "int4"]
Weights = Literal["fp32", "fp16", "bf16"] | BlockWeights

FP16_MAX = 65504.0
# The largest magnitude that each kind can hold: scales and minimums of blocks are fp16, too.
_LARGEST = {"fp16": FP16_MAX, "bf16": FP16_MAX, "int8": 127 * FP16_MAX, "int4": FP16_MAX / 2}


class PackedLinear(nn.Module):
    """y = x W^T + b for x [..., in_features] fp32 -> [..., out_features] fp32.

    Args:
        weight: [out_features, in_features], any float type or in blocks. bias: [out_features] or None.
    """

    packed_bytes: int
    kernel: DenseLinear | BlockLinear | None = None
    """What computes it; None: one of torch's, for want of a compiler."""

    def __init__(self, weight: torch.Tensor | Blocks, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self._bias = bias.detach().float().clone() if bias is not None else None
        self._pack(weight)

    def _pack(self, weight: torch.Tensor | Blocks) -> None:
        if library() is not None:
            self._use(DenseLinear(_values(weight), self._bias, torch.float32))
            return
        self._packed = torch.ops.mkldnn._reorder_linear_weight(_values(weight), 16)
        self.packed_bytes = self.out_features * self.in_features * 4

    def _use(self, kernel: DenseLinear | BlockLinear) -> None:
        self.kernel = kernel
        self.packed_bytes = kernel.nbytes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kernel is not None:
            return self.kernel(x)
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, "none", [], "")

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self._bias is not None}"


def _values(weight: torch.Tensor | Blocks) -> torch.Tensor:
    return (weight.dequantize() if isinstance(weight, Blocks) else weight.detach().float()).contiguous()


class PackedLinearFp16(PackedLinear):
    """16-bit weights, fp32 arithmetic. bf16 weights are kept as fp16: three more bits of precision, within fp16's range."""

    def _pack(self, weight: torch.Tensor | Blocks) -> None:
        if library() is not None:
            self._use(DenseLinear(_values(weight), self._bias, torch.float16))
            return
        self._packed = torch.ops.quantized.linear_prepack_fp16(_values(weight), self._bias)
        self.packed_bytes = self.out_features * self.in_features * 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kernel is not None:
            return self.kernel(x)
        return torch.ops.quantized.linear_dynamic_fp16(x, self._packed)


class PackedLinearBlocks(PackedLinear):
    """Weights in blocks of 32 inputs; activations are quantized to 8 bits for each row and block.

    Where no kernels could be compiled, the values that the blocks stand for are held in 16 bits.
    """

    def _hold(self, blocks: Blocks) -> None:
        if library() is None:
            self._linear = packed_linear(blocks.dequantize(), self._bias, "fp16")
            self.packed_bytes = 0  # counted as that layer's
        else:
            self._use(BlockLinear(blocks, self._bias))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.kernel(x) if self.kernel is not None else self._linear(x)


class PackedLinearInt8(PackedLinearBlocks):
    """w = scale * q with q in -128..127."""

    def _pack(self, weight: torch.Tensor | Blocks) -> None:
        self._hold(weight if isinstance(weight, Blocks) else quantize_8bit(weight.detach()))

    @classmethod
    def from_blocks(cls, quants: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None = None) -> PackedLinearInt8:
        """Of weights that are stored so: quants [out, in / 32, 32] int8, scales [out, in / 32] fp16."""
        return cls(Blocks(quants, scales, None, quants[0].numel()), bias)


class PackedLinearInt4(PackedLinearBlocks):
    """w = scale * q + minimum with q in 0..15."""

    def _pack(self, weight: torch.Tensor | Blocks) -> None:
        self._hold(weight if isinstance(weight, Blocks) else quantize_4bit(weight.detach()))

    @classmethod
    def from_blocks(
        cls, quants: torch.Tensor, scales: torch.Tensor, minimums: torch.Tensor, bias: torch.Tensor | None = None
    ) -> PackedLinearInt4:
        """Of weights that are stored so: quants [out, in / 32, 32] uint8 of 0..15, scales and minimums [out, in / 32] fp16."""
        return cls(Blocks(quants, scales, minimums, quants[0].numel()), bias)


def packed_linear(weight: torch.Tensor | Blocks, bias: torch.Tensor | None, weights: Weights) -> PackedLinear:
    """The packed form of a layer: blocks as they are; numbers as `weights`, or at fp32 where that kind cannot hold them."""
    if isinstance(weight, Blocks):
        return PackedLinearInt8(weight, bias) if weight.minimums is None else PackedLinearInt4(weight, bias)
    kind = _KINDS[weights]
    if weights in _LARGEST and not weight.abs().max() <= _LARGEST[weights]:
        kind = PackedLinear
    return kind(weight, bias)


_KINDS: dict[Weights, type[PackedLinear]] = {
    "fp32": PackedLinear,
    "fp16": PackedLinearFp16,
    "bf16": PackedLinearFp16,
    "int8": PackedLinearInt8,
    "int4": PackedLinearInt4,
}


def block_bytes(weights: BlockWeights) -> float:
    """Memory of one weight on this machine, scales and minimums included."""
    if library() is None:
        return 2.0
    return {"int8": 1 + 2 / 32, "int4": 0.5 + 4 / 32}[weights]


def keeps_blocks(config: ModelConfig) -> bool:
    """Whether a CPU holds layers in the blocks that they are stored in: where the kernels are there, and no type is asked for by name."""
    return config.dtype == "auto" and library() is not None


class PackedEmbedding(nn.Module):
    """Token embeddings stored as they were saved (16-bit where the model is), given out as fp32.

    Keeps the name `weight`, which transformers asks for when it looks up the model's dtype and vocabulary.
    """

    def __init__(self, weight: torch.Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().to(dtype), requires_grad=False)
        self.num_embeddings, self.embedding_dim = self.weight.shape

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return nn.functional.embedding(ids, self.weight).float()
