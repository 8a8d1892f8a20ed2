"""Weights in blocks of 32 inputs with a scale each: the formats Q8_0 and Q4_1 of llama.cpp (https://github.com/ggml-org/llama.cpp)."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

BLOCK = 32

# Weights quantized at once: few enough that intermediate tensors stay in the processor's cache, and that torch starts no threads,
# whose meeting after each of many small operations would cost more than they save.
_CHUNK = 1 << 15
# The range of a block is divided into so many steps, and the number that fits best is taken: above 15 the extremes are cut off.
_STEPS = (14.25, 15.0, 15.75, 16.5, 17.5)


@dataclass(frozen=True)
class Blocks:
    """A weight [outputs, inputs]: scales * quants, plus minimums where there are any, times the row's scale where there is one.

    Attributes:
        quants: [outputs, blocks, 32], int8 for 8 bits, uint8 of 0..15 for 4 bits.
        scales: [outputs, blocks] fp16.
        minimums: the same, 4 bits only.
        inputs: how many count; the rest of the last block is padding.
        row_scales: [outputs] fp32, for weights whose scales fp16 does not hold.
    """

    quants: torch.Tensor
    scales: torch.Tensor
    minimums: torch.Tensor | None
    inputs: int
    row_scales: torch.Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.quants), self.inputs

    def dequantize(self) -> torch.Tensor:
        """[outputs, inputs] fp32."""
        weight = self.quants * self.scales.float()[..., None]
        if self.minimums is not None:
            weight += self.minimums.float()[..., None]
        if self.row_scales is not None:
            weight *= self.row_scales[:, None, None]
        return weight.flatten(1)[:, : self.inputs]


def quantize_8bit(weight: torch.Tensor) -> Blocks:
    """Nearest values of [outputs, inputs], any float type."""
    return _quantize(weight, _quantize_8bit, torch.int8)


def quantize_4bit(weight: torch.Tensor) -> Blocks:
    """Of some ranges for each block, the one with the smallest squared error, as llama.cpp's make_qkx2_quants searches it."""
    return _quantize(weight, _quantize_4bit, torch.uint8)


def _quantize_8bit(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
    scales = (rows.abs().amax(-1) / 127).half()
    return (rows / _divisor(scales)).round_().clamp_(-127, 127), scales, None


def _quantize_4bit(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    low, high = rows.aminmax(dim=-1)
    spread = (high - low).clamp_min(1e-30)
    mean = rows.mean(-1)
    centred = rows - mean[..., None]
    from_low = rows - low[..., None]
    best = torch.full_like(low, -1.0)
    scales, minimums = torch.zeros_like(low), mean.clone()
    for steps in _STEPS:
        quants = (from_low * (steps / spread)[..., None]).round_().clamp_(0, 15)
        # The line through (quant, weight) by least squares; what it explains of the weights' variance is to be largest.
        average = quants.mean(-1)
        variance = torch.linalg.vecdot(quants, quants) - BLOCK * average * average
        covariance = torch.linalg.vecdot(quants, centred)
        slope = covariance / variance.clamp_min(1e-30)
        explained = slope * covariance
        better = explained > best
        best = torch.where(better, explained, best)
        scales = torch.where(better, slope, scales)
        minimums = torch.where(better, mean - slope * average, minimums)
    scales, minimums = scales.half(), minimums.half()
    quants = ((rows - minimums.float()[..., None]) / _divisor(scales)).round_().clamp_(0, 15)
    return quants, scales, minimums


def _divisor(scales: torch.Tensor) -> torch.Tensor:
    """[..., 1] fp32; blocks of zeros are divided by something that leaves them zeros."""
    return torch.where(scales == 0, 1.0, scales.float())[..., None]


def _quantize(
    weight: torch.Tensor, quantize: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]], dtype: torch.dtype
) -> Blocks:
    outputs, inputs = weight.shape
    count = -(-inputs // BLOCK)
    quants = torch.empty(outputs, count, BLOCK, dtype=dtype)
    scales = torch.empty(outputs, count, dtype=torch.float16)
    minimums = torch.empty_like(scales) if dtype == torch.uint8 else None

    @torch.inference_mode()
    def convert(rows: slice) -> None:
        part = weight[rows].float()
        if inputs % BLOCK:
            part = torch.nn.functional.pad(part, (0, count * BLOCK - inputs))
        found, scales[rows], least = quantize(part.unflatten(1, (count, BLOCK)))
        quants[rows] = found.to(dtype)
        if minimums is not None and least is not None:
            minimums[rows] = least

    size = max(1, _CHUNK // (count * BLOCK))
    chunks = [slice(first, first + size) for first in range(0, outputs, size)]
    # Threads of our own, as many as torch has: a chunk is many operations that release the GIL, each too small for torch's to share.
    with ThreadPoolExecutor(min(torch.get_num_threads(), len(chunks)), thread_name_prefix="quantize") as pool:
        for _ in pool.map(convert, chunks):
            pass
    return Blocks(quants, scales, minimums, inputs)
