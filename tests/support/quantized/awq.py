"""AutoAWQ's layout `gemm` (https://github.com/casper-hansen/AutoAWQ, awq/modules/linear/gemm.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tests.support.quantized.checkpoint import Numbers, affine, as_int32, write


def write_awq(folder: Path, *, size: int = 96, zero_point: bool = True) -> dict[str, torch.Tensor]:
    def quantize(layer: str, weight: Numbers) -> tuple[dict[str, torch.Tensor], Numbers]:
        found = affine(weight, bits=4, size=size, symmetric=not zero_point, dtype=torch.float16)
        parts = {"qweight": _words(found.integers.T), "qzeros": _words(found.zeros.T), "scales": torch.from_numpy(found.scales.T).half()}
        return parts, found.meant

    said = {"quant_method": "awq", "bits": 4, "group_size": size, "version": "gemm", "zero_point": zero_point}
    return write(folder, quantize, {**said, "modules_to_not_convert": None})


def _words(values: Numbers) -> torch.Tensor:
    """[rows, out] -> int32 [rows, out / 8]."""
    words = np.zeros((values.shape[0], values.shape[1] // 8), dtype=np.int64)
    for place, column in enumerate([0, 2, 4, 6, 1, 3, 5, 7]):
        words |= values[:, column::8] << (4 * place)
    return as_int32(words)
