"""`quantization: 4bit`: on a GPU NF4 of bitsandbytes (https://arxiv.org/abs/2305.14314, double quantization), on a CPU blocks of int4."""

from __future__ import annotations

import torch
from transformers import BitsAndBytesConfig

from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.runtime.checkpoints.packed_linear import Weights, block_bytes
from mm_gateway.runtime.checkpoints.quantized.bitsandbytes import require_bitsandbytes
from mm_gateway.runtime.checkpoints.quantized.format import WeightFormat


class FourBit(WeightFormat):
    name = "4bit"
    title = "4 bit"

    def quantizer(self, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> BitsAndBytesConfig | None:
        if device.type == "cpu":
            return None  # packing quantizes, after loading
        require_bitsandbytes(config)
        return BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
        )

    def packed_as(self, dtype: torch.dtype) -> Weights:
        return "int4"

    def embedding_bytes(self, item_bytes: int, *, on_cpu: bool) -> int:
        return 2 if on_cpu else item_bytes

    def linear_bytes(self, *, on_cpu: bool) -> float:
        return block_bytes(4) if on_cpu else 0.52  # there a scale for each block of 64, itself quantized

    def output_bytes(self, item_bytes: int) -> float:
        return block_bytes(8)
