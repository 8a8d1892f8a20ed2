"""A GGUF file's tensors, read one at a time, as the weights that transformers' classes have."""

from __future__ import annotations

from dataclasses import replace

import gguf
import numpy as np
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from mm_gateway.runtime.checkpoints.gguf.architectures import Architecture
from mm_gateway.runtime.checkpoints.gguf.header import GgufHeader, GgufTensor
from mm_gateway.runtime.checkpoints.gguf.kept_blocks import KEPT
from mm_gateway.runtime.checkpoints.stored.stored_tensors import read_exactly
from mm_gateway.runtime.kernels.blocks import Blocks, joined

_PLAIN = {
    GGMLQuantizationType.F32: torch.float32,
    GGMLQuantizationType.F16: torch.float16,
    GGMLQuantizationType.BF16: torch.bfloat16,
    GGMLQuantizationType.F64: torch.float64,
}

# Numbers that are unpacked at a time: the package makes several copies of them on the way.
_CHUNK_ITEMS = 2**20


def read_tensor(header: GgufHeader, tensor: GgufTensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The numbers of a tensor: in their own type where they are stored as they are, else in `dtype`.

    Raises:
        ValueError: the file is cut off, or has blocks of a kind that the package gguf does not read.
    """
    with tensor.file.open("rb") as stream:
        stream.seek(tensor.offset)
        if tensor.kind in _PLAIN:
            return torch.frombuffer(read_exactly(stream, tensor.nbytes), dtype=_PLAIN[tensor.kind]).reshape(tensor.shape)
        found = torch.empty(tensor.items, dtype=dtype)
        block, block_bytes = GGML_QUANT_SIZES[tensor.kind]
        step = _CHUNK_ITEMS // block
        for first in range(0, tensor.items // block, step):
            count = min(step, tensor.items // block - first)
            blocks = np.frombuffer(read_exactly(stream, count * block_bytes), dtype=np.uint8)
            try:
                with np.errstate(all="ignore"):  # a scale that is no number makes numbers that are none
                    numbers = gguf.dequantize(blocks, tensor.kind).reshape(-1)
            except NotImplementedError as error:
                raise ValueError(f"{header.file.name}: {tensor.name} is stored as {tensor.kind.name}, which is not read here") from error
            found[first * block : (first + count) * block] = torch.from_numpy(numbers)
    return found.reshape(tensor.shape)


def read_weight(header: GgufHeader, architecture: Architecture, tensor: GgufTensor, dtype: torch.dtype) -> torch.Tensor:
    """A tensor as transformers' class of the architecture has it; see `read_tensor`."""
    found = read_tensor(header, tensor, dtype)
    name = tensor.name
    if (heads := _permuted_heads(header, architecture, name)) is not None:
        return _unpermuted(found, heads)
    if architecture.raised_norms and name.endswith("norm.weight"):
        return found.float() - 1
    return found.T if architecture.turned(name, tensor.shape) else found


def of_expert(tensor: GgufTensor, number: int) -> GgufTensor:
    """One expert's matrix in a tensor [experts, outputs, inputs] that holds those of all."""
    size = tensor.nbytes // tensor.shape[0]
    return replace(tensor, shape=tensor.shape[1:], offset=tensor.offset + number * size, nbytes=size)


def read_kept(header: GgufHeader, architecture: Architecture, tensor: GgufTensor, dtype: torch.dtype) -> torch.Tensor | Blocks:
    """The weight of a linear layer: as blocks [out, in] where our kernels compute with blocks of its kind, else as `read_weight`."""
    if tensor.kind not in KEPT or len(tensor.shape) != 2:
        return read_weight(header, architecture, tensor, dtype)
    kind, (rows, inputs) = KEPT[tensor.kind], tensor.shape
    block, block_bytes = GGML_QUANT_SIZES[tensor.kind]
    step = max(1, _CHUNK_ITEMS // inputs)
    pieces: list[Blocks] = []
    with tensor.file.open("rb") as stream:
        stream.seek(tensor.offset)
        for first in range(0, rows, step):
            count = min(step, rows - first)
            stored = np.frombuffer(read_exactly(stream, count * inputs // block * block_bytes), dtype=np.uint8)
            pieces.append(kind.blocks(stored.reshape(-1, block_bytes), count, inputs))
    heads = _permuted_heads(header, architecture, tensor.name)
    found = joined(pieces)
    return found if heads is None else found.of_rows(lambda part: _unpermuted(part, heads))


def _permuted_heads(header: GgufHeader, architecture: Architecture, name: str) -> int | None:
    """How many heads a tensor's rows belong to, where they are stored in the order of rotary embedding in pairs; None: they are not."""
    if not architecture.permuted or not (".attn_q." in name or ".attn_k." in name):
        return None
    heads = header.get("attention.head_count")
    return heads if ".attn_q." in name else header.get("attention.head_count_kv", heads)


def _unpermuted(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of each head from pairs that lie side by side to pairs that lie half a head apart, [heads * head_dim, ...]."""
    rows = weight.shape[0]
    return weight.reshape(heads, rows // heads // 2, 2, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)
