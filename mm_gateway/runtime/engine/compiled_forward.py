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

from mm_gateway.runtime.checkpoints.packed_experts import PackedExperts
from mm_gateway.runtime.checkpoints.packed_linear import KernelLinear
from mm_gateway.runtime.checkpoints.packing import JoinedMember
from mm_gateway.runtime.engine.attention_hook import LayerCall
from mm_gateway.runtime.engine.rotary_tables import RotaryTables
from mm_gateway.runtime.kernels.block_linear import BlockLinear
from mm_gateway.runtime.kernels.decoder import Decoder, DecoderShape, LayerWeights, MixtureWeights, Segment
from mm_gateway.runtime.kernels.library import library
from mm_gateway.runtime.kv_cache.cache import AttentionShape
from mm_gateway.runtime.kv_cache.slot_cache import SlotKVCache

logger = logging.getLogger(__name__)

# Layer classes of transformers: x += attention(norm(x)), x += feed_forward(norm(x)), with rotary positions; Gemma 3 norms what it adds.
_FAMILIES = {
    "LlamaDecoderLayer",
    "MistralDecoderLayer",
    "Qwen2DecoderLayer",
    "Qwen3DecoderLayer",
    "Phi3DecoderLayer",
    "GemmaDecoderLayer",
    "Gemma3DecoderLayer",
    "MixtralDecoderLayer",
    "Qwen2MoeDecoderLayer",
    "Qwen3MoeDecoderLayer",
}

MOST_ROWS = 256
"""Rows of one call: more give nothing, and take memory for what stands between the products."""


class CompiledForward:
    """One model over one cache. Called by the engine's thread, under inference mode.

    Attributes:
        cache: where the step's keys and values go.
    """

    def __init__(self, model: PreTrainedModel, cache: SlotKVCache, decoder: Decoder, rotary: AbstractSequence[RotaryTables]) -> None:
        self.cache = cache
        self._embed = model.get_input_embeddings()
        self._head: nn.Module = model.get_output_embeddings()  # type: ignore[assignment]
        self._decoder = decoder
        self._rotary = rotary

    @property
    def is_invariant(self) -> bool:
        """Whether not a bit of a row's logits depends on what is computed beside it."""
        return all(table.is_fixed for table in self._rotary)

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
        tables = [table(torch.tensor(positions)) for table in self._rotary]
        for first in range(0, len(tokens), MOST_ROWS):
            rows = slice(first, first + MOST_ROWS)
            self._decoder(x[rows], [(cosines[rows], sines[rows]) for cosines, sines in tables], _within(segments, first, first + MOST_ROWS))
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
        rotary, rotary_of = _rotary(base, len(layers))
        sizes = DecoderShape(
            hidden=model.get_input_embeddings().embedding_dim,  # type: ignore[arg-type]
            heads=shape.heads,
            kv_heads=shape.kv_heads,
            head_dim=shape.head_dim,
            rotary_dim=rotary[0].width,
            activation=_activation(model.config.get_text_config()),
            epsilon=base.norm.eps if _is_gemma(layers[0]) else base.norm.variance_epsilon,
        )
        if not sizes.computable:
            return None
        weights = [_layer(layer, call, table) for layer, call, table in zip(layers, calls, rotary_of, strict=True)]
        last_norm = _norm_weight(layers[0], base.norm)
        assert last_norm is not None
        return CompiledForward(model, cache, Decoder(sizes, weights, last_norm, cache.layers, cache.cells), rotary)
    except (AttributeError, TypeError, ValueError) as reason:
        logger.info("%s is computed by its modules: %s", type(model).__name__, reason)
        return None


def _is_transformers(module: nn.Module) -> bool:
    return type(module).__module__.startswith("transformers.models.")


def _is_gemma(layer: nn.Module) -> bool:
    return type(layer).__name__.startswith("Gemma")


def _activation(config: Any) -> str:
    return config.hidden_activation if hasattr(config, "hidden_activation") else config.hidden_act


def _rotary(base: Any, layers: int) -> tuple[list[RotaryTables], list[int]]:
    """The tables of a model, and which of them each layer takes: Gemma 3 has one for layers with a window, one for the others."""
    module = base.rotary_emb
    if not isinstance(module.rope_type, dict):
        return [RotaryTables(module)], [0] * layers
    kinds = sorted(module.rope_type)
    return [RotaryTables(module, kind) for kind in kinds], [kinds.index(kind) for kind in base.config.layer_types]


def _norm_weight(layer: nn.Module, norm: Any) -> torch.Tensor | None:
    """What a norm multiplies with: Gemma's are stored as what is added to one."""
    if norm is None:
        return None
    return norm.weight.float() + 1 if _is_gemma(layer) else norm.weight


def _layer(layer: Any, call: LayerCall, table: int) -> LayerWeights:
    attention = layer.self_attn
    gate_up, down, mixture = _feed_forward(layer.mlp)
    query_norm, key_norm = (_norm_weight(layer, getattr(attention, name, None)) for name in ("q_norm", "k_norm"))
    attention_norm, after_attention = (_norm_weight(layer, norm) for norm in (layer.input_layernorm, layer.post_attention_layernorm))
    feed_forward_norm, after_feed_forward = (
        _norm_weight(layer, getattr(layer, name, None)) for name in ("pre_feedforward_layernorm", "post_feedforward_layernorm")
    )
    if feed_forward_norm is None:  # what all but Gemma 3 call post_attention_layernorm stands before the feed-forward
        feed_forward_norm, after_attention = after_attention, None
    assert attention_norm is not None
    assert feed_forward_norm is not None
    return LayerWeights(
        qkv=_projection(attention, *(["qkv_proj"] if hasattr(attention, "qkv_proj") else ["q_proj", "k_proj", "v_proj"])),
        output=_projection(attention, "o_proj"),
        gate_up=gate_up,
        down=down,
        mixture=mixture,
        attention_norm=attention_norm,
        feed_forward_norm=feed_forward_norm,
        query_norm=query_norm,
        key_norm=key_norm,
        after_attention_norm=after_attention,
        after_feed_forward_norm=after_feed_forward,
        rotary=table,
        window=call.window,
        scale=call.scaling,
    )


def _feed_forward(module: Any) -> tuple[list[BlockLinear], list[BlockLinear], MixtureWeights | None]:
    """A layer's own gate and up, its down, and its experts."""
    if not hasattr(module, "experts"):
        names = ["gate_up_proj"] if hasattr(module, "gate_up_proj") else ["gate_proj", "up_proj"]
        return _projection(module, *names), _projection(module, "down_proj"), None
    experts, router = module.experts, module.gate
    if not isinstance(experts, PackedExperts) or not _is_transformers(module):
        raise TypeError(f"{type(experts).__name__} are experts of another kind")
    shared = getattr(module, "shared_expert", None)
    mixture = MixtureWeights(
        BlockLinear(router.weight.detach().float(), None),
        *([_kernel("an expert", layer) for layer in layers] for layers in (experts.gate_up, experts.down)),
        chosen=router.top_k,
        # Mixtral's router has no word for it, and does.
        normalized=getattr(router, "norm_topk_prob", True),
        shared_gate=None if shared is None else _kernel("shared_expert_gate", module.shared_expert_gate),
    )
    gate_up, down, _ = ([], [], None) if shared is None else _feed_forward(shared)
    return gate_up, down, mixture


def _kernel(name: str, layer: object) -> BlockLinear:
    if not isinstance(layer, KernelLinear):
        raise TypeError(f"{name} is computed by {type(layer).__name__}")
    return layer.kernel


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
        found.append(_kernel(name, layer))
    return found
