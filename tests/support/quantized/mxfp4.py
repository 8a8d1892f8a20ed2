"""Experts as gpt-oss has them (https://github.com/openai/gpt-oss, gpt_oss/torch/weights.py)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from tests.support.quantized.checkpoint import Numbers

_VALUES = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def to_mxfp4(weight: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """(bytes [..., in / 32, 16], exponents [..., in / 32], what they stand for) of a weight [..., in]."""
    groups = weight.reshape(*weight.shape[:-1], -1, 32)
    exponents = np.floor(np.log2(np.abs(groups).max(-1))) - 2
    scaled = groups / 2.0 ** exponents[..., None]
    codes = np.abs(np.abs(scaled)[..., None] - _VALUES).argmin(-1)
    meant = np.where(scaled < 0, -1, 1) * _VALUES[codes] * 2.0 ** exponents[..., None]
    codes = codes + 8 * (scaled < 0)
    packed = np.ascontiguousarray(codes[..., 0::2] | (codes[..., 1::2] << 4), dtype=np.uint8)
    return packed, np.ascontiguousarray(exponents + 127, dtype=np.uint8), meant.reshape(weight.shape)


def write_mxfp4(folder: Path) -> dict[str, torch.Tensor]:
    """Replace the experts of a saved gpt-oss; all weights that it stands for, by their original names."""
    stored: dict[str, torch.Tensor] = {}
    meant: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            packed, exponents, numbers = to_mxfp4(tensor.float().numpy().swapaxes(1, 2))
            stored |= {f"{name}_blocks": torch.from_numpy(packed), f"{name}_scales": torch.from_numpy(exponents)}
            meant[name] = torch.from_numpy(np.ascontiguousarray(numbers.swapaxes(1, 2), dtype=np.float32))
        else:
            stored[name] = tensor.bfloat16()
            meant[name] = stored[name].float()
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config |= {"quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["model.embed_tokens", "lm_head"]}}
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    return meant
