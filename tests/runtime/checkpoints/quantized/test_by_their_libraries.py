"""Layers that the formats' own libraries quantize and save are read as those libraries themselves dequantize them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.runtime.checkpoints.quantized.formats import format_of
from mm_gateway.runtime.checkpoints.quantized.source import QuantizedSource
from mm_gateway.runtime.checkpoints.stored.stored_tensors import StoredTensors
from mm_gateway.runtime.kernels.blocks import Blocks

NAME = "model.layers.0.mlp.up_proj.weight"


def read(folder: Path, tensors: dict[str, torch.Tensor], said: dict[str, Any], metadata: dict[str, str]) -> list[torch.Tensor]:
    """The layer as numbers and, where it can be held so, in blocks."""
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors", metadata=metadata)
    (folder / "config.json").write_text(json.dumps({"quantization_config": said}))
    stored = StoredTensors(folder)
    layers = format_of(folder, ModelConfig(model_name=str(folder))).layers(stored)
    found = [QuantizedSource(stored, layers, keep_blocks=keep).read_layer(NAME, torch.float32) for keep in (False, True)]
    return [layer.dequantize() if isinstance(layer, Blocks) else layer for layer in found]


@pytest.mark.parametrize(
    ("layout", "weights"),
    [
        ("pack-quantized", {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 96}),
        ("pack-quantized", {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": False}),
        ("pack-quantized", {"num_bits": 3, "type": "int", "strategy": "channel"}),
        ("pack-quantized", {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": False}),
        ("int-quantized", {"num_bits": 8, "type": "int", "strategy": "channel"}),
        ("naive-quantized", {"num_bits": 8, "type": "int", "strategy": "tensor"}),
        ("float-quantized", {"num_bits": 8, "type": "float", "strategy": "tensor"}),
        ("float-quantized", {"num_bits": 8, "type": "float", "strategy": "channel"}),
        ("float-quantized", {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [128, 128]}),
    ],
    ids=str,
)
def test_compressed_tensors(tmp_path: Path, layout: str, weights: dict[str, Any]) -> None:
    compressors = pytest.importorskip("compressed_tensors.compressors")
    quantization = pytest.importorskip("compressed_tensors.quantization")
    torch.manual_seed(0)
    weight = torch.randn(200, 288) * 0.1 + 0.02
    args = quantization.QuantizationArgs(**weights)
    scheme = quantization.QuantizationScheme(targets=["Linear"], weights=args)
    size: int | None = {"group": args.group_size, "channel": 288}.get(weights["strategy"])
    if args.block_structure is not None:
        rows, columns = args.block_structure
        padded = torch.nn.functional.pad(weight, (0, -288 % columns, 0, -200 % rows))
        groups = padded.unflatten(0, (-1, rows)).unflatten(2, (-1, columns)).transpose(1, 2).flatten(2)
    else:
        groups = weight.reshape(1, 1, -1) if size is None else weight.unflatten(1, (-1, size))
    scales, zeros = quantization.utils.calculate_qparams(groups.amin(-1), groups.amax(-1), args)
    if size is None and args.block_structure is None:
        scales, zeros = scales.reshape(1), zeros.reshape(1)
    compressor = compressors.BaseCompressor.get_value_from_registry(layout)
    given = {"weight": weight.bfloat16(), "weight_scale": scales.bfloat16(), "weight_zero_point": zeros}
    stored = compressor.compress(given, scheme)
    # It rounds to the type of its scales; theirs are given in fp32 to see its exact numbers.
    exact = compressor.decompress(stored | {"weight_scale": stored["weight_scale"].float()}, scheme)["weight"]
    said = {
        "quant_method": "compressed-tensors",
        "format": layout,
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": json.loads(args.model_dump_json())}},
    }
    tensors = {NAME.removesuffix("weight") + part: tensor for part, tensor in stored.items()}
    for found in read(tmp_path, tensors, said, {"format": "pt"}):
        torch.testing.assert_close(found, exact.float(), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", ["Int8WeightOnlyConfig", "IntxWeightOnlyConfig", "Float8WeightOnlyConfig"])
def test_torchao(tmp_path: Path, kind: str) -> None:
    quantization = pytest.importorskip("torchao.quantization")
    support = pytest.importorskip("torchao.prototype.safetensors.safetensors_support")
    torch.manual_seed(0)
    linear = torch.nn.Linear(288, 200, bias=False).bfloat16()
    options: dict[str, Any] = {}
    if kind == "IntxWeightOnlyConfig":
        options = {
            "weight_dtype": getattr(torch, "int4"),  # noqa: B009 - not in its stubs
            "granularity": quantization.PerGroup(96),
        }
    quantization.quantize_(linear, getattr(quantization, kind)(**options))
    tensors, metadata = support.flatten_tensor_state_dict({NAME: linear.weight.data})
    quantized: Any = linear.weight
    exact = quantized.dequantize() if kind == "IntxWeightOnlyConfig" else quantized.dequantize(torch.float32)
    for found in read(tmp_path, tensors, {"quant_method": "torchao"}, metadata):
        torch.testing.assert_close(found.to(exact.dtype), exact, rtol=1e-6 if exact.dtype == torch.float32 else 0.01, atol=1e-8)
