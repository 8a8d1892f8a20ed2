"""`quantization: 4bit`: NF4 of bitsandbytes with double quantization (https://arxiv.org/abs/2305.14314), on a GPU and on a CPU."""

from __future__ import annotations

import torch
from transformers import BitsAndBytesConfig

from mm_gateway.configuration.settings import ModelConfig
from mm_gateway.runtime.checkpoints.quantized.bitsandbytes import require_bitsandbytes
from mm_gateway.runtime.checkpoints.quantized.format import WeightFormat


class FourBit(WeightFormat):
    name = "4bit"
    title = "4 bit"
    bytes_per_weight = 0.52  # a scale for each block of 64, itself quantized

    def quantizer(self, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> BitsAndBytesConfig:
        require_bitsandbytes(config)
        return BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
        )

    def packed_as(self, dtype: torch.dtype) -> None:
        return None
