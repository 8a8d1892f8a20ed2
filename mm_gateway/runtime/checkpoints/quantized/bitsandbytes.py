"""The package bitsandbytes, which transformers quantizes with while it loads."""

from __future__ import annotations

import importlib.util
import logging

from mm_gateway.configuration.settings import ModelConfig
from mm_gateway.errors import ModelLoadError


def require_bitsandbytes(config: ModelConfig) -> None:
    """Raises ModelLoadError where the package is not installed."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelLoadError(
            f"{config.model_name}: quantization: {config.quantization} needs the package bitsandbytes: pip install 'mm-gateway[bnb]'"
        )
    # It logs a warning per layer and forward pass where a CPU has no fused kernel.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
