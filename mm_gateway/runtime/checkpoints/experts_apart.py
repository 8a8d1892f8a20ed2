"""Safetensors whose mixtures are stored expert by expert, as they are published; the model's class has one weight for all experts."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping

import torch

from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.checkpoints.stored.stored_tensors import StoredRows, StoredTensors
from mm_gateway.runtime.checkpoints.stored.tensor_source import SafetensorsSource

_EXPERT = re.compile(r"(.+\.experts)\.(\d+)\.(\w+)\.weight")
# Projections of an expert, one below the other in the joined weight; Mixtral has numbers for them.
_JOINED = {"gate_up_proj": (("gate_proj", "up_proj"), ("w1", "w3")), "down_proj": (("down_proj",), ("w2",))}
_RENAMED = (".block_sparse_moe.", ".mlp.")


class ExpertsApart(SafetensorsSource):
    """A `TensorSource` under the names that transformers joins such weights to (its `conversion_mapping`); all others are as they are.

    Raises:
        ModelLoadError: a part of an expert is missing.
    """

    def __init__(self, stored: StoredTensors) -> None:
        super().__init__(stored)
        plain = super().shapes
        experts: dict[str, dict[str, dict[int, str]]] = defaultdict(lambda: defaultdict(dict))
        self._stored_as: dict[str, str] = {}
        for name in plain:
            found = _EXPERT.fullmatch(name)
            if found is None:
                self._stored_as[name.replace(*_RENAMED)] = name
            else:
                experts[found[1]][found[3]][int(found[2])] = name
        self._members: dict[str, list[list[str]]] = {}
        self._joined_shapes: dict[str, tuple[int, ...]] = {}
        for place, projections in experts.items():
            for joined, spellings in _JOINED.items():
                for names in spellings:
                    if all(name in projections for name in names):
                        self._join(f"{place.replace(*_RENAMED)}.{joined}", [projections[name] for name in names], plain)

    def _join(self, joined: str, projections: list[dict[int, str]], shapes: Mapping[str, tuple[int, ...]]) -> None:
        count = 1 + max(number for projection in projections for number in projection)
        missing = sum(count - len(projection) for projection in projections)
        if missing:
            raise ModelLoadError(f"the checkpoint lacks {missing} weights of experts for {joined}: files are missing")
        members = [[projection[number] for projection in projections] for number in range(count)]
        found = {tuple(shapes[name] for name in expert) for expert in members}
        if len(found) == 1 and all(len(shape) == 2 for shape in next(iter(found))):
            parts = next(iter(found))
            self._members[joined] = members
            self._joined_shapes[joined] = (count, sum(shape[0] for shape in parts), parts[0][1])

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        plain = super().shapes
        return {name: plain[stored] for name, stored in self._stored_as.items()} | self._joined_shapes

    def read(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        if name in self._members:
            return torch.stack([self.read_expert(name, number, dtype) for number in range(len(self._members[name]))])
        return super().read(self._stored_as[name], dtype)

    def read_expert(self, name: str, number: int, dtype: torch.dtype) -> torch.Tensor:
        if name not in self._members:
            return super().read_expert(self._stored_as[name], number, dtype)
        return torch.cat([super(ExpertsApart, self).read(member, dtype) for member in self._members[name][number]])

    def are_equal(self, name: str, other: str) -> bool:
        return super().are_equal(self._stored_as[name], self._stored_as[other])

    def rows(self, name: str, dtype: torch.dtype) -> StoredRows:
        return super().rows(self._stored_as[name], dtype)
