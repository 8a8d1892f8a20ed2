"""Replaces the linear layers and experts of any loaded model by packed ones, and joins those that read the same input; in place, layer by
layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Protocol

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from mm_gateway.freed_memory import give_back_memory
from mm_gateway.runtime.checkpoints.packed_experts import EXPERT_WEIGHTS, PackedExperts, are_experts
from mm_gateway.runtime.checkpoints.packed_linear import (
    KernelLinear,
    LayerEmbedding,
    PackedEmbedding,
    PackedLinear,
    StoredEmbedding,
    Weights,
    needs_rows_only,
    number_type,
    packed_linear,
)
from mm_gateway.runtime.checkpoints.stored.stored_tensors import StoredRows
from mm_gateway.runtime.kernels.blocks import Blocks, joined
from mm_gateway.runtime.kernels.weight_memory import weight_memory

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
        """The weight of a linear layer or embedding; blocks are [out, in], whatever the parameter's shape."""
        ...

    def read_rows(self, parameter: torch.Tensor, /) -> torch.Tensor | Blocks | StoredRows:
        """The same of a layer that is packed in blocks, which needs a few rows at a time."""
        ...

    def read_expert(self, parameter: torch.Tensor, number: int, /) -> torch.Tensor | Blocks:
        """One expert's weight [outputs, inputs] of a parameter that holds those of all."""
        ...


class _InMemory:
    """Reads a model that has its weights."""

    def read(self, parameter: torch.Tensor, /) -> torch.Tensor:
        return parameter.detach()

    read_layer = read
    read_rows = read

    def read_expert(self, parameter: torch.Tensor, number: int, /) -> torch.Tensor:
        return parameter.detach()[number]


def pack_model(model: nn.Module, weights: Weights) -> PackingReport:
    """Pack a model on the CPU. Afterwards its activations are fp32 and its linear layers have no `weight` any more.

    Layers are freed as they are packed, so the peak is the model and one layer.
    """
    before = weight_bytes(model)
    joined = pack_layers(model, weights, _InMemory())
    for parameter in model.parameters():
        # A copy even where nothing changes: one tensor that lies in a mapped file would keep all of the file in memory.
        parameter.data = parameter.data.clone()
    rest_to_fp32(model)
    modules = sum(isinstance(module, PackedLinear) for module in model.modules())
    return PackingReport(modules=modules, joined=joined, bytes_before=before, bytes_after=weight_bytes(model))


def rest_to_fp32(model: nn.Module) -> None:
    """What is no packed layer is computed with in fp32: norms, and routers of experts, which take next to no memory."""
    stored = {id(module.weight) for module in model.modules() if isinstance(module, StoredEmbedding)}
    for parameter in model.parameters():
        if parameter.is_floating_point() and parameter.dtype.itemsize < 4 and id(parameter) not in stored:
            parameter.data = parameter.data.float()


def pack_layers(model: nn.Module, weights: Weights, reader: WeightReader) -> int:
    """Replace linear layers, experts and embeddings one after the other; the number of groups that were joined.

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
    head = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    tied = _tied_to(head, model)
    # The output layer decides between tokens: it keeps 8 bits where the others have 4, as llama.cpp's mixtures keep it higher.
    for module in model.modules():
        for name, child in module.named_children():
            if are_experts(child):
                size = sum(getattr(child, weight).numel() for weight in EXPERT_WEIGHTS)
                jobs.append((size, partial(_replace_experts, module, name, child, weights, reader)))
            if isinstance(child, nn.Linear | Conv1D | nn.Embedding) and child not in grouped and child is not tied:
                kind: Weights = "int8" if child is head and weights == "int4" else weights
                shares_with = model if child is head and tied and isinstance(model, PreTrainedModel) else None
                jobs.append((_size(child), partial(_replace, module, name, child, kind, reader, shares_with)))
    freed = 0
    with weight_memory():
        for size, job in sorted(jobs, key=lambda entry: -entry[0]):
            job()
            freed += size
            if freed >= _TRIM_AFTER:
                give_back_memory()
                freed = 0
    return groups


def _join(module: nn.Module, names: tuple[str, ...], members: list[nn.Linear], weights: Weights, reader: WeightReader) -> None:
    read = [reader.read_layer(member.weight) for member in members]
    # A GGUF file may have one of them in other blocks, or other numbers, than the rest.
    kinds = [weight.kind if isinstance(weight, Blocks) else weight.dtype for weight in read]
    for _, neighbours in groupby(range(len(kinds)), key=kinds.__getitem__):
        chosen = list(neighbours)
        biases = [_bias(members[index], reader) for index in chosen]
        if len(chosen) == 1:
            setattr(module, names[chosen[0]], packed_linear(read[chosen[0]], biases[0], weights))
            continue
        group = JoinedLinear([read[index] for index in chosen], biases, weights)
        for place, index in enumerate(chosen):
            setattr(module, names[index], JoinedMember(group, place))


def _tied_to(head: nn.Module | None, model: nn.Module) -> nn.Embedding | None:
    """The embeddings whose weights are the output layer's too."""
    if not isinstance(head, nn.Linear) or not isinstance(model, PreTrainedModel):
        return None
    embeddings = model.get_input_embeddings()
    return embeddings if isinstance(embeddings, nn.Embedding) and embeddings.weight is head.weight and _is_ordinary(embeddings) else None


def _is_ordinary(layer: nn.Embedding) -> bool:
    """Gives the rows of its ids, or those times its scale; other classes compute with the ids before."""
    return type(layer) is nn.Embedding or hasattr(layer, "embed_scale")


def _replace(
    module: nn.Module,
    name: str,
    layer: nn.Linear | Conv1D | nn.Embedding,
    weights: Weights,
    reader: WeightReader,
    shares_with: PreTrainedModel | None,
) -> None:
    """shares_with: the model whose embeddings are looked up in this layer."""
    if isinstance(layer, nn.Embedding):
        if not _is_ordinary(layer):
            layer.weight = nn.Parameter(reader.read(layer.weight).float(), requires_grad=False)
            return
        weight = reader.read_layer(layer.weight)
        if isinstance(weight, Blocks):
            embedding = KernelLinear(weight, None)
            setattr(module, name, LayerEmbedding(embedding, is_shared=False, scale=_scale(layer)))
        else:
            setattr(module, name, StoredEmbedding(weight, number_type(weight, weights), _scale(layer)))
        return
    # The largest layers of small models, embeddings that are the output layer, would take several times their place in blocks.
    in_rows = isinstance(layer, nn.Linear) and needs_rows_only(weights)
    weight = reader.read_rows(layer.weight) if in_rows else reader.read_layer(layer.weight)
    if isinstance(layer, Conv1D) and isinstance(weight, torch.Tensor):
        weight = weight.T  # GPT-2's layers keep their weights transposed
    packed = packed_linear(weight, _bias(layer, reader), weights)
    if shares_with is not None:
        scale = _scale(shares_with.get_input_embeddings())
        embeddings: PackedEmbedding
        if isinstance(packed, KernelLinear):
            embeddings = LayerEmbedding(packed, is_shared=True, scale=scale)
        else:
            numbers = weight.dequantize() if isinstance(weight, Blocks) else weight
            assert isinstance(numbers, torch.Tensor)  # rows become blocks by kernels
            embeddings = StoredEmbedding(numbers, number_type(numbers, weights), scale)
        shares_with.set_input_embeddings(embeddings)
    setattr(module, name, packed)


def _replace_experts(module: nn.Module, name: str, experts: nn.Module, weights: Weights, reader: WeightReader) -> None:
    setattr(module, name, PackedExperts(experts, weights, reader.read_expert))


def _scale(embeddings: nn.Module) -> torch.Tensor | float | None:
    return getattr(embeddings, "embed_scale", None)  # type: ignore[return-value]


def _size(layer: nn.Linear | Conv1D | nn.Embedding) -> int:
    return layer.weight.numel()


def weight_bytes(model: nn.Module) -> int:
    """Memory of parameters, buffers and packed weights; tied ones counted once."""
    tensors = {tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers())}
    return sum(tensors.values()) + sum(module.packed_bytes for module in model.modules() if isinstance(module, PackedLinear))


def _bias(layer: nn.Linear | Conv1D, reader: WeightReader) -> torch.Tensor | None:
    return reader.read(layer.bias) if layer.bias is not None else None


def _concatenated(pieces: list[torch.Tensor | Blocks]) -> torch.Tensor | Blocks:
    """Layers one below the other, all in blocks of one kind or none."""
    blocks = [piece for piece in pieces if isinstance(piece, Blocks)]
    return joined(blocks) if blocks else torch.cat([piece for piece in pieces if isinstance(piece, torch.Tensor)])


class JoinedLinear:
    """Several projections of one input as one. The first member that is called computes; the others take their slices."""

    # No nn.Module: setting an attribute of one costs microseconds, and this is set several times a layer and step.
    __slots__ = ("_input", "_linear", "_sizes", "_slices", "linear")

    def __init__(self, pieces: list[torch.Tensor | Blocks], biases: list[torch.Tensor | None], weights: Weights) -> None:
        self._sizes = [piece.shape[0] for piece in pieces]
        bias = None
        if any(each is not None for each in biases):
            zeros = (torch.zeros(size, dtype=torch.float32) for size in self._sizes)
            bias = torch.cat([each if each is not None else zero for each, zero in zip(biases, zeros, strict=True)])
        self.linear = packed_linear(_concatenated(pieces), bias, weights)
        self._linear = self.linear.forward
        self._input: torch.Tensor | None = None
        self._slices: list[torch.Tensor | None] = []

    @property
    def count(self) -> int:
        return len(self._sizes)

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


class JoinedMember(nn.Module):
    """One projection of a joined group, in the place of the layer it replaces.

    Attributes:
        group: whose slice `index` it is.
    """

    def __init__(self, group: JoinedLinear, index: int) -> None:
        super().__init__()
        # Only the first member owns the layer, so that it appears once among the model's modules.
        if index == 0:
            self.linear = group.linear
        self.group, self.index = group, index
        self._take = group.take

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._take(self.index, x)
