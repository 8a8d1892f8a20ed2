"""`quantization: 8bit`: on a GPU LLM.int8() of bitsandbytes (https://arxiv.org/abs/2208.07339), on a CPU blocks of int8."""

from __future__ import annotations

import torch
from transformers import BitsAndBytesConfig

from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.runtime.checkpoints.packed_linear import Weights, block_bytes
from mm_gateway.runtime.checkpoints.quantized.bitsandbytes import require_bitsandbytes
from mm_gateway.runtime.checkpoints.quantized.format import WeightFormat


class EightBit(WeightFormat):
    name = "8bit"
    title = "8 bit"

    def quantizer(self, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> BitsAndBytesConfig | None:
        if device.type == "cpu":
            return None  # packing quantizes, after loading
        require_bitsandbytes(config)
        return BitsAndBytesConfig(load_in_8bit=True)

    def packed_as(self, dtype: torch.dtype) -> Weights:
        return "int8"

    def embedding_bytes(self, item_bytes: int, *, on_cpu: bool) -> int:
        return 2 if on_cpu else item_bytes

    def linear_bytes(self, *, on_cpu: bool) -> float:
        return block_bytes(8) if on_cpu else 1.02  # there a scale a row

    def output_bytes(self, item_bytes: int) -> float:
        return block_bytes(8)
