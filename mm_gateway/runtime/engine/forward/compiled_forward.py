"""Models on a CPU, computed by one compiled call a step (runtime/kernels/model.py).

Which models: those of the layer classes of compiled_layers/families.py. What differs from model to model is read from their modules and
from what their attention is called with, so a new model of a known family needs nothing here.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence as AbstractSequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from mm_gateway.runtime.checkpoints.packed_linear import KernelLinear, LayerEmbedding
from mm_gateway.runtime.engine.forward.attention_hook import LayerCall
from mm_gateway.runtime.engine.forward.compiled_layers.families import FAMILIES, LayerFamily, family_of
from mm_gateway.runtime.engine.forward.compiled_layers.rotary_tables import RotaryTables
from mm_gateway.runtime.engine.forward.compiled_layers.weights import layer_weights, norm_of
from mm_gateway.runtime.kernels.block_linear import BlockLinear
from mm_gateway.runtime.kernels.decoder import Decoder, DecoderShape
from mm_gateway.runtime.kernels.library import library
from mm_gateway.runtime.kernels.model import Angles, Model, Segment
from mm_gateway.runtime.kv_cache.cache import AttentionShape
from mm_gateway.runtime.kv_cache.slot_cache import SlotKVCache

logger = logging.getLogger(__name__)


class CompiledForward:
    """One model over one cache. Called by the engine's thread, under inference mode.

    Attributes:
        cache: where the step's keys and values go.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        cache: SlotKVCache,
        decoder: Decoder,
        *,
        positions: nn.Module | None,
        rotary: AbstractSequence[RotaryTables],
    ) -> None:
        """positions: embeddings of learned positions. rotary: tables of those that are rotated by."""
        self.cache = cache
        self._embed = model.get_input_embeddings()
        self._positions = positions
        config = model.config.get_text_config()
        self._embedding_factor, self._logit_factor = _factors(config)
        self._logit_cap: float | None = getattr(config, "final_logit_softcapping", None)
        self._head: nn.Module = model.get_output_embeddings()  # type: ignore[assignment]
        self._rotary = rotary
        looked_up, factor = self._looked_up()
        head = self._head.kernel if isinstance(self._head, KernelLinear) else None
        self._model = Model(decoder, embeddings=looked_up, factor=factor, head=head)

    @property
    def is_invariant(self) -> bool:
        """Whether not a bit of a row's logits depends on what is computed beside it."""
        return all(table.is_fixed for table in self._rotary)

    def __call__(
        self, tokens: list[int], positions: list[int], wanted: list[int], segments: AbstractSequence[Segment], *, all_hidden: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute a step.

        Args:
            tokens, positions: of each row. wanted: rows whose logits are. segments: whose rows they are; they cover them all.
            all_hidden: the last hidden states of all rows are wanted too.

        Returns:
            Logits [wanted, vocabulary], [0, 0] where none are, and the last hidden states [rows, hidden], of rows that are wanted; fp32.
        """
        given = None if self._model.looks_up else self._embeddings(tokens, positions)
        x, logits = self._model(tokens, self._angles(positions), segments, wanted, given, all_hidden=all_hidden)
        if not wanted:
            return x.new_empty(0, 0), x
        if logits is None:
            logits = self._head(x[torch.tensor(wanted)]).float()
        if self._logit_factor != 1:
            logits = logits * self._logit_factor
        if self._logit_cap is not None:
            logits = self._logit_cap * torch.tanh(logits / self._logit_cap)
        return logits, x

    def _looked_up(self) -> tuple[BlockLinear | None, float]:
        """The layer that embeddings are looked up in by the call, and their factor; None where more is done to them than that."""
        embed = self._embed
        if not isinstance(embed, LayerEmbedding) or self._positions is not None or 1 not in (embed.scale, self._embedding_factor):
            return None, 1.0
        return embed.kernel, embed.scale * self._embedding_factor

    def _embeddings(self, tokens: list[int], positions: list[int]) -> torch.Tensor:
        x: torch.Tensor = self._embed(torch.tensor(tokens)).float()
        if self._positions is not None:
            x = x + self._positions(torch.tensor(positions)).float()
        return (x if self._embedding_factor == 1 else x * self._embedding_factor).contiguous()

    def _angles(self, positions: list[int]) -> Angles:
        if self.is_invariant:
            last = max(positions)
            return Angles([table.whole(last) for table in self._rotary], positions)
        at = torch.tensor(positions)
        return Angles([table.of(at) for table in self._rotary], range(len(positions)))


def compile_forward(
    model: PreTrainedModel, cache: object, shape: AttentionShape, calls: AbstractSequence[LayerCall]
) -> CompiledForward | None:
    """The compiled form of a model; None where it is of no family that is known, or where something of it is not.

    Args:
        calls: what each layer's attention is called with.
    """
    if not isinstance(cache, SlotKVCache) or library() is None:
        return None
    try:
        base: Any = model.base_model
        layers, families = _layers(base)
        first = families[0]
        rotary, rotary_of = _rotary(base, families)
        sizes = DecoderShape(
            hidden=model.get_input_embeddings().embedding_dim,  # type: ignore[arg-type]
            heads=shape.heads,
            kv_heads=shape.kv_heads,
            head_dim=shape.head_dim,
            rotary_dim=rotary[0].width if rotary else 0,
            activation=_activation(model.config.get_text_config()),
            neighbours=first.neighbours,
            gated=first.gated,
            parallel=first.parallel,
            grouped=first.grouped,
            factor=getattr(layers[0], "residual_multiplier", 1.0),
        )
        weights = [layer_weights(*of_layer) for of_layer in zip(layers, families, calls, rotary_of, strict=True)]
        decoder = Decoder(sizes, weights, norm_of(getattr(base, first.last_norm)), cache.layers, cache.cells)
        positions = None if first.positions is None else getattr(base, first.positions)
        return CompiledForward(model, cache, decoder, positions=positions, rotary=rotary)
    except (AttributeError, TypeError, ValueError) as reason:
        logger.info("%s is computed by its modules: %s", type(model).__name__, reason)
        return None


def _layers(base: Any) -> tuple[list[nn.Module], list[LayerFamily]]:
    """The layers of a model, which lie in a list of a known name, and the family of each."""
    for name in {family.layers for family in FAMILIES.values()}:
        found: list[nn.Module] = list(getattr(base, name, ()))
        families = [family for layer in found if (family := family_of(layer)) is not None]
        if found and len(families) == len(found):
            return found, families
    raise TypeError("layers of another family")


def _activation(config: Any) -> str:
    names = ("hidden_activation", "hidden_act", "activation_function")
    return next(found for name in names if (found := getattr(config, name, None)) is not None)  # some name one and say null


def _factors(config: Any) -> tuple[float, float]:
    """Of embeddings and of logits: Granite and Cohere have some."""
    return getattr(config, "embedding_multiplier", 1.0), getattr(config, "logit_scale", 1.0) / getattr(config, "logits_scaling", 1.0)


def _rotary(base: Any, families: list[LayerFamily]) -> tuple[list[RotaryTables], list[int]]:
    """The tables of a model, and which of them each layer takes: Gemma 3 has one for layers with a window, one for the others."""
    if not any(family.rotated for family in families):
        return [], [0] * len(families)
    module = base.rotary_emb
    if not isinstance(module.rope_type, dict):
        return [RotaryTables(module)], [0] * len(families)
    kinds = sorted(module.rope_type)
    return [RotaryTables(module, kind) for kind in kinds], [kinds.index(kind) for kind in base.config.layer_types]
