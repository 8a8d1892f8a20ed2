"""bitsandbytes: checkpoints that were saved quantized, and the package, which transformers quantizes with while it loads.

4 bits (https://arxiv.org/abs/2305.14314): `weight` is bytes of two numbers each, the upper half first, of the weight's rows one after the
other; 64 or more of them share a largest magnitude (absmax), and the sixteen numbers stand for those of a table (quant_map), which is NF4
or FP4. With double quantization absmax is bytes itself: nested_quant_map[byte] * nested_absmax[byte's block] + nested_offset. What is no
tensor is JSON in the bytes of quant_state.
8 bits (https://arxiv.org/abs/2208.07339): `weight` int8 [out, in], and SCB fp32 [out], the largest magnitude of each row.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from mm_gateway.configuration.model_config import ModelConfig, Quantization
from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.checkpoints.quantized.format import WeightFormat, quantization_of
from mm_gateway.runtime.checkpoints.quantized.integers import Integers
from mm_gateway.runtime.checkpoints.quantized.layer import IntegerLayer, Parts, StoredLayer
from mm_gateway.runtime.checkpoints.quantized.unread import refuse
from mm_gateway.runtime.checkpoints.stored.stored_tensors import StoredTensors

_STATES = ("quant_state.bitsandbytes__nf4", "quant_state.bitsandbytes__fp4")
_CHUNK_BLOCKS = 2**14


def require_bitsandbytes(config: ModelConfig) -> None:
    """Raises ModelLoadError where the package is not installed."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelLoadError(
            f"{config.model_name}: quantization: {config.quantization} needs the package bitsandbytes: pip install 'mm-gateway[bnb]'"
        )
    # It logs a warning per layer and forward pass where a CPU has no fused kernel.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


@dataclass(frozen=True)
class _FourBits(StoredLayer):
    block_size: int = 64
    nested_block_size: int = 256
    nested_offset: float = 0.0

    def numbers(self, parts: Parts, dtype: torch.dtype) -> torch.Tensor:
        packed = parts["weight"].view(torch.uint8).flatten()  # whatever type they were stored as
        table, largest = parts["quant_map"].float(), self._largest(parts)
        count = math.prod(self.shape)
        found = torch.empty(count, dtype=dtype)
        step = _CHUNK_BLOCKS * self.block_size
        for first in range(0, count, step):
            last = min(first + step, count)
            pairs = packed[first // 2 : -(-last // 2)]
            values = table[torch.stack([pairs >> 4, pairs & 15], dim=-1).flatten().int()][: last - first]
            found[first:last] = values * largest[torch.arange(first, last) // self.block_size]
        return found.reshape(self.shape)

    def _largest(self, parts: Parts) -> torch.Tensor:
        """[blocks] fp32."""
        stored = parts["absmax"]
        if "nested_absmax" not in parts:
            return stored.float()
        scales = parts["nested_absmax"].float()[torch.arange(len(stored)) // self.nested_block_size]
        return parts["nested_quant_map"].float()[stored.int()] * scales + self.nested_offset


@dataclass(frozen=True)
class _EightBits(IntegerLayer):
    def integers(self, parts: Parts) -> Integers:
        return Integers(parts["weight"], parts["SCB"].float()[:, None] / 127, None, self.shape[1])


class BitsAndBytes(WeightFormat):
    name = "bitsandbytes"
    title = "bitsandbytes"
    published = True
    methods = ("bitsandbytes",)
    packages = ("bitsandbytes",)

    def recognises(self, folder: Path) -> bool:
        said = quantization_of(folder)
        return super().recognises(folder) or bool(said.get("load_in_4bit") or said.get("load_in_8bit"))

    def is_meant_by(self, quantization: Quantization, folder: Path) -> bool:
        said = quantization_of(folder)
        made_at_load = "4bit" if said.get("load_in_4bit", said.get("_load_in_4bit")) else "8bit"
        return quantization in (self.name, made_at_load)

    def layers(self, stored: StoredTensors) -> Mapping[str, StoredLayer]:
        found: dict[str, StoredLayer] = {}
        for name, header in stored.headers.items():
            if header.dtype == "I8" and name.endswith(".weight"):
                scale = f"{name.removesuffix('.weight')}.SCB"
                if scale not in stored.headers:
                    raise ModelLoadError(f"The bitsandbytes weight {name} lacks {scale}: files are missing. Download the checkpoint again")
                parts = {"weight": name, "SCB": scale}
                if (layout := f"{name}_format") in stored.headers:
                    parts["format"] = layout
                    if stored.read(layout).any():
                        refuse(f"{name} is stored in a layout of bitsandbytes for one kind of GPU")
                found[name] = _EightBits(header.shape, parts, "int8")
            elif name.endswith(_STATES):
                weight = name[: name.rindex(".quant_state.")]
                found[weight] = _four_bits(weight, name, stored)
        return found


def _four_bits(weight: str, state_name: str, stored: StoredTensors) -> StoredLayer:
    state = json.loads(bytes(stored.read(state_name).tolist()))
    nested = ("nested_absmax", "nested_quant_map") if "nested_blocksize" in state else ()
    parts = {"weight": weight} | {part: f"{weight}.{part}" for part in ("absmax", "quant_map", *nested)}
    if missing := [name for name in parts.values() if name not in stored.headers]:
        raise ModelLoadError(
            f"The bitsandbytes weight {weight} lacks {', '.join(missing)}: files are missing. Download the checkpoint again"
        )
    parts["state"] = state_name
    return _FourBits(
        tuple(state["shape"]),
        parts,
        None,
        state["blocksize"],
        state.get("nested_blocksize", 256),
        state.get("nested_offset", 0.0),
    )
