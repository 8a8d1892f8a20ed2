"""A linear layer over weights of 32 or 16 bits: lays them out in panels for the kernels and calls them."""

from __future__ import annotations

import ctypes

import torch

from mm_gateway.runtime.kernels.block_linear import PANEL, whole_panels
from mm_gateway.runtime.kernels.library import Dense, library


class DenseLinear:
    """y = x W^T + b for x [..., inputs] -> [..., outputs] fp32, arithmetic in fp32. A row's result does not depend on the rows beside it.

    Args:
        weight: [outputs, inputs], any float type. bias: [outputs] or None. dtype: float32 or float16, what the weight is kept in.

    Raises:
        RuntimeError: there are no kernels on this machine (`library()` is None).
    """

    in_blocks = False

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype) -> None:
        loaded = library()
        if loaded is None:
            raise RuntimeError("no compiled kernels")
        self._function = loaded.dense_linear
        self.outputs, self.inputs = weight.shape
        # The library reads these by their addresses, so they live as long as the layer does.
        self._panels = in_panels(weight.detach().to(dtype))
        self._bias = whole_panels(bias.detach().float()).contiguous() if bias is not None else None
        self._layer = Dense(
            self.outputs, self.inputs, self._panels.data_ptr(), dtype.itemsize, None if self._bias is None else self._bias.data_ptr()
        )
        self.address = ctypes.addressof(self._layer)

    @property
    def nbytes(self) -> int:
        """Memory of the weights."""
        return self._panels.nbytes

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        x = x.float().contiguous()
        y = x.new_empty((*x.shape[:-1], self.outputs))
        self._function(self.address, x.data_ptr(), y.data_ptr(), x.numel() // self.inputs, torch.get_num_threads())
        return y


def in_panels(weight: torch.Tensor) -> torch.Tensor:
    """[outputs, inputs] -> [panels, inputs, 16]."""
    return whole_panels(weight).unflatten(0, (-1, PANEL)).transpose(1, 2).contiguous()
