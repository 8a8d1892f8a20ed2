"""Replaces the linear layers of a saved checkpoint by what a quantizer would store, and keeps what that stands for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

Numbers = np.ndarray[Any, np.dtype[Any]]
Quantize = Callable[[str, Numbers], tuple[dict[str, torch.Tensor], Numbers]]
"""From a layer's name and its weight [out, in] to its parts by their names after the layer's, and the weight that they stand for."""

_LAYERS = ("_proj.weight", "c_attn.weight", "c_fc.weight")


def write(
    folder: Path, quantize: Quantize, said: Mapping[str, Any], *, metadata: Mapping[str, str] | None = None
) -> dict[str, torch.Tensor]:
    """All weights that the checkpoint stands for afterwards, by their original names; other tensors are stored in bf16.

    Args:
        said: `quantization_config` of config.json. metadata: of the file, which `quantize` may still add to.
    """
    stored: dict[str, torch.Tensor] = {}
    meant: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        if tensor.ndim == 2 and name.endswith(_LAYERS):
            layer = name.removesuffix(".weight")
            parts, numbers = quantize(layer, tensor.float().numpy())
            stored |= {f"{layer}.{part}": value.contiguous() for part, value in parts.items()}
            meant[name] = torch.from_numpy(numbers.astype(np.float32))
        else:
            stored[name] = tensor.bfloat16()
            meant[name] = stored[name].float()
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt", **(metadata or {})})
    config = json.loads((folder / "config.json").read_text())
    config |= {"quantization_config": dict(said), "dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(config))
    return meant


@dataclass(frozen=True)
class Affine:
    """scales * (integers - zeros): integers [out, in] of 0 … 2^bits - 1, scales and zeros [out, groups], group: of each input."""

    integers: Numbers
    scales: Numbers
    zeros: Numbers
    group: Numbers

    @property
    def meant(self) -> Numbers:
        return (self.integers - self.zeros[:, self.group]) * self.scales[:, self.group]


def affine(weight: Numbers, *, bits: int, size: int, symmetric: bool, dtype: torch.dtype, order: Numbers | None = None) -> Affine:
    """The nearest integers, with scales that `dtype` holds."""
    top = 2**bits - 1
    group = np.arange(weight.shape[1]) // size if order is None else order
    count = int(group.max()) + 1
    low = np.stack([np.minimum(weight[:, group == g].min(1), 0) for g in range(count)], 1)
    high = np.stack([np.maximum(weight[:, group == g].max(1), 0) for g in range(count)], 1)
    scales = (np.maximum(-low, high) * 2 if symmetric else high - low) / top
    scales = torch.from_numpy(scales).to(dtype).float().numpy()
    zeros = np.full(scales.shape, (top + 1) // 2) if symmetric else np.clip(np.round(-low / scales), 0, top).astype(np.int64)
    integers = np.clip(np.round(weight / scales[:, group]) + zeros[:, group], 0, top).astype(np.int64)
    return Affine(integers, scales, zeros, group)


def as_int32(words: Numbers) -> torch.Tensor:
    """Unsigned words of 32 bits as safetensors stores them."""
    return torch.from_numpy(words.astype(np.uint32).view(np.int32).copy())


def bit_stream(values: Numbers, bits: int) -> Numbers:
    """[rows, columns] -> words [rows, columns * bits / 32], each row's integers one after the other from the lowest bit on."""
    rows, columns = values.shape
    stream = ((values[:, :, None] >> np.arange(bits)) & 1).reshape(rows, columns * bits)
    stream = np.pad(stream, ((0, 0), (0, -columns * bits % 32))).reshape(rows, -1, 32)
    return (stream << np.arange(32)).sum(-1)
