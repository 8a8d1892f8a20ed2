"""Replaces the linear layers of any loaded model by packed ones, and joins those that read the same input; in place, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from mm_gateway.runtime.checkpoints.packed_linear import PackedEmbedding, PackedLinear, Weights, packed_linear

# Attribute names of projections that read the same input, in the order in which they are called.
_JOINED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("query", "key", "value"))


@dataclass(frozen=True)
class PackingReport:
    """modules: packed layers, after joining. joined: groups. bytes_before, bytes_after: of all weights of the model."""

    modules: int
    joined: int
    bytes_before: int
    bytes_after: int


def pack_model(model: nn.Module, weights: Weights) -> PackingReport:
    """Pack a model on the CPU. Afterwards its activations are fp32 and its linear layers have no `weight` any more.

    Layers are freed as they are packed, so the peak is the model and one layer.
    """
    before = weight_bytes(model)
    joined = 0
    for module in list(model.modules()):
        for names in _JOINED:
            members = [getattr(module, name, None) for name in names]
            if all(isinstance(member, nn.Linear) for member in members):
                group = _JoinedLinear([member for member in members if isinstance(member, nn.Linear)], weights)
                for index, name in enumerate(names):
                    setattr(module, name, _Member(group, index))
                joined += 1
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, packed_linear(child.weight, child.bias, weights))
            elif isinstance(child, Conv1D):  # GPT-2's, which keeps its weight transposed
                setattr(module, name, packed_linear(child.weight.T, child.bias, weights))
            elif isinstance(child, nn.Embedding) and weights != "fp32":
                setattr(module, name, PackedEmbedding(child, torch.float16 if weights == "int8" else _stored_dtype(weights)))
    for parameter in model.parameters():
        norm = parameter.dtype.itemsize < 4 and parameter.ndim == 1
        # A copy even where nothing changes: one tensor that lies in a mapped file would keep all of the file in memory.
        parameter.data = parameter.data.float() if norm else parameter.data.clone()
    modules = sum(isinstance(module, PackedLinear) for module in model.modules())
    return PackingReport(modules=modules, joined=joined, bytes_before=before, bytes_after=weight_bytes(model))


def weight_bytes(model: nn.Module) -> int:
    """Memory of parameters, buffers and packed weights; tied ones counted once."""
    tensors = {tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers())}
    return sum(tensors.values()) + sum(module.packed_bytes for module in model.modules() if isinstance(module, PackedLinear))


def _stored_dtype(weights: Weights) -> torch.dtype:
    return torch.bfloat16 if weights == "bf16" else torch.float16


class _JoinedLinear:
    """Several projections of one input as one. The first member that is called computes; the others take their slices."""

    # No nn.Module: setting an attribute of one costs microseconds, and this is set several times a layer and step.
    __slots__ = ("_input", "_linear", "_sizes", "_slices", "linear")

    def __init__(self, members: list[nn.Linear], weights: Weights) -> None:
        weight = torch.cat([member.weight.detach() for member in members])
        bias = None
        if any(member.bias is not None for member in members):
            bias = torch.cat(
                [member.bias.detach() if member.bias is not None else weight.new_zeros(member.out_features) for member in members]
            )
        self.linear = packed_linear(weight, bias, weights)
        self._linear = self.linear.forward
        self._sizes = [member.out_features for member in members]
        self._input: torch.Tensor | None = None
        self._slices: list[torch.Tensor | None] = []

    def take(self, index: int, x: torch.Tensor) -> torch.Tensor:
        # The input is held until every slice is taken, so that its identity cannot pass to another tensor.
        if self._input is not x or self._slices[index] is None:
            self._input, self._slices = x, list(torch.split_with_sizes(self._linear(x), self._sizes, -1))
        taken = self._slices[index]
        self._slices[index] = None
        if not any(piece is not None for piece in self._slices):
            self._input = None
        assert taken is not None
        return taken


class _Member(nn.Module):
    """One projection of a joined group, in the place of the layer it replaces."""

    def __init__(self, group: _JoinedLinear, index: int) -> None:
        super().__init__()
        # Only the first member owns the layer, so that it appears once among the model's modules.
        if index == 0:
            self.linear = group.linear
        self._take = group.take
        self._index = index

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._take(self._index, x)
