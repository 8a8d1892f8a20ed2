"""torchao: tensors of its own classes, taken apart for safetensors.

A weight LAYER.weight is stored as LAYER._weight_qdata, LAYER._weight_scale and, of some classes, LAYER._weight_zero_point; the metadata of
the file has, by the weight's name, its class and properties as JSON (https://github.com/pytorch/ao, torchao/prototype/safetensors).
Read are Int8Tensor and IntxUnpackedToInt8Tensor (qdata int8 [out, in], scale and zero point for each block [1, group] or row),
Float8Tensor (qdata of 8-bit floating point numbers), and Int4Tensor (two signed numbers a byte, the lower half first; scale and
zero point [groups, out], of which the latter is added).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.checkpoints.packed_linear import BlockWeights
from mm_gateway.runtime.checkpoints.quantized.floats import ScaledLayer
from mm_gateway.runtime.checkpoints.quantized.format import WeightFormat
from mm_gateway.runtime.checkpoints.quantized.integers import Integers
from mm_gateway.runtime.checkpoints.quantized.layer import IntegerLayer, Parts, StoredLayer
from mm_gateway.runtime.checkpoints.quantized.unread import refuse
from mm_gateway.runtime.checkpoints.stored.stored_tensors import StoredTensors
from mm_gateway.runtime.kernels.blocks import BLOCK


@dataclass(frozen=True)
class _Int8(IntegerLayer):
    group_size: int = 1
    rows: int = 1

    def integers(self, parts: Parts) -> Integers:
        return Integers(parts["qdata"], self._of_rows(parts["scale"]), self._of_rows(parts.get("zero_point")), self.group_size)

    def _of_rows(self, of_blocks: Any) -> Any:
        if of_blocks is None:
            return None
        return of_blocks.reshape(-(-self.shape[0] // self.rows), -1).repeat_interleave(self.rows, 0)[: self.shape[0]]


@dataclass(frozen=True)
class _Int4(StoredLayer):
    group_size: int = 128

    def numbers(self, parts: Parts, dtype: torch.dtype) -> torch.Tensor:
        packed = parts["qdata"].view(torch.uint8)
        quants = torch.stack([packed & 15, packed >> 4], dim=-1).flatten(1)[:, : self.shape[1]]
        signed = ((quants ^ 8).to(torch.int8) - 8).to(torch.int8)
        groups = torch.arange(self.shape[1]) // self.group_size
        found = torch.empty(self.shape, dtype=dtype)
        for row in range(0, self.shape[0], 64):
            rows = slice(row, row + 64)
            scales, added = (parts[part].T[rows].float()[:, groups] for part in ("scale", "zero_point"))
            found[rows] = signed[rows].float() * scales + added
        return found


class TorchAo(WeightFormat):
    name = "torchao"
    title = "torchao"
    published = True
    methods = ("torchao",)
    packages = ("torchao",)

    def layers(self, stored: StoredTensors) -> Mapping[str, StoredLayer]:
        if not stored.headers:
            refuse("The checkpoint is stored by torchao in PyTorch's own format, which holds Python objects,")
        found: dict[str, StoredLayer] = {}
        for name, text in stored.metadata.items():
            said = json.loads(text) if text.startswith("{") else {}
            kind = said.get("_type", "Tensor") if isinstance(said, dict) else "Tensor"
            if kind == "Tensor":
                continue
            layer, _, weight = name.rpartition(".")
            parts = {part: f"{layer}._{weight}_{part}" for part in said["_tensor_data_names"]}
            if missing := [part for part in parts.values() if part not in stored.headers]:
                raise ModelLoadError(
                    f"The torchao weight {name} lacks {', '.join(missing)}: files are missing. Download the checkpoint again"
                )
            if kind not in _KINDS or "act_pre_scale" in parts:
                refuse(f"{name} is stored as torchao's {kind}{' with scales for activations' if kind in _KINDS else ''}")
            found[name] = _KINDS[kind](parts, said["_data"], stored)
        return found


def _int8(parts: Mapping[str, str], properties: Mapping[str, Any], stored: StoredTensors) -> StoredLayer:
    outputs, inputs = stored.headers[parts["qdata"]].shape
    rows, size = properties["block_size"]
    kept: BlockWeights | None = None if size % BLOCK and size < inputs else "int8"
    if str((properties.get("target_dtype") or {}).get("_data", "int8")) in ("int1", "int2", "int3", "int4"):
        kept = kept and "int4"
    used = {part: name for part, name in parts.items() if part in ("qdata", "scale", "zero_point")}
    if "zero_point" in used and stored.headers[used["zero_point"]].dtype.startswith(("F", "BF")):
        kept = None
    return _Int8((outputs, inputs), used, kept, int(size), int(rows))


def _float8(parts: Mapping[str, str], properties: Mapping[str, Any], stored: StoredTensors) -> StoredLayer:
    shape, scale = stored.headers[parts["qdata"]].shape, stored.headers[parts["scale"]].shape
    block = properties.get("block_size") or [-(-size // count) for size, count in zip(shape, scale or (1, 1), strict=True)]
    return ScaledLayer(shape, {"weight": parts["qdata"], "scale": parts["scale"]}, None, (int(block[0]), int(block[1])))


def _int4(parts: Mapping[str, str], properties: Mapping[str, Any], stored: StoredTensors) -> StoredLayer:
    outputs, inputs = properties["shape"]
    return _Int4((outputs, inputs), parts, None, int(properties["block_size"][-1]))


_KINDS = {"Int8Tensor": _int8, "IntxUnpackedToInt8Tensor": _int8, "Float8Tensor": _float8, "Int4Tensor": _int4}
