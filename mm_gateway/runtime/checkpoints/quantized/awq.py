"""AWQ: integers of 4 bits with a scale and a zero point for each group of inputs (https://arxiv.org/abs/2306.00978).

The layout is AutoAWQ's `gemm`: qweight int32 [in, out / 8], qzeros int32 [groups, out / 8], scales fp16 [groups, out]. The eight outputs of
a word lie in it in the order 0, 2, 4, 6, 1, 3, 5, 7, from the lowest bits on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.checkpoints.quantized.format import WeightFormat, quantization_of
from mm_gateway.runtime.checkpoints.quantized.integers import Integers
from mm_gateway.runtime.checkpoints.quantized.layer import IntegerLayer, Parts, grouped
from mm_gateway.runtime.checkpoints.stored.stored_tensors import StoredTensors


@dataclass(frozen=True)
class _AwqLayer(IntegerLayer):
    group_size: int = 128

    def integers(self, parts: Parts) -> Integers:
        return Integers(_in_order(parts["qweight"]), parts["scales"].T, _in_order(parts["qzeros"]), self.group_size)


def _in_order(words: torch.Tensor) -> torch.Tensor:
    """int32 [rows, out / 8] -> uint8 [out, rows]."""
    words = words.T.contiguous()
    found = torch.empty(len(words), 8, words.shape[1], dtype=torch.uint8)
    for place, output in enumerate((0, 2, 4, 6, 1, 3, 5, 7)):
        found[:, output] = (words >> (4 * place)) & 15
    return found.flatten(0, 1)


class Awq(WeightFormat):
    name = "awq"
    title = "AWQ"
    published = True
    methods = ("awq",)
    packages = ("gptqmodel",)

    def layers(self, stored: StoredTensors) -> Mapping[str, IntegerLayer]:
        said = quantization_of(stored.folder)
        bits = said.get("bits", said.get("w_bit", 4))
        layout = str(said.get("version", said.get("format", "gemm"))).lower()
        if bits != 4 or layout != "gemm":
            raise ModelLoadError(f"AWQ with {bits} bits in the layout {layout} is not supported, only 4 bits in gemm")
        size = int(said.get("group_size", said.get("q_group_size", 128)))
        found: dict[str, IntegerLayer] = {}
        for layer, names in grouped(stored.headers, ("qweight", "qzeros", "scales"), title=self.title).items():
            inputs, words = stored.headers[names["qweight"]].shape
            # With zero points a weight is one of 31 integers, which 4 bits do not hold.
            kept = "int8" if said.get("zero_point", True) else "int4"
            found[f"{layer}.weight"] = _AwqLayer((8 * words, inputs), names, kept, size if size > 0 else inputs)
        return found
