"""Layouts of compressed-tensors (https://github.com/vllm-project/compressed-tensors, src/compressed_tensors/compressors)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.support.quantized.checkpoint import Numbers, affine, as_int32, bit_stream, write
from tests.support.quantized.fp8 import to_fp8


def _said(layout: str, *groups: dict[str, Any]) -> dict[str, Any]:
    return {
        "quant_method": "compressed-tensors",
        "format": layout,
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
        "config_groups": {f"group_{index}": group for index, group in enumerate(groups)},
    }


def _integers(bits: int, *, symmetric: bool, size: int | None) -> dict[str, Any]:
    strategy = {"strategy": "channel"} if size is None else {"strategy": "group", "group_size": size}
    return {"num_bits": bits, "type": "int", "symmetric": symmetric, "dynamic": False, **strategy}


def write_packed(
    folder: Path, *, bits: int = 4, size: int | None = 96, symmetric: bool = True, reordered: bool = False
) -> dict[str, torch.Tensor]:
    """w4a16 and its relatives: integers packed into words. size: None: a scale for each output. reordered: as with actorder: group."""

    def quantize(layer: str, weight: Numbers) -> tuple[dict[str, torch.Tensor], Numbers]:
        inputs = weight.shape[1]
        used = size or inputs
        order = np.random.default_rng(1).permutation(np.arange(inputs) // used) if reordered else None
        found = affine(weight, bits=bits, size=used, symmetric=symmetric, dtype=torch.bfloat16, order=order)
        parts = {
            "weight_packed": as_int32(bit_stream(found.integers, bits)),
            "weight_scale": torch.from_numpy(found.scales).bfloat16(),
            "weight_shape": torch.tensor(weight.shape),
        }
        if not symmetric:
            parts["weight_zero_point"] = as_int32(bit_stream(found.zeros.T, bits).T)
        if reordered:
            parts["weight_g_idx"] = torch.from_numpy(found.group).int()
        return parts, found.meant

    group = {"targets": ["Linear"], "weights": _integers(bits, symmetric=symmetric, size=size)}
    return write(folder, quantize, _said("pack-quantized", group))


def write_w8a8(folder: Path, *, scale_dtype: torch.dtype = torch.bfloat16) -> dict[str, torch.Tensor]:
    """int8 weights with a scale for each output; activations would be quantized for each token."""

    def quantize(layer: str, weight: Numbers) -> tuple[dict[str, torch.Tensor], Numbers]:
        found = affine(weight, bits=8, size=weight.shape[1], symmetric=True, dtype=scale_dtype)
        parts = {
            "weight": torch.from_numpy(found.integers - 128).to(torch.int8),
            "weight_scale": torch.from_numpy(found.scales).to(scale_dtype),
        }
        return parts, found.meant

    activations = {"num_bits": 8, "type": "int", "symmetric": True, "dynamic": True, "strategy": "token"}
    group = {"targets": ["Linear"], "weights": _integers(8, symmetric=True, size=None), "input_activations": activations}
    return write(folder, quantize, _said("int-quantized", group))


def write_float(folder: Path, *, strategy: str) -> dict[str, torch.Tensor]:
    """FP8 weights with a scale for each tensor, channel or block; of a tensor's activations the scale is stored as well."""

    def quantize(layer: str, weight: Numbers) -> tuple[dict[str, torch.Tensor], Numbers]:
        block = {"tensor": weight.shape, "channel": (1, weight.shape[1]), "block": (128, 128)}[strategy]
        stored, scales, meant = to_fp8(weight, block, torch.bfloat16)
        parts = {"weight": stored, "weight_scale": scales.reshape(1) if strategy == "tensor" else scales}
        if strategy == "tensor":
            parts["input_scale"] = torch.tensor([0.02], dtype=torch.bfloat16)
        return parts, meant

    weights: dict[str, Any] = {"num_bits": 8, "type": "float", "symmetric": True, "dynamic": False, "strategy": strategy}
    if strategy == "block":
        weights["block_structure"] = [128, 128]
    return write(folder, quantize, _said("float-quantized", {"targets": ["Linear"], "weights": weights, "input_activations": None}))


def write_mixed(folder: Path) -> dict[str, torch.Tensor]:
    """Attention in 8 bits for each channel by a pattern, the rest in 4 bits for groups by its class."""

    def quantize(layer: str, weight: Numbers) -> tuple[dict[str, torch.Tensor], Numbers]:
        attention = "self_attn" in layer
        bits, size = (8, weight.shape[1]) if attention else (4, 32)
        found = affine(weight, bits=bits, size=size, symmetric=True, dtype=torch.bfloat16)
        parts = {"weight_scale": torch.from_numpy(found.scales).bfloat16()}
        if attention:
            return parts | {"weight": torch.from_numpy(found.integers - 128).to(torch.int8)}, found.meant
        return parts | {"weight_packed": as_int32(bit_stream(found.integers, 4)), "weight_shape": torch.tensor(weight.shape)}, found.meant

    attention = {"targets": ["re:.*self_attn.*"], "format": "int-quantized", "weights": _integers(8, symmetric=True, size=None)}
    rest = {"targets": ["Linear"], "format": "pack-quantized", "weights": _integers(4, symmetric=True, size=32)}
    return write(folder, quantize, _said("mixed-precision", rest, attention))
