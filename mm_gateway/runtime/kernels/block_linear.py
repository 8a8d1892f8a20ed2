"""A linear layer over blocks: lays the weights out for the kernels and calls them."""

from __future__ import annotations

import ctypes

import torch

from mm_gateway.runtime.kernels.blocks import BLOCK, Blocks
from mm_gateway.runtime.kernels.library import Layer, library

PANEL = 16  # outputs that are computed together: native/block_linear.h


class BlockLinear:
    """y = x W^T + b for x [..., inputs] -> [..., outputs] fp32. A row's result does not depend on the rows beside it.

    Args:
        blocks: the weight. bias: [outputs] fp32 or None.

    Raises:
        RuntimeError: there are no kernels on this machine (`library()` is None).
    """

    in_blocks = True

    def __init__(self, blocks: Blocks, bias: torch.Tensor | None) -> None:
        loaded = library()
        if loaded is None:
            raise RuntimeError("no compiled kernels")
        self._function = loaded.block_linear
        self.outputs, self.inputs = blocks.shape
        # The library reads these by their addresses, so they live as long as the layer does.
        self._quants = _quants_in_panels(blocks)
        self._scales = _in_panels(blocks.scales)
        self._minimums = _in_panels(blocks.minimums) if blocks.minimums is not None else None
        self._row_scales = blocks.row_scales.contiguous() if blocks.row_scales is not None else None
        self._bias = bias.detach().float().contiguous() if bias is not None else None
        self._layer = Layer(
            self.outputs,
            self.inputs,
            *(None if t is None else t.data_ptr() for t in (self._quants, self._scales, self._minimums, self._bias, self._row_scales)),
        )
        self.address = ctypes.addressof(self._layer)

    @property
    def nbytes(self) -> int:
        """Memory of the weights, scales included."""
        return sum(tensor.nbytes for tensor in (self._quants, self._scales, self._minimums, self._row_scales) if tensor is not None)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        x = x.float().contiguous()
        y = x.new_empty((*x.shape[:-1], self.outputs))
        self._function(self.address, x.data_ptr(), y.data_ptr(), x.numel() // self.inputs, torch.get_num_threads())
        return y


def whole_panels(tensor: torch.Tensor) -> torch.Tensor:
    """[outputs, ...] with zeros up to a multiple of 16 outputs."""
    missing = -len(tensor) % PANEL
    return torch.cat([tensor, tensor.new_zeros(missing, *tensor.shape[1:])]) if missing else tensor


def _in_panels(scales: torch.Tensor) -> torch.Tensor:
    """[outputs, blocks] -> [panels, blocks, 16]."""
    return whole_panels(scales).unflatten(0, (-1, PANEL)).transpose(1, 2).contiguous()


def _quants_in_panels(blocks: Blocks) -> torch.Tensor:
    """[outputs, blocks, 32] -> [panels, blocks, groups, 16, 4]: 8 groups of 4 inputs, or 4 bytes of two groups each."""
    panels = whole_panels(blocks.quants).unflatten(0, (-1, PANEL)).unflatten(-1, (BLOCK // 4, 4)).permute(0, 2, 3, 1, 4)
    if blocks.minimums is None:
        return panels.contiguous()
    low, high = panels.chunk(2, dim=2)
    return (low | (high << 4)).contiguous()
