"""One weight of a model that a quantized checkpoint stores in parts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.checkpoints.packed_linear import BlockWeights
from mm_gateway.runtime.checkpoints.quantized.integers import Integers
from mm_gateway.runtime.kernels.blocks import Blocks

Parts = Mapping[str, torch.Tensor]
"""From what a part is to its tensor as it is stored."""


@dataclass(frozen=True)
class StoredLayer(ABC):
    """What is known of a weight before it is read.

    Attributes:
        shape: of the weight that it stands for: [out, in], or [in, out] for each expert where a class of transformers holds several.
        parts: what a part is -> its name in the files.
        kept: the blocks of our kernels that hold the same numbers; None: it is unpacked.
    """

    shape: tuple[int, ...]
    parts: Mapping[str, str]
    kept: BlockWeights | None = None

    @abstractmethod
    def numbers(self, parts: Parts, dtype: torch.dtype) -> torch.Tensor:
        """The weight, computed in fp32 and rounded once, where `dtype` is narrower."""

    def blocks(self, parts: Parts) -> Blocks | None:
        """The weight in blocks [out, in]; None where they would not hold quite the same."""
        return None


class IntegerLayer(StoredLayer):
    """A weight of integers with scales."""

    @abstractmethod
    def integers(self, parts: Parts) -> Integers: ...

    def numbers(self, parts: Parts, dtype: torch.dtype) -> torch.Tensor:
        return self.integers(parts).numbers(dtype)

    def blocks(self, parts: Parts) -> Blocks | None:
        return None if self.kept is None else self.integers(parts).blocks(self.kept)


def grouped(names: Iterable[str], needed: Sequence[str], others: Sequence[str] = (), *, title: str) -> dict[str, dict[str, str]]:
    """Names such as `layer.part` as {layer: {part: name}}, of layers that have the first of the `needed` parts.

    Raises:
        ModelLoadError: a layer lacks another needed part. title: of the format, for people.
    """
    known = set(names)
    layers = [name.removesuffix(f".{needed[0]}") for name in known if name.endswith(f".{needed[0]}")]
    found = {layer: {part: f"{layer}.{part}" for part in (*needed, *others) if f"{layer}.{part}" in known} for layer in sorted(layers)}
    for layer, parts in found.items():
        if missing := [part for part in needed if part not in parts]:
            raise ModelLoadError(f"The {title} layer {layer} lacks {', '.join(missing)}: files are missing. Download the checkpoint again")
    return found
