"""Random numbers for sampling: one per (seed, position, token), the same whatever else is computed; knows no logits.

Adding them to logits and taking the largest draws from the softmax of the logits (the Gumbel-max trick, Gumbel 1954;
https://arxiv.org/abs/1411.0030). Unlike one uniform number through the cumulated distribution, it is robust: a rounding
error of the logits changes a draw only where it changes who comes first, not wherever it shifts a sum.
"""

from __future__ import annotations

import numpy as np
import torch

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def noise_keys(draws: list[tuple[int, int]]) -> torch.Tensor:
    """Two int32 words per (seed, position), [draws, 2], by two rounds of SplitMix64 (Steele et al., OOPSLA 2014)."""
    pairs = np.array([(seed & 0xFFFFFFFFFFFFFFFF, position) for seed, position in draws], dtype=np.uint64).reshape(-1, 2)
    bits = _split_mix(_split_mix(pairs[:, 0] + _GOLDEN) + pairs[:, 1] * _GOLDEN)
    return torch.from_numpy(bits.view(np.int32).reshape(-1, 2))


def gumbel_noise(keys: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Standard Gumbel noise.

    Args:
        keys: [rows, 2] int32 from `noise_keys`. tokens: [n] or [rows, n], ids below 2^31.

    Returns:
        [rows, n] fp32. A token's number depends on its row's key and its id alone.
    """
    bits = (tokens.to(torch.int32) * -1640531527) ^ keys[:, :1]
    _mix(bits, 16, 0x7FEB352D, 15, -2073319541)  # Wellons' lowbias32; the constants as signed numbers
    bits += keys[:, 1:]
    _mix(bits, 15, 0x2C1B3C6D, 12, 0x297A2D39)  # and two rounds of his triple32
    # (0, 1), finest near 0, where the largest noise comes from.
    uniform = bits.bitwise_and_(0x7FFFFFFF).float().add_(0.5).mul_(2.0**-31)
    return uniform.neg_().log1p_().neg_().log_().neg_()


def _mix(bits: torch.Tensor, first: int, factor: int, second: int, other: int) -> None:
    """In place: alternating shifts, which have to be logical, and products modulo 2^32."""
    for shift, by in ((first, factor), (second, other)):
        bits ^= (bits >> shift) & ((1 << (32 - shift)) - 1)
        bits *= by
    bits ^= (bits >> 15) & 0x1FFFF


def _split_mix(state: np.ndarray) -> np.ndarray:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
