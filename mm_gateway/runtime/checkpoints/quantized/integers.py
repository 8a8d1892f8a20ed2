"""Weights of integers with scales, in which most formats agree once their bits are unpacked."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mm_gateway.runtime.checkpoints.packed_linear import BITS, BlockWeights
from mm_gateway.runtime.kernels.blocks import BLOCK, Blocks

# Weights computed at once, so that what is needed on the way stays small beside the result.
_CHUNK = 2**18


@dataclass(frozen=True)
class Integers:
    """w[o, i] = scales[o, g] * (quants[o, i] - zeros[o, g]), where g is the group of input i.

    Attributes:
        quants: [outputs, inputs], any type of integers.
        scales: [outputs, groups], any type.
        zeros: [outputs, groups], of integers or not; None: all are 0.
        group_size: inputs that share a scale; the last group may have fewer.
        order: [inputs], the group of each input where they are not in order.
    """

    quants: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor | None
    group_size: int
    order: torch.Tensor | None = None

    def numbers(self, dtype: torch.dtype) -> torch.Tensor:
        """[outputs, inputs], computed in fp32 and rounded once, where `dtype` is narrower."""
        found = torch.empty(self.quants.shape, dtype=dtype)
        for rows in self._chunks():
            part = self._in_groups(self.quants[rows].float())
            if self.zeros is not None:
                part -= self._of_groups(self.zeros[rows].float())
            found[rows] = part.mul_(self._of_groups(self.scales[rows].float())).view(found[rows].shape)
        return found

    def blocks(self, kind: BlockWeights) -> Blocks | None:
        """The same numbers in blocks; None where those would not be quite the same."""
        outputs, inputs = self.quants.shape
        count = -(-inputs // BLOCK)
        if self.order is not None or (self.group_size % BLOCK and self.group_size < inputs):
            return None
        scales = _in_fp16(self.scales.float())
        if scales is None:
            return None
        low, high = (-8, 7) if kind == "int4" else (-128, 127)
        quants = torch.zeros(outputs, count * BLOCK, dtype=torch.uint8 if kind == "int4" else torch.int8)
        for rows in self._chunks():
            part = self._in_groups(self.quants[rows].to(torch.int16))
            if self.zeros is not None:
                zeros = self.zeros[rows].to(torch.int16)
                if not torch.equal(zeros.to(self.zeros.dtype), self.zeros[rows]):
                    return None
                part -= self._of_groups(zeros)
            if part.amin() < low or part.amax() > high:
                return None
            quants[rows, :inputs] = (part - low if kind == "int4" else part).view(len(part), inputs)
        of_groups, of_rows = scales
        of_blocks = of_groups[:, torch.arange(count) * BLOCK // self.group_size]
        minimums = None
        if kind == "int4":
            minimums = of_blocks * low  # a power of two, so nothing is rounded
            if minimums.isinf().any():
                return None
        return Blocks(quants.unflatten(1, (count, BLOCK)), of_blocks, minimums, inputs, BITS[kind], row_scales=of_rows)

    @property
    def _is_even(self) -> bool:
        """Whether groups are in order and all of a size, so that a view divides them."""
        return self.order is None and self.quants.shape[1] % self.group_size == 0

    def _in_groups(self, of_inputs: torch.Tensor) -> torch.Tensor:
        """[rows, inputs] so that what `_of_groups` gives can be applied: [rows, groups, group_size], or as it is."""
        return of_inputs.contiguous().unflatten(1, (-1, self.group_size)) if self._is_even else of_inputs.contiguous()

    def _of_groups(self, of_groups: torch.Tensor) -> torch.Tensor:
        if self._is_even:
            return of_groups[..., None]
        groups = torch.arange(self.quants.shape[1]) // self.group_size if self.order is None else self.order
        return of_groups[:, groups]

    def _chunks(self) -> list[slice]:
        outputs, inputs = self.quants.shape
        step = max(1, _CHUNK // max(1, inputs))
        return [slice(first, first + step) for first in range(0, outputs, step)]


def reordering(group_of_input: torch.Tensor | None, group_size: int) -> torch.Tensor | None:
    """`order` of Integers, where a checkpoint says which group each input belongs to, [inputs]; None: they are in order."""
    if group_of_input is None or torch.equal(group_of_input.long(), torch.arange(len(group_of_input)) // group_size):
        return None
    return group_of_input.long()


def _in_fp16(scales: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None] | None:
    """Scales [outputs, groups] fp32 as fp16, with a fp32 scale for each row where fp16 alone does not hold them; None: neither do both."""
    half = scales.half()
    if torch.equal(half.float(), scales):
        return half, None
    if scales.shape[1] == 1:
        return torch.ones_like(half), scales[:, 0].clone()
    # What fp16 lacks may be the range alone, as with scales in bf16.
    largest = scales.abs().amax(1)
    of_rows = torch.where(largest > 0, torch.exp2(torch.floor(torch.log2(largest.clamp_min(1e-38)))), 1.0)
    half = (scales / of_rows[:, None]).half()
    return (half, of_rows) if torch.equal(half.float() * of_rows[:, None], scales) else None


def unpack_words(words: torch.Tensor, bits: int) -> torch.Tensor:
    """int32 [..., words] as the unsigned integers uint8 [..., words * 32 // bits] that are in them, the first in the lowest bits.

    Integers of 3, 5, 6 or 7 bits go on in the next word where one is full.
    """
    words = words.contiguous()
    mask = 2**bits - 1
    if 8 % bits == 0:
        pieces = words.view(torch.uint8)
        found = torch.empty(*pieces.shape, 8 // bits, dtype=torch.uint8)
        for place in range(8 // bits):
            found[..., place] = (pieces >> (place * bits)) & mask
        return found.flatten(-2)
    count = words.shape[-1] * 32 // bits
    padded = torch.nn.functional.pad(words.long() & 0xFFFFFFFF, (0, -words.shape[-1] % bits)).unflatten(-1, (-1, bits))
    found = torch.empty(*padded.shape[:-1], 32, dtype=torch.uint8)
    for place in range(32):
        word, offset = divmod(place * bits, 32)
        value = padded[..., word] >> offset
        if offset + bits > 32:
            value = value | (padded[..., word + 1] << (32 - offset))
        found[..., place] = (value & mask).to(torch.uint8)
    return found.flatten(-2)[..., :count]
