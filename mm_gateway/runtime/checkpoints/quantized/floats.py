"""Weights of 8-bit and 4-bit floating point numbers with scales."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mm_gateway.runtime.checkpoints.quantized.layer import Parts, StoredLayer

# Numbers computed at once, so that what is needed on the way stays small beside the result.
_CHUNK = 2**20

E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
"""What the sixteen numbers of 4 bits stand for
(https://www.opencompute.org/documents/ocp-microscaling-formats-mx-v1-0-spec-final-pdf, 5.3.3)."""


@dataclass(frozen=True)
class ScaledLayer(StoredLayer):
    """weight [out, in] times scale, of which each number is for a block of rows and columns; blocks at the ends may be smaller.

    Attributes:
        block: rows and columns that share a scale.
    """

    block: tuple[int, int] = (1, 1)

    def numbers(self, parts: Parts, dtype: torch.dtype) -> torch.Tensor:
        weight, scales = parts["weight"], as_scales(parts["scale"]).reshape(-(-self.shape[0] // self.block[0]), -1)
        outputs, inputs = self.shape
        columns = torch.arange(inputs) // self.block[1]
        found = torch.empty(self.shape, dtype=dtype)
        step = max(1, _CHUNK // max(1, inputs))
        for first in range(0, outputs, step):
            rows = torch.arange(first, min(first + step, outputs))
            found[rows] = (weight[rows].float() * scales[rows // self.block[0]][:, columns]).to(dtype)
        return found


def as_scales(stored: torch.Tensor) -> torch.Tensor:
    """Scales as fp32. Bytes are exponents of two, less 127: the type E8M0."""
    return torch.exp2(stored.float() - 127) if stored.dtype == torch.uint8 else stored.float()


def scale_block(weight: tuple[int, ...], scale: tuple[int, ...], block: tuple[int, int] | None) -> tuple[int, int] | None:
    """Rows and columns that share a scale, by the shapes of both; None: they do not fit together.

    Args:
        block: what the checkpoint says, for grids of scales.
    """
    outputs, inputs = weight
    if all(size == 1 for size in scale):
        return outputs, inputs
    if scale[0] == outputs and all(size == 1 for size in scale[1:]):
        return 1, inputs
    if len(scale) == 2 and block is not None and scale == (-(-outputs // block[0]), -(-inputs // block[1])):
        return block
    return None
