"""Reads the weights of a quantized checkpoint one at a time, as the numbers or blocks that they stand for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch

from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.checkpoints.quantized.layer import StoredLayer
from mm_gateway.runtime.checkpoints.stored.stored_tensors import StoredTensors
from mm_gateway.runtime.checkpoints.stored.tensor_source import SafetensorsSource
from mm_gateway.runtime.kernels.blocks import Blocks

# What activations and KV caches of 8 bits are scaled by. Here both keep their precision, so nothing is scaled.
_OF_ACTIVATIONS = (
    "input_scale",
    "activation_scale",
    "output_scale",
    "q_scale",
    "k_scale",
    "v_scale",
    "input_zero_point",
    "input_global_scale",
)


class QuantizedSource:
    """A `TensorSource` of layers that are stored in parts; what is no part of any is read as it is.

    Args:
        layers: by the names of their weights. keep_blocks: give layers in blocks, where those hold the same; else unpack them all.
    """

    def __init__(self, stored: StoredTensors, layers: Mapping[str, StoredLayer], *, keep_blocks: bool) -> None:
        self._stored = stored
        self._layers = layers
        self._keep_blocks = keep_blocks
        self._plain = SafetensorsSource(stored)
        self._parts = {part for layer in layers.values() for part in layer.parts.values()}

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        plain = {
            name: shape for name, shape in self._plain.shapes.items() if name not in self._parts and not name.endswith(_OF_ACTIVATIONS)
        }
        return plain | {name: layer.shape for name, layer in self._layers.items()}

    @property
    def outputs_first(self) -> Collection[str]:
        return self._layers.keys()

    def read(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        layer = self._layers.get(name)
        return self._plain.read(name, dtype) if layer is None else layer.numbers(self._read_parts(layer), dtype)

    def read_layer(self, name: str, dtype: torch.dtype) -> torch.Tensor | Blocks:
        layer = self._layers.get(name)
        if layer is None:
            return self._plain.read(name, dtype)
        parts = self._read_parts(layer)
        blocks = layer.blocks(parts) if self._keep_blocks and layer.kept is not None else None
        # Packing rounds to the type that it holds; rounding here too would do so twice.
        return layer.numbers(parts, torch.float32) if blocks is None else blocks

    def read_expert(self, name: str, number: int, dtype: torch.dtype) -> torch.Tensor:
        return self.read(name, dtype)[number]

    def are_equal(self, name: str, other: str) -> bool:
        if name in self._layers or other in self._layers:
            return torch.equal(self.read(name, torch.float32), self.read(other, torch.float32))
        return self._plain.are_equal(name, other)

    def check_unused(self, names: Iterable[str]) -> None:
        """Raises ModelLoadError where weights that the model has no place for would have had an effect.

        Only what quantizers add without one has no place: biases of zeros.
        """
        wrong = [name for name in names if not (name.endswith(".bias") and not self.read(name, torch.float32).any())]
        if wrong:
            raise ModelLoadError(
                f"The checkpoint holds {len(wrong)} tensors that the model has no place for ({', '.join(wrong[:3])}…), "
                "so it would not compute what it was made for"
            )

    def _read_parts(self, layer: StoredLayer) -> dict[str, torch.Tensor]:
        return {part: self._stored.read(name) for part, name in layer.parts.items()}
