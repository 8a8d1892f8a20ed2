"""GPTQ: integers of 2, 3, 4 or 8 bits with a scale and a zero point for each group of inputs.

A layer of `in` inputs and `out` outputs is stored as qweight int32 [in * bits / 32, out], qzeros int32 [groups, out * bits / 32],
scales [groups, out] and g_idx [in], the group of each input (https://arxiv.org/abs/2210.17323; the layout is AutoGPTQ's).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.checkpoints.packed_linear import BlockWeights
from mm_gateway.runtime.checkpoints.quantized.format import WeightFormat, quantization_of, read_json
from mm_gateway.runtime.checkpoints.quantized.integers import Integers, reordering, unpack_words
from mm_gateway.runtime.checkpoints.quantized.layer import IntegerLayer, Parts, grouped
from mm_gateway.runtime.checkpoints.stored.stored_tensors import StoredTensors
from mm_gateway.runtime.kernels.blocks import BLOCK

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GptqFormat:
    """bits: 2, 3, 4 or 8. group_size: inputs that share a scale, -1: all. v2: zero points are stored as they are, not less one.
    symmetric: zero points are all in the middle. reordered: inputs need not be in the order of their groups."""

    bits: int
    group_size: int
    v2: bool
    symmetric: bool
    reordered: bool


def read_format(folder: Path) -> GptqFormat | None:
    """How a checkpoint is quantized; None where it is not, or not by GPTQ.

    Raises:
        ModelLoadError: a number of bits that is not implemented.
    """
    found: dict[str, Any] = quantization_of(folder) or read_json(folder / "quantize_config.json")
    if not found or found.get("quant_method", "gptq") != "gptq" or "bits" not in found:
        return None
    bits = int(found["bits"])
    if bits not in (2, 3, 4, 8):
        raise ModelLoadError(f"GPTQ with {bits} bits is not supported, only 2, 3, 4 and 8")
    return GptqFormat(
        bits,
        group_size=int(found.get("group_size", 128)),
        v2=found.get("checkpoint_format") == "gptq_v2",
        symmetric=bool(found.get("sym", False)),
        reordered=bool(found.get("desc_act", False)),
    )


@dataclass(frozen=True)
class _GptqLayer(IntegerLayer):
    form: GptqFormat = GptqFormat(4, 128, v2=False, symmetric=True, reordered=False)

    def integers(self, parts: Parts) -> Integers:
        outputs, inputs = self.shape
        quants = unpack_words(parts["qweight"].T, self.form.bits)[:, :inputs]
        zeros = unpack_words(parts["qzeros"], self.form.bits)[:, :outputs].T
        if not self.form.v2:
            zeros = (zeros + 1) & (2**self.form.bits - 1)  # stored less one, modulo 2^bits
        size = self.form.group_size if self.form.group_size > 0 else inputs
        return Integers(quants, parts["scales"].T, zeros, size, reordering(parts.get("g_idx"), size))


class Gptq(WeightFormat):
    name = "gptq"
    title = "GPTQ"
    published = True
    methods = ("gptq",)
    packages = ("gptqmodel", "optimum")

    def recognises(self, folder: Path) -> bool:
        return read_format(folder) is not None

    def stays_packed(self, device_type: str) -> bool:
        usable = super().stays_packed(device_type)
        if not usable and device_type == "cuda" and find_spec("auto_gptq") is not None:
            logger.warning("auto-gptq cannot be used beside transformers 5; its successor is gptqmodel: pip install 'mm-gateway[gptq]'")
        return usable

    def layers(self, stored: StoredTensors) -> Mapping[str, IntegerLayer]:
        form = read_format(stored.folder)
        assert form is not None
        found: dict[str, IntegerLayer] = {}
        for layer, names in grouped(stored.headers, ("qweight", "qzeros", "scales"), ("g_idx",), title=self.title).items():
            words, outputs = stored.headers[names["qweight"]].shape
            found[f"{layer}.weight"] = _GptqLayer((outputs, words * 32 // form.bits), names, _kept(form), form)
        return found


def _kept(form: GptqFormat) -> BlockWeights | None:
    if form.group_size > 0 and (form.reordered or form.group_size % BLOCK):
        return None
    if form.bits == 8:
        return "int8" if form.symmetric else None
    return "int4" if form.symmetric or form.bits < 4 else "int8"
