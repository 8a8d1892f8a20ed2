"""Replaces the linear layers of any loaded model by packed ones, and joins those that read the same input; in place, layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from mm_gateway.freed_memory import give_back_memory
from mm_gateway.runtime.checkpoints.packed_linear import PackedEmbedding, PackedLinear, Weights, packed_linear
from mm_gateway.runtime.kernels.blocks import Blocks

# Attribute names of projections that read the same input, in the order in which they are called.
_JOINED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("query", "key", "value"))

# Weights after whose packing the copies that it made are given back.
_TRIM_AFTER = 2**24


@dataclass(frozen=True)
class PackingReport:
    """modules: packed layers, after joining. joined: groups. bytes_before, bytes_after: of all weights of the model."""

    modules: int
    joined: int
    bytes_before: int
    bytes_after: int


class WeightReader(Protocol):
    """From a model's parameters to their numbers."""

    def read(self, parameter: torch.Tensor, /) -> torch.Tensor: ...

    def read_layer(self, parameter: torch.Tensor, /) -> torch.Tensor | Blocks:
        """The weight of a linear layer; blocks are [out, in], whatever the parameter's shape."""
        ...


class _InMemory:
    """Reads a model that has its weights."""

    def read(self, parameter: torch.Tensor, /) -> torch.Tensor:
        return parameter.detach()

    read_layer = read


def pack_model(model: nn.Module, weights: Weights) -> PackingReport:
    """Pack a model on the CPU. Afterwards its activations are fp32 and its linear layers have no `weight` any more.

    Layers are freed as they are packed, so the peak is the model and one layer.
    """
    before = weight_bytes(model)
    joined = pack_layers(model, weights, _InMemory())
    for parameter in model.parameters():
        # A copy even where nothing changes: one tensor that lies in a mapped file would keep all of the file in memory.
        parameter.data = parameter.data.clone()
    norms_to_fp32(model)
    modules = sum(isinstance(module, PackedLinear) for module in model.modules())
    return PackingReport(modules=modules, joined=joined, bytes_before=before, bytes_after=weight_bytes(model))


def norms_to_fp32(model: nn.Module) -> None:
    """What is as wide as a row is computed with in fp32, and takes next to no memory."""
    for parameter in model.parameters():
        if parameter.dtype.itemsize < 4 and parameter.ndim == 1:
            parameter.data = parameter.data.float()


def pack_layers(model: nn.Module, weights: Weights, reader: WeightReader) -> int:
    """Replace linear layers and embeddings one after the other; the number of groups that were joined.

    The largest come first: while one is packed it is in memory twice, which costs least while the others are not there yet.

    Args:
        reader: asked once for each weight and bias, so that it may read them from a file.
    """
    jobs: list[tuple[int, Callable[[], None]]] = []
    grouped: set[nn.Module] = set()
    groups = 0
    for module in model.modules():
        for names in _JOINED:
            members = [getattr(module, name, None) for name in names]
            linears = [member for member in members if isinstance(member, nn.Linear)]
            if len(linears) == len(names):
                grouped.update(linears)
                groups += 1
                jobs.append((sum(_size(member) for member in linears), partial(_join, module, names, linears, weights, reader)))
    # The output layer decides between tokens: it keeps 8 bits where the others have 4, as llama.cpp's mixtures keep it higher.
    output = model.get_output_embeddings() if weights == "int4" and isinstance(model, PreTrainedModel) else None
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.Linear | Conv1D | nn.Embedding) and child not in grouped:
                kind: Weights = "int8" if child is output else weights
                jobs.append((_size(child), partial(_replace, module, name, child, kind, reader)))
    freed = 0
    for size, job in sorted(jobs, key=lambda entry: -entry[0]):
        job()
        freed += size
        if freed >= _TRIM_AFTER:
            give_back_memory()
            freed = 0
    return groups


def _join(module: nn.Module, names: tuple[str, ...], members: list[nn.Linear], weights: Weights, reader: WeightReader) -> None:
    group = _JoinedLinear(members, weights, reader)
    for index, name in enumerate(names):
        setattr(module, name, _Member(group, index))


def _replace(module: nn.Module, name: str, layer: nn.Linear | Conv1D | nn.Embedding, weights: Weights, reader: WeightReader) -> None:
    if isinstance(layer, nn.Embedding):
        if weights != "fp32":
            setattr(module, name, PackedEmbedding(reader.read(layer.weight), _stored_dtype(weights)))
        return
    weight = reader.read_layer(layer.weight)
    if isinstance(layer, Conv1D) and isinstance(weight, torch.Tensor):
        weight = weight.T  # GPT-2's layers keep their weights transposed
    setattr(module, name, packed_linear(weight, _bias(layer, reader), weights))


def _size(layer: nn.Linear | Conv1D | nn.Embedding) -> int:
    return layer.weight.numel()


def weight_bytes(model: nn.Module) -> int:
    """Memory of parameters, buffers and packed weights; tied ones counted once."""
    tensors = {tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers())}
    return sum(tensors.values()) + sum(module.packed_bytes for module in model.modules() if isinstance(module, PackedLinear))


def _bias(layer: nn.Linear | Conv1D, reader: WeightReader) -> torch.Tensor | None:
    return reader.read(layer.bias) if layer.bias is not None else None


def _concatenated(pieces: list[torch.Tensor | Blocks]) -> torch.Tensor | Blocks:
    """Layers one below the other; in blocks where all of them are in blocks of one kind."""
    blocks = [piece for piece in pieces if isinstance(piece, Blocks)]
    if len(blocks) == len(pieces) and len({piece.quants.dtype for piece in blocks}) == 1:
        minimums = [piece.minimums for piece in blocks if piece.minimums is not None]
        scaled = any(piece.row_scales is not None for piece in blocks)
        return Blocks(
            torch.cat([piece.quants for piece in blocks]),
            torch.cat([piece.scales for piece in blocks]),
            torch.cat(minimums) if minimums else None,
            blocks[0].inputs,
            torch.cat([torch.ones(len(p.quants)) if p.row_scales is None else p.row_scales for p in blocks]) if scaled else None,
        )
    return torch.cat([piece.dequantize() if isinstance(piece, Blocks) else piece for piece in pieces])


def _stored_dtype(weights: Weights) -> torch.dtype:
    return torch.bfloat16 if weights == "bf16" else torch.float16


class _JoinedLinear:
    """Several projections of one input as one. The first member that is called computes; the others take their slices."""

    # No nn.Module: setting an attribute of one costs microseconds, and this is set several times a layer and step.
    __slots__ = ("_input", "_linear", "_sizes", "_slices", "linear")

    def __init__(self, members: list[nn.Linear], weights: Weights, reader: WeightReader) -> None:
        weight = _concatenated([reader.read_layer(member.weight) for member in members])
        bias = None
        if any(member.bias is not None for member in members):
            biases = [_bias(member, reader) for member in members]
            bias = torch.cat([b if b is not None else torch.zeros(m.out_features) for b, m in zip(biases, members, strict=True)])
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
