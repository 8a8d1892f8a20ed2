"""What a quantized format says of itself: how it is recognised, read, packed, and how much memory its weights take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers.utils.quantization_config import QuantizationConfigMixin

from mm_gateway.configuration.settings import ModelConfig, Quantization
from mm_gateway.runtime.checkpoints.packed_linear import Weights
from mm_gateway.runtime.checkpoints.tensor_headers import TensorHeader

_PACKED: dict[torch.dtype, Weights] = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}


class WeightFormat:
    """How the weights of a model are stored and held. This class is the plain form; a quantized one overrides what differs.

    Attributes:
        name: as `quantization` of models.yaml names it; None: weights as they are.
        title: for people. published: checkpoints are stored in it; otherwise it is made at load.
    """

    name: Quantization | None = None
    title = "unquantized"
    published = False

    def recognises(self, folder: Path) -> bool:
        """Whether a checkpoint's files say that they are of this format. Raises ModelLoadError for a variant that is not read."""
        return False

    def quantizer(self, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> QuantizationConfigMixin | None:
        """What transformers quantizes with while it loads; None: nothing. Raises ModelLoadError where a package is missing."""
        return None

    def read(
        self, folder: Path, config: ModelConfig, device: torch.device, dtype: torch.dtype, *, converts_weights: bool
    ) -> dict[str, torch.Tensor] | None:
        """All weights by name, where this gateway reads the files itself; None: transformers does.

        Args:
            dtype: in which to give them. converts_weights: transformers renames or splits them afterwards.

        Raises:
            ModelLoadError: parts of a layer are missing.
        """
        return None

    def check_unexpected(self, names: Sequence[str], state: Mapping[str, torch.Tensor]) -> None:
        """Raises ModelLoadError where weights that `read` gave, and the model has no place for, would have had an effect."""

    def packed_as(self, dtype: torch.dtype) -> Weights | None:
        """How a CPU's linear layers are packed after loading; None: not at all."""
        return _PACKED[dtype]

    def stored_bytes(self, header: TensorHeader, item_bytes: int, checkpoint: Mapping[str, Any]) -> float | None:
        """Memory for a stored tensor that is a part of this format; None: it is an ordinary one. checkpoint: its config.json."""
        return None

    def linear_bytes(self, *, on_cpu: bool) -> float | None:
        """Of one weight of a linear layer, scales included; None: that of the dtype."""
        return None

    def embedding_bytes(self, item_bytes: int, *, on_cpu: bool) -> int:
        """Of one number of an embedding."""
        return item_bytes

    def output_copy_bytes(self, item_bytes: int) -> float:
        """Of one number of the copy that packing makes of tied embeddings for the output layer."""
        return item_bytes
