"""compressed-tensors, which llm-compressor writes: groups of layers, each with types of its own.

Integers of 1 to 8 bits are packed (weight_packed int32 [out, in * bits / 32], weight_shape, and where they are not symmetric
weight_zero_point int32 [out * bits / 32, groups]) or stored as int8 (weight); numbers of FP8 are stored as such. All are scaled by
weight_scale [out, groups], for each tensor, output, group of inputs or block (https://github.com/vllm-project/compressed-tensors).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.checkpoints.packed_linear import BlockWeights
from mm_gateway.runtime.checkpoints.quantized.format import WeightFormat, quantization_of
from mm_gateway.runtime.checkpoints.quantized.fp8 import scaled_layer
from mm_gateway.runtime.checkpoints.quantized.integers import Integers, reordering, unpack_words
from mm_gateway.runtime.checkpoints.quantized.layer import IntegerLayer, Parts, StoredLayer
from mm_gateway.runtime.checkpoints.quantized.unread import refuse
from mm_gateway.runtime.checkpoints.stored.stored_tensors import StoredTensors
from mm_gateway.runtime.kernels.blocks import BLOCK

_FORMATS = ("pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "mixed-precision")
_PARTS = ("weight_packed", "weight", "weight_scale", "weight_zero_point", "weight_g_idx", "weight_shape")


@dataclass(frozen=True)
class _CompressedIntegers(IntegerLayer):
    bits: int = 4
    group_size: int = 128

    def integers(self, parts: Parts) -> Integers:
        outputs, inputs = self.shape
        scales = parts["weight_scale"].reshape(-1, parts["weight_scale"].shape[-1] if parts["weight_scale"].ndim > 1 else 1)
        zeros, order = parts.get("weight_zero_point"), reordering(parts.get("weight_g_idx"), self.group_size)
        if "weight" in parts:
            return Integers(
                parts["weight"], _of_rows(scales, outputs), _of_rows(zeros, outputs), self.group_size, parts.get("weight_g_idx")
            )
        middle = 2 ** (self.bits - 1)  # packed integers count from the smallest
        if zeros is None:
            zeros = torch.full((outputs, 1), middle, dtype=torch.uint8).expand(outputs, scales.shape[1])
        elif zeros.dtype == torch.int32:
            zeros = unpack_words(zeros.T, self.bits)[:, :outputs].T
        else:
            zeros = _of_rows(zeros, outputs).to(torch.int16) + middle
        quants = unpack_words(parts["weight_packed"], self.bits)[:, :inputs]
        return Integers(quants, _of_rows(scales, outputs), zeros, self.group_size, order)


def _of_rows(of_groups: Any, outputs: int) -> Any:
    """Scales or zero points of a whole tensor as those of each row."""
    return of_groups if of_groups is None else of_groups.reshape(-1, of_groups.shape[-1] if of_groups.ndim > 1 else 1).expand(outputs, -1)


class CompressedTensors(WeightFormat):
    name = "compressed-tensors"
    title = "compressed-tensors"
    published = True
    methods = ("compressed-tensors",)
    packages = ("compressed_tensors",)

    def is_read_by_transformers(self, folder: Path) -> bool:
        # Packed zero points it takes for ones of another shape (5.23), and its library leaves the order of inputs out (0.20).
        stored = StoredTensors(folder).headers
        beside = (name.rpartition(".") for name in stored if name.endswith((".weight_zero_point", ".weight_g_idx")))
        return not any(f"{layer}.weight_packed" in stored for layer, _, _ in beside)

    def layers(self, stored: StoredTensors) -> Mapping[str, StoredLayer]:
        said = quantization_of(stored.folder)
        _check(said)
        found: dict[str, StoredLayer] = {}
        for name, header in stored.headers.items():
            if not name.endswith(".weight_scale"):
                continue
            layer = name.removesuffix(".weight_scale")
            parts = {part: f"{layer}.{part}" for part in _PARTS if f"{layer}.{part}" in stored.headers}
            weights = _weights_of(layer, said)
            if "weight_packed" not in parts and "weight" not in parts:
                raise ModelLoadError(f"The layer {layer} has a scale and no weight: files are missing. Download the checkpoint again")
            if weights.get("type") == "float":
                weight = stored.headers[parts["weight"]] if "weight" in parts else None
                if weight is None or not weight.dtype.startswith("F8_"):
                    refuse(f"{layer} is stored as {weights.get('num_bits')}-bit floating point numbers of compressed-tensors")
                block = weights.get("block_structure")
                if weights.get("strategy") == "group":
                    block = (1, weights["group_size"])
                fitting = None if block is None else (int(block[0]), int(block[1]))
                found[weight.name] = scaled_layer(weight.name, weight.shape, name, header.shape, fitting)
            else:
                found[f"{layer}.weight"] = _integers(layer, parts, weights, stored)
        return found


def _integers(layer: str, parts: Mapping[str, str], weights: Mapping[str, Any], stored: StoredTensors) -> StoredLayer:
    bits = int(weights.get("num_bits", 8))
    if weights.get("strategy") not in ("tensor", "channel", "group"):
        refuse(f"{layer} is stored with scales for each {weights.get('strategy')} of compressed-tensors' integers")
    if "weight_packed" in parts:
        if "weight_shape" not in parts:
            raise ModelLoadError(f"The layer {layer} lacks weight_shape: files are missing. Download the checkpoint again")
        outputs, inputs = (int(size) for size in stored.read(parts["weight_shape"]))
    else:
        outputs, inputs = stored.headers[parts["weight"]].shape
    size = int(weights["group_size"]) if weights.get("strategy") == "group" else inputs
    return _CompressedIntegers((outputs, inputs), parts, _kept(bits, size, inputs, parts), bits, size)


def _kept(bits: int, group_size: int, inputs: int, parts: Mapping[str, str]) -> BlockWeights | None:
    if "weight_g_idx" in parts or (group_size % BLOCK and group_size < inputs):
        return None
    if "weight_zero_point" not in parts:
        return "int4" if bits <= 4 else "int8"
    # A difference of two integers takes one bit more than each.
    return "int4" if bits < 4 else "int8" if bits < 8 else None


def _check(said: Mapping[str, Any]) -> None:
    """Raises ModelLoadError for what would have an effect on the weights and is not read."""
    formats = {str(each["format"]) for each in (said, *_groups(said).values()) if each.get("format") is not None}
    sparsity = (said.get("sparsity_config") or {}).get("format", "dense")
    if unknown := formats - set(_FORMATS):
        refuse(f"The checkpoint is stored in the format {', '.join(sorted(unknown))} of compressed-tensors")
    if sparsity != "dense":
        refuse(f"The checkpoint is stored in the sparse format {sparsity} of compressed-tensors")
    if (said.get("transform_config") or {}).get("config_groups"):
        refuse("The checkpoint's activations are rotated by compressed-tensors' transforms")


def _groups(said: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    return {name: group for name, group in (said.get("config_groups") or {}).items() if isinstance(group, Mapping)}


def _weights_of(layer: str, said: Mapping[str, Any]) -> Mapping[str, Any]:
    """How the weights of a layer are quantized: a group that names it, by a pattern, or by the class of its module, in this order."""
    groups = [group for group in _groups(said).values() if group.get("weights")]
    for matches in (_is_named, _is_like, _is_of_class):
        for group in groups:
            if any(matches(layer, target) for target in group.get("targets", ())):
                return group["weights"]
    raise ModelLoadError(f"No group of config.json says how {layer} is quantized")


def _is_named(layer: str, target: str) -> bool:
    return layer == target


def _is_like(layer: str, target: str) -> bool:
    return target.startswith("re:") and re.match(target[3:], layer) is not None


def _is_of_class(layer: str, target: str) -> bool:
    # Layers that are not of it have no scale.
    return not target.startswith("re:") and "." not in target
