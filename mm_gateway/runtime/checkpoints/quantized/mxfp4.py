"""MXFP4: numbers of 4 bits (E2M1), 32 of which share a power of two (E8M0), as the experts of gpt-oss are published.

A weight [experts, in, out] is stored turned: NAME_blocks uint8 [experts, out, in / 32, 16], two numbers a byte, the lower half first, and
NAME_scales uint8 [experts, out, in / 32]
(https://www.opencompute.org/documents/ocp-microscaling-formats-mx-v1-0-spec-final-pdf; https://github.com/openai/gpt-oss).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.checkpoints.quantized.floats import E2M1, as_scales
from mm_gateway.runtime.checkpoints.quantized.format import WeightFormat
from mm_gateway.runtime.checkpoints.quantized.layer import Parts, StoredLayer
from mm_gateway.runtime.checkpoints.stored.stored_tensors import StoredTensors


@dataclass(frozen=True)
class _Mxfp4Experts(StoredLayer):
    def numbers(self, parts: Parts, dtype: torch.dtype) -> torch.Tensor:
        found = torch.empty(self.shape, dtype=dtype)
        for expert, (blocks, scales) in enumerate(zip(parts["blocks"], parts["scales"], strict=True)):
            found[expert] = unpack_e2m1(blocks.flatten(1), scales).T
        return found


def unpack_e2m1(packed: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """uint8 [rows, columns / 2] of two numbers each and scales [rows, groups] -> fp32 [rows, columns]."""
    table = torch.tensor(E2M1, dtype=torch.float32)
    values = torch.stack([table[(packed & 15).int()], table[(packed >> 4).int()]], dim=-1).flatten(1)
    return (values.unflatten(1, (scales.shape[1], -1)) * as_scales(scales)[..., None]).flatten(1)


class Mxfp4(WeightFormat):
    name = "mxfp4"
    title = "MXFP4"
    published = True
    methods = ("mxfp4",)
    packages = ("kernels", "triton")
    hub_kernels = True

    def layers(self, stored: StoredTensors) -> Mapping[str, StoredLayer]:
        found: dict[str, StoredLayer] = {}
        for name, header in stored.headers.items():
            weight = name.removesuffix("_blocks")
            if weight == name:
                continue
            scales = stored.headers.get(f"{weight}_scales")
            if scales is None or len(header.shape) != 4 or header.shape[:-1] != scales.shape:
                raise ModelLoadError(f"The MXFP4 weight {weight} has no fitting scales: files are missing. Download the checkpoint again")
            experts, outputs, groups, half = header.shape
            found[weight] = _Mxfp4Experts((experts, groups * half * 2, outputs), {"blocks": name, "scales": scales.name})
        return found
