"""A linear layer over blocks or numbers: lays the weights out for the kernels and calls them."""

from __future__ import annotations

import ctypes

import torch

from mm_gateway.runtime.kernels.blocks import BLOCK, Blocks
from mm_gateway.runtime.kernels.library import Kind, Layer, library
from mm_gateway.runtime.kernels.weight_memory import in_weight_memory

PANEL = 16  # outputs that are computed together: native/block_linear.h
_KINDS = {(8, False): Kind.Q8, (4, False): Kind.Q4, (5, False): Kind.Q5, (4, True): Kind.Q4F, (5, True): Kind.Q5F, (6, True): Kind.Q6F}

_NUMBERS = {torch.float16: Kind.FP16, torch.bfloat16: Kind.BF16}


class BlockLinear:
    """y = x W^T + b for x [..., inputs] -> [..., outputs] fp32. A row's result does not depend on the rows beside it.

    Attributes:
        address: of the `struct Layer` that native/block_linear.h reads.

    Args:
        weight: blocks, or numbers [outputs, inputs]; fp16 and bf16 stay so, others are held in fp32. bias: [outputs] fp32 or None.

    Raises:
        RuntimeError: there are no kernels on this machine (`library()` is None).
    """

    def __init__(self, weight: Blocks | torch.Tensor, bias: torch.Tensor | None) -> None:
        loaded = library()
        if loaded is None:
            raise RuntimeError("no compiled kernels")
        self._function, self._rows = loaded.block_linear, loaded.block_linear_rows
        self.outputs, self.inputs = weight.shape
        # The library reads these by their addresses, so they live as long as the layer does.
        if isinstance(weight, Blocks):
            kind = _KINDS[weight.kind]
            panels = _blocks_in_panels(weight)
        else:
            kind = _NUMBERS.get(weight.dtype, Kind.FP32)
            numbers = _pairs(weight) if kind == Kind.BF16 else weight if kind == Kind.FP16 else weight.float()
            panels = [_in_panels(numbers), *[None] * 6]
        self._weights = [None if part is None else in_weight_memory(part) for part in panels]
        self._bias = _whole_panels(bias.detach().float()).contiguous() if bias is not None else None
        tensors = (*self._weights, self._bias)
        self._layer = Layer(kind, self.outputs, self.inputs, *(None if t is None else t.data_ptr() for t in tensors))
        self.address = ctypes.addressof(self._layer)

    @property
    def nbytes(self) -> int:
        """Memory of the weights, scales included."""
        return sum(tensor.nbytes for tensor in self._weights if tensor is not None)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        x = x.float().contiguous()
        y = x.new_empty((*x.shape[:-1], self.outputs))
        self._function(self.address, x.data_ptr(), y.data_ptr(), x.numel() // self.inputs, torch.get_num_threads())
        return y

    def rows(self, ids: torch.Tensor) -> torch.Tensor:
        """The weights of outputs: ids [...] int64 -> [..., inputs] fp32.

        Raises:
            IndexError: there is no such output.
        """
        ids = ids.contiguous()
        if ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= self.outputs):
            raise IndexError("index out of range")
        y = torch.empty((*ids.shape, self.inputs), dtype=torch.float32)
        self._rows(self.address, ids.data_ptr(), y.data_ptr(), ids.numel(), torch.get_num_threads())
        return y


def _whole_panels(tensor: torch.Tensor) -> torch.Tensor:
    missing = -len(tensor) % PANEL
    return torch.cat([tensor, tensor.new_zeros(missing, *tensor.shape[1:])]) if missing else tensor


def _pairs(numbers: torch.Tensor) -> torch.Tensor:
    """[outputs, inputs] bf16 -> [outputs, pairs] int32, the even input in the lower half."""
    odd = numbers.shape[1] % 2
    return (torch.nn.functional.pad(numbers, (0, odd)) if odd else numbers.contiguous()).view(torch.int32)


def _in_panels(rows: torch.Tensor) -> torch.Tensor:
    """[outputs, n] -> [panels, n, 16]."""
    return _whole_panels(rows).unflatten(0, (-1, PANEL)).transpose(1, 2).contiguous()


def _blocks_in_panels(blocks: Blocks) -> list[torch.Tensor | None]:
    """Quants, highest bits, scales, minimums, fine scales, fine minimums, row scales: as native/block_linear.h says."""
    # [panels, blocks, groups of 4 inputs: 8, 16, 4]
    groups = _whole_panels(blocks.quants).unflatten(0, (-1, PANEL)).unflatten(-1, (BLOCK // 4, 4)).permute(0, 2, 3, 1, 4)
    quants, more = groups, None
    if blocks.bits != 8:
        low, high = groups.chunk(2, dim=2)
        quants = (low & 15) | ((high & 15) << 4)
    if blocks.bits == 5:
        more = _together([(groups[:, :, group] >> 4) << group for group in range(8)])
    elif blocks.bits == 6:
        halves = [[(groups[:, :, first + group] >> 4) << (2 * group) for group in range(4)] for first in (0, 4)]
        more = torch.stack([_together(half) for half in halves], dim=2)
    scales = [blocks.scales, blocks.minimums, blocks.fine_scales, blocks.fine_minimums]
    rest = [None if part is None else _in_panels(part) for part in scales]
    row_scales = None if blocks.row_scales is None else _whole_panels(blocks.row_scales).contiguous()
    return [quants.contiguous(), more.contiguous() if more is not None else None, *rest, row_scales]


def _together(parts: list[torch.Tensor]) -> torch.Tensor:
    found = parts[0].clone()
    for part in parts[1:]:
        found |= part
    return found
