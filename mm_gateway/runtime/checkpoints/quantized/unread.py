"""Formats that are not read here: transformers' own quantizers may compute with them on a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.checkpoints.quantized.format import WeightFormat
from mm_gateway.runtime.checkpoints.quantized.layer import StoredLayer
from mm_gateway.runtime.checkpoints.stored.stored_tensors import StoredTensors


class Unread(WeightFormat):
    """Of a checkpoint whose config.json names a `quant_method` that has no row in the table."""

    published = True

    def __init__(self, method: str) -> None:
        self.title = method
        self.methods = (method,)

    def layers(self, stored: StoredTensors) -> Mapping[str, StoredLayer]:
        refuse(f"The checkpoint is quantized with {self.title}")


def refuse(what: str) -> NoReturn:
    """Raises ModelLoadError for a variant that is not read."""
    raise ModelLoadError(f"{what}, which is read by transformers on a GPU only. Use the model's original, with quantization: 8bit or 4bit")
