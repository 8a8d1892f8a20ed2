"""Checkpoints that transformers and bitsandbytes themselves quantize and save; what they stand for is computed in numpy from the files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D

from tests.support.quantized.checkpoint import Numbers

# https://arxiv.org/abs/2305.14314, appendix E.
_NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
# One bit of sign, two of exponent, one of fraction (bitsandbytes, functional.py: get_4bit_type).
_FP4_HALF = (0.0, 0.0625 / 12, 8 / 12, 1.0, 4 / 12, 6 / 12, 2 / 12, 3 / 12)
_FP4 = (*_FP4_HALF, *(-value for value in _FP4_HALF))


def write_bitsandbytes(folder: Path, **options: Any) -> dict[str, torch.Tensor]:
    """options: of BitsAndBytesConfig."""
    config = BitsAndBytesConfig(**options)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, quantization_config=config, dtype=torch.bfloat16, device_map={"": "cpu"})
    # GPT-2's layers are saved as [out, in], and taken as [in, out].
    turned = {f"{name}.weight" for name, module in model.named_modules() if getattr(module, "source_cls", None) is Conv1D}
    model.save_pretrained(folder)
    stored = load_file(folder / "model.safetensors")
    meant: dict[str, torch.Tensor] = {}
    for name, tensor in stored.items():
        if name.endswith(".weight") and tensor.dtype == torch.int8:
            scale = stored[f"{name.removesuffix('.weight')}.SCB"].numpy()
            numbers = tensor.numpy().astype(np.float32) * (scale[:, None] / np.float32(127))
        elif (state := _state(name, stored)) is not None:
            numbers = _four_bits(name, stored, state)
        elif name.endswith(".SCB") or ".weight." in name or name.endswith("weight_format"):
            continue
        else:
            meant[name] = tensor.float()
            continue
        meant[name] = torch.from_numpy(numbers.T.copy() if name in turned else numbers)
    return meant


def _state(name: str, stored: dict[str, torch.Tensor]) -> dict[str, Any] | None:
    for kind in ("nf4", "fp4"):
        if (found := stored.get(f"{name}.quant_state.bitsandbytes__{kind}")) is not None:
            return json.loads(found.numpy().tobytes())
    return None


def _four_bits(name: str, stored: dict[str, torch.Tensor], state: dict[str, Any]) -> Numbers:
    packed = stored[name].numpy().reshape(-1)
    codes = np.empty(2 * len(packed), dtype=np.int64)
    codes[0::2], codes[1::2] = packed >> 4, packed & 15
    largest = stored[f"{name}.absmax"].numpy()
    if "nested_blocksize" in state:
        table = stored[f"{name}.nested_quant_map"].numpy()
        scales = np.repeat(stored[f"{name}.nested_absmax"].numpy(), state["nested_blocksize"])[: len(largest)]
        largest = table[largest] * scales + np.float32(state["nested_offset"])
    values = np.asarray(_NF4 if state["quant_type"] == "nf4" else _FP4, dtype=np.float32)[codes]
    return (values * np.repeat(largest, state["blocksize"])[: len(values)]).reshape(state["shape"]).astype(np.float32)
