"""Kinds of blocks that our kernels compute with as they are: scales and minimums of 32 numbers at a time, 4 or 8 bits each.

The layouts are those of llama.cpp's ggml-common.h (https://github.com/ggml-org/llama.cpp).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from gguf.constants import GGMLQuantizationType

Parts = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]
"""quants [blocks, 32], scales [blocks] fp16, minimums [blocks] fp16 or None."""


def _halves(stored: np.ndarray) -> torch.Tensor:
    """The two bytes at the start of each block as a number of 16 bits."""
    return torch.from_numpy(stored[:, :2].copy().view(np.float16)[:, 0].copy())


def _nibbles(stored: np.ndarray) -> torch.Tensor:
    """16 bytes as 32 numbers: their lower halves, then their upper ones."""
    return torch.from_numpy(np.concatenate([stored & 15, stored >> 4], axis=-1))


def _q8_0(stored: np.ndarray) -> Parts:
    return torch.from_numpy(stored[:, 2:].copy().view(np.int8)), _halves(stored), None


def _q4_0(stored: np.ndarray) -> Parts:
    scales = _halves(stored)
    return _nibbles(stored[:, 2:]), scales, scales * -8  # a power of two, so nothing is rounded


def _q4_1(stored: np.ndarray) -> Parts:
    return _nibbles(stored[:, 4:]), _halves(stored), _halves(stored[:, 2:])


KEPT: Mapping[GGMLQuantizationType, Callable[[np.ndarray], Parts]] = {
    GGMLQuantizationType.Q8_0: _q8_0,
    GGMLQuantizationType.Q4_0: _q4_0,
    GGMLQuantizationType.Q4_1: _q4_1,
}

KEPT_BITS: Mapping[GGMLQuantizationType, int] = {kind: 8 if kind == GGMLQuantizationType.Q8_0 else 4 for kind in KEPT}
