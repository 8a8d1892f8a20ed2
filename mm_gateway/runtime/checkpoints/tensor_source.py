"""A checkpoint's weights by the names of the model's own, each read when it is asked for, so that only one is in memory twice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch

from mm_gateway.runtime.checkpoints.gguf.config import architecture_of
from mm_gateway.runtime.checkpoints.gguf.folder import gguf_file
from mm_gateway.runtime.checkpoints.gguf.header import GgufHeader, GgufTensor, read_header
from mm_gateway.runtime.checkpoints.gguf.tensors import read_kept, read_weight
from mm_gateway.runtime.checkpoints.tensor_headers import TensorHeader, read_headers
from mm_gateway.runtime.kernels.blocks import Blocks

_TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64, "I32": torch.int32}


class TensorSource(Protocol):
    """shapes: of every tensor, by the name that the model has for it."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]: ...

    def read(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        """A tensor in memory of its own, numbers with fractions in `dtype`. Raises ValueError where the file is cut off."""
        ...

    def read_layer(self, name: str, dtype: torch.dtype) -> torch.Tensor | Blocks:
        """The weight of a linear layer as numbers of the model's shape, or as blocks [out, in] where it is stored in such."""
        ...


class SafetensorsSource:
    """The safetensors files of a folder. They are read, not mapped: pages of a mapped file count as the process's memory."""

    def __init__(self, folder: Path) -> None:
        self._found: dict[str, tuple[Path, TensorHeader]] = {
            header.name: (file, header) for file in sorted(folder.glob("*.safetensors")) for header in read_headers(file)
        }

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        # A type that only a quantizer knows is none that a model could take.
        return {name: header.shape for name, (_, header) in self._found.items() if header.dtype in _TYPES}

    def read(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        file, header = self._found[name]
        with file.open("rb") as stream:
            stream.seek(header.offset)
            stored = bytearray(stream.read(header.nbytes))
        if len(stored) != header.nbytes:
            raise ValueError(f"{file.name} is cut off or damaged")
        if not stored:
            return torch.empty(header.shape, dtype=dtype)
        return _typed(torch.frombuffer(stored, dtype=_TYPES[header.dtype]).reshape(header.shape), dtype)

    def read_layer(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        return self.read(name, dtype)


class GgufSource:
    """A GGUF file.

    Args:
        keep_blocks: give layers in the blocks that they are stored in, where our kernels compute with such; else unpack them all.
    """

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


def tensor_source(folder: Path, *, keep_blocks: bool) -> TensorSource | None:
    """Where the weights of a folder are read from; None where they are in another format than safetensors and GGUF.

    Args:
        keep_blocks: see `GgufSource`.

    Raises:
        ValueError: a file is cut off or damaged.
    """
    if (file := gguf_file(folder)) is not None:
        return GgufSource(read_header(file), keep_blocks=keep_blocks)
    return SafetensorsSource(folder) if any(folder.glob("*.safetensors")) else None
