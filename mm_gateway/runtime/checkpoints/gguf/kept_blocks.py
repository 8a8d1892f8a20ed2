"""Kinds of blocks that our kernels compute with as they are: what is stored is laid out anew, and no number changes.

The layouts are those of llama.cpp's ggml-common.h (https://github.com/ggml-org/llama.cpp).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from gguf.constants import GGMLQuantizationType as Kind

from mm_gateway.runtime.kernels.blocks import BLOCK, Blocks


@dataclass(frozen=True)
class _Parts:
    """What `Blocks` holds, block by block: quants [blocks, 32 or 256], scales [blocks], fine scales [blocks, 8 or 16]."""

    quants: np.ndarray
    scales: np.ndarray
    minimums: np.ndarray | None = None
    fine_scales: np.ndarray | None = None
    fine_minimums: np.ndarray | None = None


@dataclass(frozen=True)
class KeptKind:
    """bits: of a quant as our kernels hold it. fine: whether scales are. unpack: from bytes [blocks, bytes of a block]."""

    bits: int
    fine: bool
    unpack: Callable[[np.ndarray], _Parts]

    def blocks(self, stored: np.ndarray, rows: int, inputs: int) -> Blocks:
        """Of a weight [rows, inputs]. stored: bytes [blocks, bytes of a block]."""
        parts = self.unpack(stored)

        def of_rows(part: np.ndarray | None) -> torch.Tensor | None:
            return None if part is None else torch.from_numpy(np.ascontiguousarray(part)).reshape(rows, -1)

        quants, scales = of_rows(parts.quants), of_rows(parts.scales)
        assert quants is not None
        assert scales is not None
        fine = (of_rows(parts.fine_scales), of_rows(parts.fine_minimums))
        return Blocks(quants.reshape(rows, -1, BLOCK), scales, of_rows(parts.minimums), inputs, self.bits, *fine)


def _half(stored: np.ndarray, at: int) -> np.ndarray:
    """The two bytes at `at` of each block as a number of 16 bits."""
    return np.ascontiguousarray(stored[:, at : at + 2]).view(np.float16)[:, 0]


def _nibbles(stored: np.ndarray) -> np.ndarray:
    """Bytes [..., n] as 2n numbers: their lower halves, then their upper ones."""
    return np.concatenate([stored & 15, stored >> 4], axis=-1)


def _fields(stored: np.ndarray, bits: int) -> np.ndarray:
    """Bytes [..., n] as fields of so many bits, the lowest of all bytes first: [..., 8 / bits, n]."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return (stored[..., None, :] >> shifts[:, None]) & (2**bits - 1)


def _flat(parts: np.ndarray) -> np.ndarray:
    return parts.reshape(len(parts), -1)


def _q8_0(stored: np.ndarray) -> _Parts:
    return _Parts(np.ascontiguousarray(stored[:, 2:]).view(np.int8), _half(stored, 0))


def _q4_0(stored: np.ndarray) -> _Parts:
    scales = _half(stored, 0)
    return _Parts(_nibbles(stored[:, 2:]), scales, scales * np.float16(-8))  # a power of two, so nothing is rounded


def _q4_1(stored: np.ndarray) -> _Parts:
    return _Parts(_nibbles(stored[:, 4:]), _half(stored, 0), _half(stored, 2))


def _fifth_bits(stored: np.ndarray) -> np.ndarray:
    """4 bytes as the highest bit of each of 32 quants."""
    return np.unpackbits(stored, axis=-1, bitorder="little") << 4


def _q5_0(stored: np.ndarray) -> _Parts:
    scales = _half(stored, 0)
    return _Parts(_nibbles(stored[:, 6:]) | _fifth_bits(stored[:, 2:6]), scales, scales * np.float16(-16))


def _q5_1(stored: np.ndarray) -> _Parts:
    return _Parts(_nibbles(stored[:, 8:]) | _fifth_bits(stored[:, 4:8]), _half(stored, 0), _half(stored, 2))


# The values that the 16 quants of IQ4_NL stand for, times the scale.
_IQ4 = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], dtype=np.int8)


def _iq4_nl(stored: np.ndarray) -> _Parts:
    return _Parts(_IQ4[_nibbles(stored[:, 2:])], _half(stored, 0))


def _fine_of_six_bits(stored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """12 bytes as 8 scales and 8 minimums of 6 bits: those of the first four blocks whole, of the others the highest bits apart."""
    first, second, rest = stored[:, 0:4], stored[:, 4:8], stored[:, 8:12]
    scales = np.concatenate([first & 63, (rest & 15) | (first >> 6 << 4)], axis=1)
    return scales, np.concatenate([second & 63, (rest >> 4) | (second >> 6 << 4)], axis=1)


def _q4_k(stored: np.ndarray) -> _Parts:
    quants = _flat(_fields(stored[:, 16:].reshape(-1, 4, 32), 4))
    return _Parts(quants, _half(stored, 0), -_half(stored, 2), *_fine_of_six_bits(stored[:, 4:16]))


def _q5_k(stored: np.ndarray) -> _Parts:
    lower, highest = _fields(stored[:, 48:].reshape(-1, 4, 32), 4), _fields(stored[:, 16:48], 1)
    quants = _flat(lower) | _flat(highest << 4)
    return _Parts(quants, _half(stored, 0), -_half(stored, 2), *_fine_of_six_bits(stored[:, 4:16]))


def _q6_k(stored: np.ndarray) -> _Parts:
    lower, higher = _fields(stored[:, :128].reshape(-1, 2, 64), 4), _fields(stored[:, 128:192].reshape(-1, 2, 32), 2)
    quants = _flat(lower) | _flat(higher << 4)
    return _Parts(quants, _half(stored, 208), fine_scales=np.ascontiguousarray(stored[:, 192:208]).view(np.int8))


def _q3_k(stored: np.ndarray) -> _Parts:
    """-4 to 3, which 6 bits hold as well: its blocks of 16 with a scale each are those of Q6_K."""
    lower, highest = _fields(stored[:, 32:96].reshape(-1, 2, 32), 2), _fields(stored[:, :32], 1)
    quants = (_flat(lower) | _flat(highest << 2)) + np.uint8(32 - 4)
    scales = _flat(_fields(stored[:, 96:104], 4)) | _flat(_fields(stored[:, 104:108], 2) << 4)
    return _Parts(quants, _half(stored, 108), fine_scales=scales.astype(np.int8) - np.int8(32))


KEPT: Mapping[Kind, KeptKind] = {
    Kind.Q8_0: KeptKind(8, fine=False, unpack=_q8_0),
    Kind.Q5_0: KeptKind(5, fine=False, unpack=_q5_0),
    Kind.Q5_1: KeptKind(5, fine=False, unpack=_q5_1),
    Kind.Q4_0: KeptKind(4, fine=False, unpack=_q4_0),
    Kind.Q4_1: KeptKind(4, fine=False, unpack=_q4_1),
    Kind.IQ4_NL: KeptKind(8, fine=False, unpack=_iq4_nl),
    Kind.Q6_K: KeptKind(6, fine=True, unpack=_q6_k),
    Kind.Q5_K: KeptKind(5, fine=True, unpack=_q5_k),
    Kind.Q4_K: KeptKind(4, fine=True, unpack=_q4_k),
    Kind.Q3_K: KeptKind(6, fine=True, unpack=_q3_k),
}
