"""What a quantized format says of itself: how it is recognised, read, packed, and how much memory its weights take."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers.utils.import_utils import ENV_VARS_TRUE_VALUES
from transformers.utils.quantization_config import QuantizationConfigMixin

from mm_gateway.configuration.model_config import ModelConfig, Quantization
from mm_gateway.runtime.checkpoints.packed_linear import Weights
from mm_gateway.runtime.checkpoints.quantized.layer import StoredLayer
from mm_gateway.runtime.checkpoints.stored.stored_tensors import StoredTensors

_PACKED: dict[torch.dtype, Weights] = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}


class WeightFormat:
    """How the weights of a model are stored and held. This class is the plain form; a quantized one overrides what differs.

    Attributes:
        name: as `quantization` of models.yaml names it; None: weights as they are.
        title: for people. published: checkpoints are stored in it; otherwise it is made at load.
        methods: values of `quant_method` in config.json that mean it.
        packages: what transformers needs to compute with its weights as they are stored, on a GPU; where one is missing, they are unpacked.
        hub_kernels: it needs kernels of the hub as well, which is code from there; who wants that sets USE_HUB_KERNELS=1.
    """

    name: Quantization | None = None
    title = "unquantized"
    published = False
    methods: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    hub_kernels = False

    def recognises(self, folder: Path) -> bool:
        """Whether a checkpoint's files say that they are of this format. Raises ModelLoadError for a variant that is not read."""
        return quantization_of(folder).get("quant_method") in self.methods

    def is_meant_by(self, quantization: Quantization, folder: Path) -> bool:
        """Whether a `quantization` that is set beside such a checkpoint says the same."""
        return quantization == self.name

    def quantizer(self, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> QuantizationConfigMixin | None:
        """What transformers quantizes with while it loads; None: nothing. Raises ModelLoadError where a package is missing."""
        return None

    def stays_packed(self, device_type: str) -> bool:
        """Whether transformers computes with the weights of a checkpoint as they are stored."""
        if not self.published or device_type != "cuda" or (self.hub_kernels and not _hub_kernels_are_allowed()):
            return False
        return all(find_spec(package) is not None for package in self.packages)

    def is_read_by_transformers(self, folder: Path) -> bool:
        """Whether transformers' quantizer reads what such a checkpoint holds; where it does not, its weights are unpacked on a GPU too."""
        return True

    def layers(self, stored: StoredTensors) -> Mapping[str, StoredLayer]:
        """The weights that are stored in parts, by their names.

        Raises:
            ModelLoadError: parts of one are missing, or it is of a variant that is not read.
        """
        return {}

    def packed_as(self, dtype: torch.dtype) -> Weights | None:
        """How a CPU's linear layers are packed after loading; None: not at all."""
        if self.published and dtype == torch.bfloat16:
            return "fp16"  # what is unpacked has more digits than bf16; numbers that are stored in bf16 stay so
        return _PACKED[dtype]

    def linear_bytes(self, *, on_cpu: bool) -> float | None:
        """Of one weight of a linear layer, scales included; None: that of the dtype."""
        return None

    def embedding_bytes(self, item_bytes: int, *, on_cpu: bool) -> int:
        """Of one number of an embedding."""
        return item_bytes

    def output_bytes(self, item_bytes: int) -> float:
        """Of one number of the output layer on a CPU."""
        return item_bytes


def _hub_kernels_are_allowed() -> bool:
    return os.environ.get("USE_HUB_KERNELS", "").upper() in ENV_VARS_TRUE_VALUES


def quantization_of(folder: Path) -> dict[str, Any]:
    """What config.json says of how the weights are quantized; nothing where they are not."""
    content = read_json(folder / "config.json")
    found = content.get("quantization_config") or content.get("compression_config")
    return found if isinstance(found, dict) else {}


def read_json(file: Path) -> dict[str, Any]:
    """The object in a file; an empty one where there is no such file."""
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found if isinstance(found, dict) else {}
