"""Linear layers for a CPU whose weights are laid out for its matrix kernels once, at load; arithmetic and results are fp32.

By our own kernels (runtime/kernels). Where those cannot be compiled, by what torch ships: 32 bits by oneDNN, fewer by FBGEMM in 16
(https://arxiv.org/abs/2101.05615). The packed copy is the only one: the parameter it was made from goes, and embeddings that are the
output layer's weights are looked up in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import nn

from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.runtime.checkpoints.stored.stored_tensors import StoredRows
from mm_gateway.runtime.kernels.block_linear import BlockLinear
from mm_gateway.runtime.kernels.blocks import Blocks, quantize_4bit, quantize_8bit
from mm_gateway.runtime.kernels.library import library

BlockWeights = Literal["int8", "int4"]
Weights = Literal["fp32", "fp16", "bf16"] | BlockWeights

BITS: Mapping[BlockWeights, int] = {"int8": 8, "int4": 4}

FP16_MAX = 65504.0
# The largest magnitude that blocks can hold, whose scales and minimums are fp16.
_LARGEST: Mapping[Weights, float] = {"int8": 127 * FP16_MAX, "int4": FP16_MAX / 2}


class PackedLinear(nn.Module):
    """y = x W^T + b for x [..., in_features] fp32 -> [..., out_features] fp32.

    Args:
        weight: [out_features, in_features], any float type or in blocks. bias: [out_features] or None.
    """

    packed_bytes: int

    def __init__(self, weight: torch.Tensor | Blocks, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self._bias = bias.detach().float().clone() if bias is not None else None
        self._pack(weight)

    def _pack(self, weight: torch.Tensor | Blocks) -> None:
        self._packed = torch.ops.mkldnn._reorder_linear_weight(_values(weight), 16)
        self.packed_bytes = self.out_features * self.in_features * 4

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, "none", [], "")

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self._bias is not None}"


def _values(weight: torch.Tensor | Blocks) -> torch.Tensor:
    return (weight.dequantize() if isinstance(weight, Blocks) else weight.detach().float()).contiguous()


class PackedLinearFp16(PackedLinear):
    """fp16 weights, fp32 arithmetic. Those of bf16 become fp16, too: three more bits of precision, within fp16's range."""

    def _pack(self, weight: torch.Tensor | Blocks) -> None:
        self._packed = torch.ops.quantized.linear_prepack_fp16(_values(weight), self._bias)
        self.packed_bytes = self.out_features * self.in_features * 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.quantized.linear_dynamic_fp16(x, self._packed)


class KernelLinear(PackedLinear):
    """By our own kernels: numbers of 16 or 32 bits, or blocks, whose activations are quantized to 8 bits for each row and block.

    Args:
        weight: fp16 and bf16 stay so, other numbers are held in fp32.
    """

    def _pack(self, weight: torch.Tensor | Blocks) -> None:
        self.kernel = BlockLinear(weight if isinstance(weight, Blocks) else weight.detach(), self._bias)
        self.packed_bytes = self.kernel.nbytes
        self.bits = weight.bits if isinstance(weight, Blocks) else 8 * weight.dtype.itemsize

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.kernel(x)


def packed_linear(weight: torch.Tensor | Blocks | StoredRows, bias: torch.Tensor | None, weights: Weights) -> PackedLinear:
    """The packed form of a layer: blocks as they are; numbers as `weights`, or at fp32 where that kind cannot hold them.

    Without compiled kernels what has few bits is held in fp16.
    """
    if isinstance(weight, StoredRows) and not needs_rows_only(weights):
        weight = weight[:]
    if library() is None and not isinstance(weight, StoredRows):
        needs_fp32 = not isinstance(weight, Blocks) and (weights == "fp32" or not _fits(weight, FP16_MAX))
        return (PackedLinear if needs_fp32 else PackedLinearFp16)(weight, bias)
    if isinstance(weight, Blocks):
        return KernelLinear(weight, bias)
    if weights in _LARGEST and _fits(weight, _LARGEST[weights]):
        return KernelLinear(quantize_8bit(weight) if weights == "int8" else quantize_4bit(weight), bias)
    numbers = weight[:].detach()
    return KernelLinear(numbers.to(torch.float32 if weights in BITS else number_type(numbers, weights)), bias)


def number_type(weight: torch.Tensor, weights: Weights) -> torch.dtype:
    """What numbers are held in: as `weights`, or fp32 where that cannot hold them. Those that have 16 bits stay as they are."""
    if weights == "fp32":
        return torch.float32
    if weight.dtype in (torch.float16, torch.bfloat16):
        return weight.dtype
    held = torch.bfloat16 if weights == "bf16" else torch.float16
    return held if _fits(weight, torch.finfo(held).max) else torch.float32


def _fits(weight: torch.Tensor | StoredRows, bound: float) -> bool:
    step = 4096
    extremes = (weight[first : first + step].aminmax() for first in range(0, weight.shape[0], step))  # a copy, as by `abs`, would be large
    return all(bool(-bound <= low and high <= bound) for low, high in extremes)


def block_bytes(bits: int, *, fine: bool = False) -> float:
    """Memory of one weight in blocks on this machine, scales and minimums included."""
    return 2.0 if library() is None else kernel_block_bytes(bits, fine=fine)


def kernel_block_bytes(bits: int, *, fine: bool = False) -> float:
    """The same as our kernels have it, whether they are here or not."""
    if bits == 8:
        return 1 + 2 / 32
    if bits == 6:
        return 6 / 8 + 1 / 16 + 2 / 256
    return bits / 8 + (2 / 32 + 4 / 256 if fine else 4 / 32)


def keeps_blocks(config: ModelConfig) -> bool:
    """Whether a CPU holds layers in the blocks that they are stored in: where the kernels are there, and no type is asked for by name."""
    return config.dtype == "auto" and library() is not None


def needs_rows_only(weights: Weights) -> bool:
    """Whether a layer is packed from a few of its rows at a time, so that it need not be in memory as a whole."""
    return weights in BITS and library() is not None


def looks_rows_up() -> bool:
    """Whether embeddings that are the output layer's weights are looked up in it; where the kernels are missing they are stored again."""
    return library() is not None


class PackedEmbedding(nn.Module):
    """Token embeddings given out as fp32; by `forward` of a subclass, which transformers calls with ids [...].

    Args:
        scale: what an embedding layer that scales multiplies with.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, scale: torch.Tensor | float | None) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self._scale = None if scale is None else float(scale)

    def _rows(self, ids: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        found = self._rows(ids)
        return found if self._scale is None else found * self._scale


class StoredEmbedding(PackedEmbedding):
    """In numbers of their own, 16-bit where the model is.

    Keeps the name `weight`, which transformers asks for when it looks up the model's dtype and vocabulary.
    """

    def __init__(self, weight: torch.Tensor, dtype: torch.dtype, scale: torch.Tensor | float | None = None) -> None:
        super().__init__(weight.shape[0], weight.shape[1], scale)
        self.weight = nn.Parameter(weight.detach().to(dtype), requires_grad=False)

    def _rows(self, ids: torch.Tensor) -> torch.Tensor:
        return nn.functional.embedding(ids, self.weight).float()


class LayerEmbedding(PackedEmbedding):
    """The rows of a layer: of the output layer where both share their weights, else of one that is there for nothing else.

    Attributes:
        kernel: of the layer. scale: what its rows are multiplied with.
    """

    def __init__(self, layer: KernelLinear, *, is_shared: bool, scale: torch.Tensor | float | None = None) -> None:
        super().__init__(layer.out_features, layer.in_features, scale)
        if not is_shared:
            self.layer = layer  # counted with the model's weights
        # Of no numbers: transformers takes a model's device and dtype from a parameter, and OLMo, whose norms have none, may have no other.
        self.nothing = nn.Parameter(torch.empty(0), requires_grad=False)
        self.kernel = layer.kernel

    @property
    def scale(self) -> float:
        return 1.0 if self._scale is None else self._scale

    def _rows(self, ids: torch.Tensor) -> torch.Tensor:
        return self.kernel.rows(ids)
