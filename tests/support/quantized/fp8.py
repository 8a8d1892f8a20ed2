"""FP8 as DeepSeek and Qwen publish it (the class FineGrainedFP8Config of transformers), and as AutoFP8 did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tests.support.quantized.checkpoint import Numbers, write


def to_fp8(weight: Numbers, block: tuple[int, ...], scale_dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, Numbers]:
    """(weight in E4M3, scales [rows of blocks, columns of blocks], what they stand for); blocks at the ends may be smaller."""
    rows, columns = (-(-size // part) for size, part in zip(weight.shape, block, strict=True))
    scales = np.zeros((rows, columns), dtype=np.float32)
    for row in range(rows):
        for column in range(columns):
            part = weight[row * block[0] : (row + 1) * block[0], column * block[1] : (column + 1) * block[1]]
            scales[row, column] = np.abs(part).max() / 448
    stored_scales = torch.from_numpy(scales).to(scale_dtype)
    spread = np.kron(stored_scales.float().numpy(), np.ones(block))[: weight.shape[0], : weight.shape[1]].astype(np.float32)
    stored = torch.from_numpy(weight / spread).to(torch.float8_e4m3fn)
    return stored, stored_scales, _e4m3(stored.view(torch.uint8).numpy()) * spread


def _e4m3(stored: Numbers) -> Numbers:
    """What bytes of a sign, four bits of exponent and three of fraction stand for
    (https://arxiv.org/abs/2209.05433, table 1)."""
    exponent, fraction = (stored >> 3) & 15, stored & 7
    magnitude = np.where(exponent == 0, fraction * 2.0**-9, (8.0 + fraction) * 2.0 ** (exponent.astype(np.float64) - 10))
    return np.where(stored & 128, -magnitude, magnitude).astype(np.float32)


def write_fp8(folder: Path, *, block: tuple[int, int] | None = (128, 128)) -> dict[str, torch.Tensor]:
    """block: None: a scale for each tensor, and one for its activations."""

    def quantize(layer: str, weight: Numbers) -> tuple[dict[str, torch.Tensor], Numbers]:
        stored, scales, meant = to_fp8(weight, block or weight.shape, torch.float32)
        if block is not None:
            return {"weight": stored, "weight_scale_inv": scales}, meant
        return {"weight": stored, "weight_scale": scales.reshape(()), "input_scale": torch.tensor(0.02)}, meant

    said = {"quant_method": "fp8", "activation_scheme": "static" if block is None else "dynamic"}
    return write(folder, quantize, said if block is None else {**said, "fmt": "e4m3", "weight_block_size": list(block)})
