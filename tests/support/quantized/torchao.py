"""torchao's classes as its safetensors support takes them apart (https://github.com/pytorch/ao, torchao/prototype/safetensors)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from tests.support.quantized.checkpoint import Numbers, affine, write
from tests.support.quantized.fp8 import to_fp8


def write_torchao(folder: Path, kind: str, *, size: int = 96) -> dict[str, torch.Tensor]:
    """kind: a class of torchao. size: of the groups, where the class has them."""
    names = list(load_file(folder / "model.safetensors"))
    metadata = {name: json.dumps({"_type": "Tensor"}) for name in names} | {"tensor_names": json.dumps(names)}

    def quantize(layer: str, weight: Numbers) -> tuple[dict[str, torch.Tensor], Numbers]:
        parts, properties, meant = _KINDS[kind](weight, size)
        metadata[f"{layer}.weight"] = json.dumps({"_type": kind, "_data": properties, "_tensor_data_names": list(parts)})
        return {f"_weight_{name}": part for name, part in parts.items()}, meant

    return write(folder, quantize, {"quant_method": "torchao", "quant_type": {"default": {}}}, metadata=metadata)


Written = tuple[dict[str, torch.Tensor], dict[str, Any], Numbers]


def _int8(weight: Numbers, size: int) -> Written:
    found = affine(weight, bits=8, size=weight.shape[1], symmetric=True, dtype=torch.float32)
    parts = {
        "qdata": torch.from_numpy(found.integers - 128).to(torch.int8),
        "scale": torch.from_numpy(found.scales),
        "zero_point": torch.zeros(found.scales.shape, dtype=torch.int8),
    }
    return parts, {"block_size": [1, weight.shape[1]], "dtype": {"_type": "torch.dtype", "_data": "bfloat16"}}, found.meant


def _intx(weight: Numbers, size: int) -> Written:
    found = affine(weight, bits=4, size=size, symmetric=True, dtype=torch.bfloat16)
    parts = {
        "qdata": torch.from_numpy(found.integers - 8).to(torch.int8),
        "scale": torch.from_numpy(found.scales).bfloat16(),
        "zero_point": torch.zeros(found.scales.shape, dtype=torch.int8),
    }
    properties = {"target_dtype": {"_type": "torch.dtype", "_data": "int4"}, "block_size": [1, size]}
    return parts, {**properties, "dtype": {"_type": "torch.dtype", "_data": "bfloat16"}, "activation_quantization": None}, found.meant


def _int4(weight: Numbers, size: int) -> Written:
    """Signed integers; the zero point is a number that is added (fbgemm's int4_row_quantize_zp)."""
    groups = weight.reshape(weight.shape[0], -1, size)
    low, high = groups.min(-1), groups.max(-1)
    scales = torch.from_numpy((high - low) / 15).bfloat16().float().numpy()
    added = torch.from_numpy(low + 8 * scales).bfloat16().float().numpy()
    integers = np.clip(np.round((groups - added[..., None]) / scales[..., None]), -8, 7).astype(np.int64)
    meant = (integers * scales[..., None] + added[..., None]).reshape(weight.shape)
    flat = integers.reshape(weight.shape)
    packed = ((flat[:, 1::2] << 4) | (flat[:, ::2] & 15)).astype(np.uint8).view(np.int8)
    parts = {
        "qdata": torch.from_numpy(packed.copy()),
        "scale": torch.from_numpy(scales.T.copy()).bfloat16(),
        "zero_point": torch.from_numpy(added.T.copy()).bfloat16(),
    }
    return parts, {"block_size": [1, size], "shape": list(weight.shape)}, meant


def _float8(weight: Numbers, size: int) -> Written:
    stored, scales, meant = to_fp8(weight, (1, weight.shape[1]), torch.float32)
    return {"qdata": stored, "scale": scales}, {"block_size": [1, weight.shape[1]]}, meant


_KINDS = {"Int8Tensor": _int8, "IntxUnpackedToInt8Tensor": _intx, "Int4Tensor": _int4, "Float8Tensor": _float8}
