"""GPTQ checkpoints without a GPTQ package: the weights are computed from their integers at load, exactly, and held in 16 or 32 bits.

A layer of `in` inputs and `out` outputs is stored as qweight int32 [in * bits / 32, out], qzeros int32 [groups, out * bits / 32],
scales [groups, out] and g_idx [in], the group of each input (https://arxiv.org/abs/2210.17323; the layout is AutoGPTQ's).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from mm_gateway.configuration.settings import ModelConfig
from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.checkpoints.quantized.format import WeightFormat
from mm_gateway.runtime.checkpoints.tensor_headers import TensorHeader

logger = logging.getLogger(__name__)

_PARTS = ("qweight", "qzeros", "scales", "g_idx")


@dataclass(frozen=True)
class GptqFormat:
    """bits: 2, 4 or 8. group_size: inputs that share a scale, -1: all. v2: zero points are stored as they are, not less one."""

    bits: int
    group_size: int
    v2: bool


def read_format(folder: Path) -> GptqFormat | None:
    """How a checkpoint is quantized; None where it is not, or not by GPTQ.

    Raises:
        ModelLoadError: a number of bits that is not implemented.
    """
    found: dict[str, Any] = {}
    for file, key in (("config.json", "quantization_config"), ("quantize_config.json", None)):
        if (folder / file).is_file():
            content = json.loads((folder / file).read_text(encoding="utf-8"))
            found = (content.get(key) if key else content) or found
    if not found or found.get("quant_method", "gptq") != "gptq":
        return None
    bits = int(found["bits"])
    if bits not in (2, 4, 8):
        raise ModelLoadError(f"GPTQ with {bits} bits is not supported, only 2, 4 and 8")
    return GptqFormat(bits, int(found.get("group_size", 128)), found.get("checkpoint_format") == "gptq_v2")


def gptqmodel_usable(device: torch.device) -> bool:
    """Whether the package gptqmodel can keep the weights packed: it is installed, and there is a GPU for its kernels."""
    if find_spec("gptqmodel") is not None and find_spec("optimum") is not None:
        return device.type == "cuda"
    if find_spec("auto_gptq") is not None:
        logger.warning("auto-gptq cannot be used beside transformers 5; its successor is gptqmodel: pip install 'mm-gateway[gptq]'")
    return False


def dequantized_state_dict(folder: Path, form: GptqFormat, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """All weights of a checkpoint by their names, quantized ones as [out, in] of `dtype`.

    Raises:
        ModelLoadError: parts of a layer are missing, or there are no safetensors files.
    """
    state: dict[str, torch.Tensor] = {}
    layers: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in _tensors(folder):
        layer, _, part = name.rpartition(".")
        if part in _PARTS:
            parts = layers.setdefault(layer, {})
            parts[part] = tensor
            if len(parts) == len(_PARTS):  # at once, so that both forms of the whole model are never in memory
                state[f"{layer}.weight"] = dequantize(parts, form).to(dtype)
                parts.clear()
        else:
            state[name] = tensor.to(dtype) if tensor.is_floating_point() else tensor
    for layer, parts in layers.items():
        if parts:
            if not {"qweight", "qzeros", "scales"} <= parts.keys():
                raise ModelLoadError(f"The GPTQ layer {layer} lacks {', '.join(set(_PARTS) - {'g_idx'} - parts.keys())}")
            state[f"{layer}.weight"] = dequantize(parts, form).to(dtype)
    return state


def dequantize(parts: dict[str, torch.Tensor], form: GptqFormat) -> torch.Tensor:
    """The weight [out, in] fp32 that the parts of one layer stand for: scale * (integer - zero point).

    Args:
        parts: qweight, qzeros, scales, and g_idx where inputs were reordered; by default they are grouped in order.
    """
    mask = 2**form.bits - 1
    shifts = torch.arange(0, 32, form.bits, dtype=torch.int32)
    integers = ((parts["qweight"][:, None, :] >> shifts[:, None]) & mask).flatten(0, 1)  # [in, out]
    zeros = ((parts["qzeros"][:, :, None] >> shifts) & mask).flatten(1, 2)  # [groups, out]
    if not form.v2:
        zeros = (zeros + 1) & mask  # stored less one, modulo 2^bits
    size = form.group_size if form.group_size > 0 else len(integers)
    groups = parts["g_idx"].long() if "g_idx" in parts else torch.arange(len(integers)) // size
    scales = parts["scales"].float()
    return ((integers - zeros[groups]).float() * scales[groups]).T.contiguous()


def _tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelLoadError("A GPTQ checkpoint must be in safetensors files; this one has none")
    for file in files:
        with safe_open(file, framework="pt") as stream:
            for name in stream.keys():  # noqa: SIM118 - no mapping
                yield name, stream.get_tensor(name)


class Gptq(WeightFormat):
    name = "gptq"
    title = "GPTQ"
    published = True

    def recognises(self, folder: Path) -> bool:
        return read_format(folder) is not None

    def read(
        self, folder: Path, config: ModelConfig, device: torch.device, dtype: torch.dtype, *, converts_weights: bool
    ) -> dict[str, torch.Tensor] | None:
        # Packed integers can be neither renamed into other layers nor split.
        if not converts_weights and gptqmodel_usable(device):
            return None
        form = read_format(folder)
        assert form is not None
        logger.warning(
            "%s: its GPTQ weights are held as %s, %d times their size in the files; on a GPU the package gptqmodel keeps them packed",
            config.model_name,
            str(dtype).removeprefix("torch."),
            8 * dtype.itemsize // form.bits,
        )
        return dequantized_state_dict(folder, form, dtype)

    def check_unexpected(self, names: Sequence[str], state: Mapping[str, torch.Tensor]) -> None:
        """Only what quantizers add without effect has no place: biases of zeros."""
        wrong = [name for name in names if name in state and not (name.endswith(".bias") and not state[name].any())]
        if wrong:
            raise ModelLoadError(
                f"The GPTQ checkpoint holds {len(wrong)} tensors that the model has no place for ({', '.join(wrong[:3])}…)"
            )

    def stored_bytes(self, header: TensorHeader, item_bytes: int, checkpoint: Mapping[str, Any]) -> float | None:
        part = header.name.rpartition(".")[2]
        if part not in _PARTS:
            return None
        # Held as the weights that they stand for; a GPU with gptqmodel's kernels takes less.
        bits = int((checkpoint.get("quantization_config") or {}).get("bits", 4))
        return header.items * (32 // bits) * item_bytes if part == "qweight" else 0
