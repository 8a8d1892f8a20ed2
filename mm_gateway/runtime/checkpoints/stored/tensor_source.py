"""A checkpoint's weights by the names of the model's own, each read when it is asked for, so that only one is in memory twice."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

import torch

from mm_gateway.runtime.checkpoints.gguf.architectures import architecture_of
from mm_gateway.runtime.checkpoints.gguf.header import GgufHeader, GgufTensor
from mm_gateway.runtime.checkpoints.gguf.tensors import of_expert, read_kept, read_weight
from mm_gateway.runtime.checkpoints.stored.stored_tensors import StoredRows, StoredTensors
from mm_gateway.runtime.kernels.blocks import Blocks, joined

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

    def read_expert(self, name: str, number: int, dtype: torch.dtype) -> torch.Tensor | Blocks:
        """As `read_layer`, of one expert in a tensor that holds those of all: [out, in]."""
        ...

    def are_equal(self, name: str, other: str) -> bool:
        """Whether two matrices hold the same numbers."""
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

    def read_expert(self, name: str, number: int, dtype: torch.dtype) -> torch.Tensor:
        return self._stored.rows(name, dtype)[number : number + 1].reshape(self.shapes[name][1:])

    def are_equal(self, name: str, other: str) -> bool:
        return self._stored.are_equal(name, other)

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
        self._tensors: dict[str, list[GgufTensor]] = {}
        for stored, tensor in header.tensors.items():
            if (name := self._architecture.weight_name(stored)) is not None:
                self._tensors.setdefault(name, []).append(tensor)
        for tensors in self._tensors.values():
            tensors.sort(key=lambda tensor: tensor.name)  # the gates of experts are above what they gate, as their names are

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {name: self._shape(tensors) for name, tensors in self._tensors.items()}

    def read(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        tensors = self._tensors[name]
        if len(tensors) == 1:
            found = read_weight(self._header, self._architecture, tensors[0], dtype)
            return _typed(found.reshape(self._shape(tensors)), dtype)
        return torch.cat([_typed(read_weight(self._header, self._architecture, tensor, dtype), dtype) for tensor in tensors], dim=1)

    def read_layer(self, name: str, dtype: torch.dtype) -> torch.Tensor | Blocks:
        if not self._keep_blocks:
            return self.read(name, dtype)
        found = read_kept(self._header, self._architecture, self._tensors[name][0], dtype)
        return found if isinstance(found, Blocks) else _typed(found.reshape(self._shape(self._tensors[name])), dtype)

    def read_expert(self, name: str, number: int, dtype: torch.dtype) -> torch.Tensor | Blocks:
        read = read_kept if self._keep_blocks else read_weight
        pieces = [read(self._header, self._architecture, of_expert(tensor, number), dtype) for tensor in self._tensors[name]]
        blocks = [piece for piece in pieces if isinstance(piece, Blocks)]
        if len(blocks) == len(pieces) and len({piece.kind for piece in blocks}) == 1:
            return joined(blocks)
        return torch.cat([_typed(piece.dequantize() if isinstance(piece, Blocks) else piece, dtype) for piece in pieces])

    def are_equal(self, name: str, other: str) -> bool:
        return False  # a file with an output layer says that its embeddings are not tied

    def _shape(self, tensors: list[GgufTensor]) -> tuple[int, ...]:
        shape = tensors[0].shape
        if self._architecture.turned(tensors[0].name, shape):
            return shape[::-1]
        if len(tensors) > 1:
            return (shape[0], sum(tensor.shape[1] for tensor in tensors), *shape[2:])
        return (1, *shape) if self._architecture.is_row(tensors[0].name) else shape


def _typed(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor
