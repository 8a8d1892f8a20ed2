"""A checkpoint's weights by the names of the model's own, each read when it is asked for, so that only one is in memory twice."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

import torch

from mm_gateway.runtime.checkpoints.gguf.config import architecture_of
from mm_gateway.runtime.checkpoints.gguf.header import GgufHeader, GgufTensor
from mm_gateway.runtime.checkpoints.gguf.tensors import read_kept, read_weight
from mm_gateway.runtime.checkpoints.stored_tensors import StoredRows, StoredTensors
from mm_gateway.runtime.kernels.blocks import Blocks

_TYPES = ("F64", "F32", "F16", "BF16", "I64", "I32")


class TensorSource(Protocol):
    """shapes: of every tensor, by the name that the model has for it. outputs_first: weights that are [out, in], whatever class of layer
    the model has for them."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]: ...

    @property
    def outputs_first(self) -> Collection[str]: ...

    def read(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        """A tensor in memory of its own, numbers with fractions in `dtype`. Raises ValueError where the file is cut off."""
        ...

    def read_layer(self, name: str, dtype: torch.dtype) -> torch.Tensor | Blocks:
        """The weight of a linear layer as numbers of the model's shape, or as blocks [out, in] where it is stored in such."""
        ...


class SafetensorsSource:
    """Safetensors files whose tensors are the model's weights as they are."""

    outputs_first: Collection[str] = ()

    def __init__(self, stored: StoredTensors) -> None:
        self._stored = stored

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        # A type that only a quantizer knows is none that a model could take.
        return {name: header.shape for name, header in self._stored.headers.items() if header.dtype in _TYPES}

    def read(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        return _typed(self._stored.read(name), dtype)

    def read_layer(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        return self.read(name, dtype)

    def rows(self, name: str, dtype: torch.dtype) -> StoredRows:
        """The rows of a matrix, read as they are asked for."""
        return self._stored.rows(name, dtype)


class GgufSource:
    """A GGUF file.

    Args:
        keep_blocks: give layers in the blocks that they are stored in, where our kernels compute with such; else unpack them all.
    """

    outputs_first: Collection[str] = ()

    def __init__(self, header: GgufHeader, *, keep_blocks: bool) -> None:
        self._header = header
        self._keep_blocks = keep_blocks
        self._architecture = architecture_of(header)
        self._tensors: dict[str, GgufTensor] = {
            name: tensor for stored, tensor in header.tensors.items() if (name := self._architecture.weight_name(stored)) is not None
        }

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        turned = self._architecture.turned
        return {name: tensor.shape[::-1] if turned(tensor.name, tensor.shape) else tensor.shape for name, tensor in self._tensors.items()}

    def read(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        return _typed(read_weight(self._header, self._architecture, self._tensors[name], dtype), dtype)

    def read_layer(self, name: str, dtype: torch.dtype) -> torch.Tensor | Blocks:
        if not self._keep_blocks:
            return self.read(name, dtype)
        found = read_kept(self._header, self._architecture, self._tensors[name], dtype)
        return found if isinstance(found, Blocks) else _typed(found, dtype)


def _typed(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor
