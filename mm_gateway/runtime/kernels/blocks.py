"""Weights in blocks of 32 inputs with a scale each, as the formats of llama.cpp have them (https://github.com/ggml-org/llama.cpp)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from mm_gateway.runtime.kernels.library import library

BLOCK = 32
FINE = 8
"""Blocks that share a scale where scales are fine."""

# Weights quantized at once by one thread: they are made fp32 for it.
_CHUNK = 1 << 18


@dataclass(frozen=True)
class Blocks:
    """A weight [outputs, inputs]: scales * quants, plus minimums where there are any, times the row's scale where there is one.

    Where scales are fine, a scale is that of 8 blocks times the fine one of its block or, with 6 bits, of half its block; so are minimums.

    Attributes:
        quants: [outputs, blocks, 32]: int8 for 8 bits, uint8 of 0..15 or 0..31 for 4 or 5 bits; for 6 bits uint8 that stand for q - 32.
        scales: [outputs, blocks] fp16, or [outputs, blocks / 8]. minimums: the same, 4 and 5 bits only.
        inputs: how many count; the rest of the last block is padding.
        fine_scales: [outputs, blocks] uint8, or for 6 bits [outputs, 2 * blocks] int8. fine_minimums: [outputs, blocks] uint8.
        row_scales: [outputs] fp32, for weights whose scales fp16 does not hold.
    """

    quants: torch.Tensor
    scales: torch.Tensor
    minimums: torch.Tensor | None
    inputs: int
    bits: int
    fine_scales: torch.Tensor | None = None
    fine_minimums: torch.Tensor | None = None
    row_scales: torch.Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.quants), self.inputs

    @property
    def kind(self) -> tuple[int, bool]:
        """Bits, and whether scales are fine: of one kind, weights can be joined."""
        return self.bits, self.fine_scales is not None

    def of_rows(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Blocks:
        """With every tensor's first dimension, which is that of the outputs, changed in one way."""
        parts = {name: change(part) for name in _PARTS if (part := getattr(self, name)) is not None}
        return replace(self, **parts)

    def dequantize(self) -> torch.Tensor:
        """[outputs, inputs] fp32."""
        scales, minimums = self.scales.float(), self.minimums.float() if self.minimums is not None else None
        quants = self.quants
        if self.fine_scales is not None:
            each = self.fine_scales.shape[1] // scales.shape[1]
            scales = scales.repeat_interleave(each, 1) * self.fine_scales
            if minimums is not None and self.fine_minimums is not None:
                minimums = minimums.repeat_interleave(FINE, 1) * self.fine_minimums
            quants = self.quants.float() - 32 if self.bits == 6 else self.quants
            quants = quants.reshape(*scales.shape, -1)
        weight = quants * scales[..., None]
        if minimums is not None:
            weight += minimums[..., None]
        if self.row_scales is not None:
            weight *= self.row_scales[:, None, None]
        return weight.flatten(1)[:, : self.inputs]


_PARTS = ("quants", "scales", "minimums", "fine_scales", "fine_minimums", "row_scales")


def joined(pieces: Sequence[Blocks]) -> Blocks:
    """Weights of one kind and the same inputs, one below the other."""

    def with_row_scales(piece: Blocks) -> Blocks:
        return piece if piece.row_scales is not None else replace(piece, row_scales=torch.ones(len(piece.quants), dtype=torch.float32))

    if any(piece.row_scales is not None for piece in pieces):
        pieces = [with_row_scales(piece) for piece in pieces]

    def below(name: str) -> torch.Tensor | None:
        parts = [getattr(piece, name) for piece in pieces]
        return None if parts[0] is None else torch.cat(parts)

    return replace(pieces[0], **{name: below(name) for name in _PARTS})


class Rows(Protocol):
    """A matrix [outputs, inputs] of any float type: a tensor, or what reads rows when they are asked for; from several threads."""

    @property
    def shape(self) -> Sequence[int]: ...

    def __getitem__(self, rows: slice, /) -> torch.Tensor: ...


def quantize_8bit(weight: Rows) -> Blocks:
    """Nearest values.

    Raises:
        RuntimeError: there are no kernels on this machine (`library()` is None).
    """
    return _quantize(weight, 8)


def quantize_4bit(weight: Rows) -> Blocks:
    """Of scale and minimum of each block those with the smallest squared error that a search finds: native/quantize.cpp.

    Raises:
        RuntimeError: there are no kernels on this machine.
    """
    return _quantize(weight, 4)


def _quantize(weight: Rows, bits: int) -> Blocks:
    loaded = library()
    if loaded is None:
        raise RuntimeError("no compiled kernels")
    outputs, inputs = weight.shape
    count = -(-inputs // BLOCK)
    quants = torch.empty(outputs, count, BLOCK, dtype=torch.int8 if bits == 8 else torch.uint8)
    scales = torch.empty(outputs, count, dtype=torch.float16)
    minimums = torch.empty_like(scales) if bits == 4 else None

    def convert(rows: slice) -> None:
        part = weight[rows].float().contiguous()
        found = (quants[rows], scales[rows], minimums[rows] if minimums is not None else None)
        loaded.block_linear_quantize(bits, part.data_ptr(), len(part), inputs, *(None if t is None else t.data_ptr() for t in found))

    size = max(1, _CHUNK // inputs)
    chunks = [slice(first, first + size) for first in range(0, outputs, size)]
    with ThreadPoolExecutor(min(torch.get_num_threads(), len(chunks)), thread_name_prefix="quantize") as pool:
        for _ in pool.map(convert, chunks):
            pass
    return Blocks(quants, scales, minimums, inputs, bits)
