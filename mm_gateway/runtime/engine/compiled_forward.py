"""Llama-shaped models on a CPU, their layers computed by one compiled call a step (runtime/kernels/decoder.py).

Which models: those of transformers' own layer classes below, whose forward is what native/decoder.h computes. What differs from model to
model is read from their modules and from what their attention is called with, so a new model of a known family needs nothing here.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence as AbstractSequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from mm_gateway.runtime.checkpoints.packed_linear import KernelLinear
from mm_gateway.runtime.checkpoints.packing import JoinedMember
from mm_gateway.runtime.engine.attention_hook import LayerCall
from mm_gateway.runtime.engine.rotary_tables import RotaryTables
from mm_gateway.runtime.kernels.block_linear import BlockLinear
from mm_gateway.runtime.kernels.decoder import Decoder, DecoderShape, LayerWeights, Segment
from mm_gateway.runtime.kernels.library import library
from mm_gateway.runtime.kv_cache.cache import AttentionShape
from mm_gateway.runtime.kv_cache.slot_cache import SlotKVCache

logger = logging.getLogger(__name__)

# Layer classes of transformers: x += attention(norm(x)), x += feed_forward(norm(x)), with rotary positions.
_FAMILIES = {"LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer", "Phi3DecoderLayer"}

MOST_ROWS = 256
"""Rows of one call: more give nothing, and take memory for what stands between the products."""


class CompiledForward:
    """One model over one cache. Called by the engine's thread, under inference mode.

    Attributes:
        cache: where the step's keys and values go.
    """

    def __init__(self, model: PreTrainedModel, cache: SlotKVCache, decoder: Decoder, rotary: RotaryTables) -> None:
        self.cache = cache
        self._embed = model.get_input_embeddings()
        self._head: nn.Module = model.get_output_embeddings()  # type: ignore[assignment]
        self._decoder = decoder
        self._rotary = rotary

    def __call__(
        self, tokens: list[int], positions: list[int], wanted: list[int], segments: AbstractSequence[Segment]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute a step.

        Args:
            tokens, positions: of each row. wanted: rows whose logits are. segments: whose rows they are; they cover them all.

        Returns:
            Logits [wanted, vocabulary], and the last hidden states [rows, hidden], fp32.
        """
        x: torch.Tensor = self._embed(torch.tensor(tokens)).float().contiguous()
        cosines, sines = self._rotary(torch.tensor(positions))
        for first in range(0, len(tokens), MOST_ROWS):
            rows = slice(first, first + MOST_ROWS)
            self._decoder(x[rows], [(cosines[rows], sines[rows])], _within(segments, first, first + MOST_ROWS))
        return self._head(x[torch.tensor(wanted)]).float(), x


def _within(segments: AbstractSequence[Segment], first: int, last: int) -> list[Segment]:
    """The parts of segments in rows `first` to `last`, counted from `first`."""
    parts: list[Segment] = []
    for segment in segments:
        start, stop = max(segment.first_row, first), min(segment.first_row + segment.rows, last)
        if start < stop:
            parts.append(Segment(start - first, stop - start, segment.start + start - segment.first_row, segment.cache_row))
    return parts


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
        layers = list(base.layers)
        if {type(layer).__name__ for layer in layers} - _FAMILIES or any(not _is_transformers(layer) for layer in layers):
            return None
        sizes = DecoderShape(
            hidden=model.get_input_embeddings().embedding_dim,  # type: ignore[arg-type]
            heads=shape.heads,
            kv_heads=shape.kv_heads,
            head_dim=shape.head_dim,
            rotary_dim=2 * len(base.rotary_emb.inv_freq),
            feed_forward=layers[0].mlp.down_proj.in_features,
            activation=model.config.get_text_config().hidden_act,
            epsilon=base.norm.variance_epsilon,
        )
        if not sizes.computable:
            return None
        weights = [_layer(layer, call) for layer, call in zip(layers, calls, strict=True)]
        return CompiledForward(model, cache, Decoder(sizes, weights, base.norm.weight, cache.layers), RotaryTables(base.rotary_emb))
    except (AttributeError, TypeError, ValueError) as reason:
        logger.info("%s is computed by its modules: %s", type(model).__name__, reason)
        return None


def _is_transformers(module: nn.Module) -> bool:
    return type(module).__module__.startswith("transformers.models.")


def _layer(layer: Any, call: LayerCall) -> LayerWeights:
    attention, feed_forward = layer.self_attn, layer.mlp
    norms = (getattr(attention, name, None) for name in ("q_norm", "k_norm"))
    query_norm, key_norm = (norm.weight if norm is not None else None for norm in norms)
    return LayerWeights(
        qkv=_projection(attention, *(["qkv_proj"] if hasattr(attention, "qkv_proj") else ["q_proj", "k_proj", "v_proj"])),
        output=_projection(attention, "o_proj"),
        gate_up=_projection(feed_forward, *(["gate_up_proj"] if hasattr(feed_forward, "gate_up_proj") else ["gate_proj", "up_proj"])),
        down=_projection(feed_forward, "down_proj"),
        attention_norm=layer.input_layernorm.weight,
        feed_forward_norm=layer.post_attention_layernorm.weight,
        query_norm=query_norm,
        key_norm=key_norm,
        window=call.window,
        scale=call.scaling,
    )


def _projection(module: Any, *names: str) -> list[BlockLinear]:
    """The kernels of these layers of a module, whose outputs stand one after the other in that order."""
    found: list[BlockLinear] = []
    expected = 0  # members of a joined layer that are still to come
    for name in names:
        layer: Any = getattr(module, name)
        if isinstance(layer, JoinedMember):
            if layer.index == 0:
                expected, layer = layer.group.count, layer.group.linear
            elif layer.index != layer.group.count - expected:
                raise TypeError(f"{name} is joined in another order")
            expected -= 1
        if isinstance(layer, JoinedMember):
            continue
        if not isinstance(layer, KernelLinear):
            raise TypeError(f"{name} is computed by {type(layer).__name__}")
        found.append(layer.kernel)
    return found
