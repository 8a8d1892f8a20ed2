"""A GGUF file's tensors, read one at a time, as the weights that transformers' classes have."""

from __future__ import annotations

from typing import BinaryIO

import gguf
import numpy as np
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from mm_gateway.runtime.checkpoints.gguf.architectures import Architecture
from mm_gateway.runtime.checkpoints.gguf.header import GgufHeader, GgufTensor

_PLAIN = {
    GGMLQuantizationType.F32: torch.float32,
    GGMLQuantizationType.F16: torch.float16,
    GGMLQuantizationType.BF16: torch.bfloat16,
    GGMLQuantizationType.F64: torch.float64,
}

# Numbers that are unpacked at a time: the package makes several copies of them on the way.
_CHUNK_ITEMS = 2**20


def read_tensor(header: GgufHeader, tensor: GgufTensor) -> torch.Tensor:
    """The numbers of a tensor: in their own type where they are stored as they are, else fp32.

    Raises:
        ValueError: the file is cut off, or has blocks of a kind that the package gguf does not read.
    """
    with header.file.open("rb") as stream:
        stream.seek(tensor.offset)
        if tensor.kind in _PLAIN:
            stored = bytearray(_exactly(stream, tensor.nbytes, header))
            return torch.frombuffer(stored, dtype=_PLAIN[tensor.kind]).reshape(tensor.shape)
        found = np.empty(tensor.items, dtype=np.float32)
        block, block_bytes = GGML_QUANT_SIZES[tensor.kind]
        step = _CHUNK_ITEMS // block
        for first in range(0, tensor.items // block, step):
            count = min(step, tensor.items // block - first)
            blocks = np.frombuffer(_exactly(stream, count * block_bytes, header), dtype=np.uint8)
            try:
                with np.errstate(all="ignore"):  # a scale that is no number makes numbers that are none
                    found[first * block : (first + count) * block] = gguf.dequantize(blocks, tensor.kind).reshape(-1)
            except NotImplementedError as error:
                raise ValueError(f"{header.file.name}: {tensor.name} is stored as {tensor.kind.name}, which is not read here") from error
    return torch.from_numpy(found).reshape(tensor.shape)


def _exactly(stream: BinaryIO, count: int, header: GgufHeader) -> bytes:
    found = stream.read(count)
    if len(found) != count:
        raise ValueError(f"{header.file.name} is cut off or damaged")
    return found


def read_weight(header: GgufHeader, architecture: Architecture, tensor: GgufTensor) -> torch.Tensor:
    """A tensor as transformers' class of the architecture has it."""
    found = read_tensor(header, tensor)
    name = tensor.name
    if architecture.permuted and (".attn_q." in name or ".attn_k." in name):
        return _unpermuted(found, header.get("attention.head_count" if ".attn_q." in name else "attention.head_count_kv"))
    if architecture.raised_norms and name.endswith("norm.weight"):
        return found.float() - 1
    return found.T if architecture.turned(name, tensor.shape) else found


def _unpermuted(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of each head from pairs that lie side by side to pairs that lie half a head apart, [heads * head_dim, ...]."""
    rows = weight.shape[0]
    return weight.reshape(heads, rows // heads // 2, 2, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)
