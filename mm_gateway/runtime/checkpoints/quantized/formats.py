"""Which formats of weights there are; another one is a module here and a row, and its name in settings.Quantization."""

from __future__ import annotations

from pathlib import Path

from mm_gateway.configuration.settings import Quantization
from mm_gateway.runtime.checkpoints.quantized.eight_bit import EightBit
from mm_gateway.runtime.checkpoints.quantized.format import WeightFormat
from mm_gateway.runtime.checkpoints.quantized.four_bit import FourBit
from mm_gateway.runtime.checkpoints.quantized.gptq import Gptq

FORMATS: dict[Quantization | None, WeightFormat] = {form.name: form for form in (WeightFormat(), EightBit(), FourBit(), Gptq())}


def stored_format(folder: Path) -> WeightFormat | None:
    """The format that a checkpoint's files are quantized in; None: none that is known here.

    Raises:
        ModelLoadError: a variant of it that cannot be read.
    """
    return next((form for form in FORMATS.values() if form.recognises(folder)), None)
