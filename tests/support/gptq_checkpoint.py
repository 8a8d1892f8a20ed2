"""Quantizes a checkpoint's linear layers in GPTQ's layout (by rounding: the format matters here), and keeps what they stand for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from tests.support.quantized.checkpoint import as_int32, bit_stream


def pack_rows(values: torch.Tensor, bits: int) -> torch.Tensor:
    """Unsigned integers [rows, columns], packed along the rows into int32, the first in the lowest bits."""
    return as_int32(bit_stream(values.numpy().astype(np.int64).T, bits)).T.contiguous()


def quantize_layer(
    weight: torch.Tensor, *, bits: int, group_size: int, desc_act: bool, sym: bool, v2: bool
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """(parts of the layer, the weight [out, in] that they stand for) of a weight [out, in]."""
    outputs, inputs = weight.shape
    size = group_size if group_size > 0 else inputs
    groups = torch.arange(inputs) // size
    if desc_act:
        groups = groups[torch.randperm(inputs, generator=torch.Generator().manual_seed(1))]
    count, top = inputs // size, 2**bits - 1
    scales, zeros = torch.zeros(count, outputs), torch.zeros(count, outputs)
    for group in range(count):
        columns = weight[:, groups == group]
        low, high = columns.amin(1).clamp(max=0), columns.amax(1).clamp(min=0)
        if sym:
            scales[group], zeros[group] = torch.maximum(-low, high) * 2 / top, (top + 1) // 2
        else:
            scales[group] = (high - low) / top
            zeros[group] = torch.round(-low / scales[group])
    scales = scales.half().clamp(min=1e-4)
    integers = torch.clamp(torch.round(weight.T / scales.float()[groups]) + zeros[groups], 0, top)
    stands_for = ((integers - zeros[groups]) * scales.float()[groups]).T.contiguous()
    stored_zeros = zeros if v2 else (zeros - 1) % (top + 1)
    parts = {
        "qweight": pack_rows(integers, bits),
        "qzeros": pack_rows(stored_zeros.T, bits).T.contiguous(),
        "scales": scales,
        "g_idx": groups.to(torch.int32),
    }
    return parts, stands_for


def quantize_checkpoint(
    folder: Path,
    *,
    bits: int = 4,
    group_size: int = 32,
    desc_act: bool = False,
    sym: bool = True,
    v2: bool = False,
    g_idx: bool = True,
    zero_biases: bool = False,
) -> dict[str, torch.Tensor]:
    """Replace the linear layers of a saved checkpoint; all weights that it stands for, by their original names."""
    weights = load_file(folder / "model.safetensors")
    stored: dict[str, torch.Tensor] = {}
    meant: dict[str, torch.Tensor] = {}
    for name, tensor in weights.items():
        if tensor.ndim == 2 and any(part in name for part in ("_proj.", "c_attn.", ".w1.", ".w2.")):
            layer = name.removesuffix(".weight")
            parts, meant[name] = quantize_layer(tensor.float(), bits=bits, group_size=group_size, desc_act=desc_act, sym=sym, v2=v2)
            stored |= {f"{layer}.{part}": value for part, value in parts.items() if part != "g_idx" or g_idx}
            if zero_biases and f"{layer}.bias" not in weights:
                stored[f"{layer}.bias"] = torch.zeros(tensor.shape[0], dtype=torch.float16)
        else:
            stored[name] = tensor.half()
            meant[name] = stored[name].float()
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"bits": bits, "group_size": group_size, "desc_act": desc_act, "sym": sym, "quant_method": "gptq"}
    config["dtype"] = "float16"
    config["quantization_config"]["checkpoint_format"] = "gptq_v2" if v2 else "gptq"
    (folder / "config.json").write_text(json.dumps(config))
    return meant
