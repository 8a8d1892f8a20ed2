"""Linear layers for a CPU whose weights are laid out for its matrix kernels once, at load; arithmetic and results are fp32.

Each kind wraps kernels that torch ships: oneDNN for fp32, FBGEMM (https://arxiv.org/abs/2101.05615) for 16-bit and int8
weights. The packed copy is the only one: the parameter it was made from goes.
"""

from __future__ import annotations

import warnings
from typing import Literal

import torch
from torch import nn

Weights = Literal["fp32", "fp16", "bf16", "int8"]

FP16_MAX = 65504.0


class PackedLinear(nn.Module):
    """y = x W^T + b for x [..., in_features] fp32 -> [..., out_features] fp32.

    Args:
        weight: [out_features, in_features], any float type. bias: [out_features] or None.
    """

    packed_bytes: int

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self._bias = bias.detach().float().clone() if bias is not None else None
        self._pack(weight.detach())

    def _pack(self, weight: torch.Tensor) -> None:
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.float().contiguous(), 16)
        self.packed_bytes = weight.numel() * 4

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, "none", [], "")

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self._bias is not None}"


class PackedLinearFp16(PackedLinear):
    """16-bit weights, fp32 arithmetic. bf16 weights are kept as fp16: three more bits of precision, within fp16's range."""

    def _pack(self, weight: torch.Tensor) -> None:
        self._packed = torch.ops.quantized.linear_prepack_fp16(weight.float().contiguous(), self._bias)
        self.packed_bytes = weight.numel() * 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.quantized.linear_dynamic_fp16(x, self._packed)


class PackedLinearInt8(PackedLinear):
    """int8 weights with a scale per output, activations quantized per call to the range that they have."""

    # Without VNNI two products are added in 16 bits, which 8-bit activations can overflow: they get 7.
    _reduce_range = not torch.cpu._is_vnni_supported()

    def _pack(self, weight: torch.Tensor) -> None:
        weight = weight.float().contiguous()
        scales = weight.abs().amax(1).clamp_min(1e-12) / 127
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*quantize_per", category=UserWarning)
            quantized = torch.quantize_per_channel(weight, scales.double(), torch.zeros(len(weight), dtype=torch.int64), 0, torch.qint8)
        self._packed = torch.ops.quantized.linear_prepack(quantized, self._bias)
        self.packed_bytes = weight.numel()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.quantized.linear_dynamic(x, self._packed, self._reduce_range)


def packed_linear(weight: torch.Tensor, bias: torch.Tensor | None, weights: Weights) -> PackedLinear:
    """The packed form of a layer; one whose values fp16 cannot hold stays at fp32."""
    if weights == "int8":
        return PackedLinearInt8(weight, bias)
    if weights in ("fp16", "bf16") and weight.abs().max() <= FP16_MAX:
        return PackedLinearFp16(weight, bias)
    return PackedLinear(weight, bias)


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
