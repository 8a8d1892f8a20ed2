"""Builds a model around a source of its weights, so that loading takes little more memory than what stays."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from mm_gateway.runtime.checkpoints.stored.stored_tensors import StoredRows
from mm_gateway.runtime.checkpoints.stored.tensor_source import SafetensorsSource, TensorSource
from mm_gateway.runtime.kernels.blocks import Blocks


class NotStreamable(Exception):
    """transformers has to rename, split or join this checkpoint's weights; says which was found first."""


def attention_of(checkpoint: transformers.PreTrainedConfig) -> str:
    """Which of transformers' attentions a model is built with, until the engine takes it over: torch's has no soft-capped scores, and a
    class that knows them refuses it where this checkpoint caps none, too."""
    return "eager" if hasattr(checkpoint.get_text_config(), "attn_logit_softcapping") else "sdpa"


class StreamedWeights:
    """A model without weights, and where each of them is read from.

    Attributes:
        unused: names of tensors that the source has, and the model has no place for.

    Raises:
        NotStreamable: the model's weights are not stored under its own names and in its own shapes.
    """

    def __init__(
        self, checkpoint: transformers.PreTrainedConfig, source: TensorSource, dtype: torch.dtype, report: Callable[[float], object]
    ) -> None:
        # transformers makes another type the default of the whole process while it builds, in which engines that run would then make
        # their tensors. The type of what has no memory yet does not matter: every weight comes in its own.
        with torch.device("meta"):
            self.model: PreTrainedModel = AutoModelForCausalLM.from_config(
                checkpoint, dtype=torch.float32, attn_implementation=attention_of(checkpoint)
            )
        for part in (self.model.config, *(getattr(self.model.config, name) for name in self.model.config.sub_configs)):
            if part is not None:
                part.dtype = dtype
        self.model.tie_weights()
        _compute_buffers(self.model)
        self._source = source
        self._untie_where_stored_apart()
        self._dtype = dtype
        self._report = report
        self._read = 0
        shapes = source.shapes
        prefix = f"{self.model.base_model_prefix}."
        self._names: dict[int, str] = {}
        self._buffers: dict[str, str] = {}
        # GPT-2's layers have their weights as [in, out].
        inputs_first = {id(module.weight) for module in self.model.modules() if isinstance(module, Conv1D)}
        self._turned: set[int] = set()
        persistent = self.model.state_dict().keys()
        for name, tensor in (*self.model.named_parameters(), *self.model.named_buffers()):
            if name not in persistent:
                continue
            # Checkpoints of a base model leave out the prefix.
            found = next((n for n in (name, name.removeprefix(prefix)) if n in shapes), None)
            if found in source.outputs_first and id(tensor) in inputs_first:
                self._turned.add(id(tensor))
            if found is None or shapes[found] != tuple(tensor.shape)[:: -1 if id(tensor) in self._turned else 1]:
                raise NotStreamable(f"{name} {list(tensor.shape)} is not stored as it is")
            if isinstance(tensor, nn.Parameter):
                self._names[id(tensor)] = found
            else:
                self._buffers[name] = found
        known = {*self._names.values(), *persistent, *(name.removeprefix(prefix) for name in persistent)}
        self.unused = sorted(name for name in shapes.keys() - known if not self._is_ignored(name))
        self._items = sum(parameter.numel() for parameter in self.model.parameters())

    def read(self, parameter: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
        """A parameter's numbers. dtype: None: the model's type."""
        self._count(parameter.numel())
        found = self._source.read(self._names[id(parameter)], dtype or self._dtype)
        return found.T.contiguous() if id(parameter) in self._turned else found

    def read_layer(self, parameter: torch.Tensor) -> torch.Tensor | Blocks:
        """The weight of a linear layer: its numbers in the model's type, or blocks [out, in] that it is stored in."""
        self._count(parameter.numel())
        found = self._source.read_layer(self._names[id(parameter)], self._dtype)
        return found.T if id(parameter) in self._turned and isinstance(found, torch.Tensor) else found

    def read_rows(self, parameter: torch.Tensor) -> torch.Tensor | Blocks | StoredRows:
        """As `read_layer`, or rows that are read when they are asked for, where the files allow it."""
        if not isinstance(self._source, SafetensorsSource) or id(parameter) in self._turned:
            return self.read_layer(parameter)
        self._count(parameter.numel())
        return self._source.rows(self._names[id(parameter)], self._dtype)

    def read_expert(self, parameter: torch.Tensor, number: int) -> torch.Tensor | Blocks:
        """One expert's weight [out, in] of a parameter that holds those of all."""
        self._count(parameter[0].numel())
        return self._source.read_expert(self._names[id(parameter)], number, self._dtype)

    def _untie_where_stored_apart(self) -> None:
        """Embeddings and output layer that are tied by the configuration and stored as two that differ are two, as for transformers."""
        head, embeddings = self.model.get_output_embeddings(), self.model.get_input_embeddings()
        if not isinstance(head, nn.Linear) or not isinstance(embeddings, nn.Embedding) or head.weight is not embeddings.weight:
            return
        tied = [name for name, tensor in self.model.named_parameters(remove_duplicate=False) if tensor is head.weight]
        stored = [name for name in tied if name in self._source.shapes]
        if len(stored) == 2 and not self._source.are_equal(stored[0], stored[1]):
            head.weight = nn.Parameter(torch.empty_like(head.weight), requires_grad=False)
            self.model.config.tie_word_embeddings = False

    def _is_ignored(self, name: str) -> bool:
        """Whether transformers leaves such a tensor unread, too: parts of the network that only training uses, and what is computed."""
        patterns = [*(self.model._keys_to_ignore_on_load_unexpected or ()), r"rotary_emb\.inv_freq$"]
        return any(re.search(pattern, name) for pattern in patterns)

    def _count(self, items: int) -> None:
        self._read += items
        self._report(min(1.0, self._read / self._items))  # a tied weight is read once for each of its places

    def fill(self, device: torch.device, dtype: torch.dtype) -> None:
        """Give the model what it does not have yet: parameters that nobody replaced, in `dtype`, and buffers."""
        for name, stored in self._buffers.items():
            owner, _, leaf = name.rpartition(".")
            setattr(self.model.get_submodule(owner), leaf, self._source.read(stored, torch.float32))
        filled: dict[int, nn.Parameter] = {}
        for module in self.model.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                if parameter.is_meta:
                    if id(parameter) not in filled:  # tied ones stay one
                        filled[id(parameter)] = nn.Parameter(self.read(parameter, dtype).to(device), requires_grad=False)
                    setattr(module, name, filled[id(parameter)])
        for module in self.model.modules():
            for name, buffer in list(module.named_buffers(recurse=False)):
                setattr(module, name, buffer.to(device))


def _compute_buffers(model: PreTrainedModel) -> None:
    """Buffers that no checkpoint holds, such as rotary frequencies, in the way that transformers computes them after its own loads."""
    for name, buffer in list(model.named_non_persistent_buffers()):
        owner, _, leaf = name.rpartition(".")
        empty = torch.empty_like(buffer, device="cpu")
        model.get_submodule(owner).register_buffer(leaf, empty.fill_(torch.nan) if empty.is_floating_point() else empty, persistent=False)
    owners = {name.rpartition(".")[0] for name, _ in model.named_non_persistent_buffers()}
    for owner in owners:
        model._init_weights(model.get_submodule(owner))
    left = [name for name, buffer in model.named_non_persistent_buffers() if not buffer.is_floating_point() or buffer.isnan().any()]
    if left:
        raise NotStreamable(f"{left[0]} is computed in a way of its own")


def streamed_weights(
    folder: Path,
    checkpoint: transformers.PreTrainedConfig,
    source: TensorSource,
    dtype: torch.dtype,
    report: Callable[[float], object],
) -> StreamedWeights:
    """The model of a folder, its generation settings read, its weights not yet; `report`: see `read_model`."""
    streamed = StreamedWeights(checkpoint, source, dtype, report)
    if (folder / "generation_config.json").is_file():
        streamed.model.generation_config = transformers.GenerationConfig.from_pretrained(folder)
    streamed.model.eval().requires_grad_(False)
    return streamed
