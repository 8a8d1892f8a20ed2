"""Layer classes of transformers that the compiled call computes: a row each, of what its parts are called and how they stand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class LayerFamily:
    """Names are those of attributes; norms that a family has not got are None.

    Attributes:
        attention, feed_forward: modules of a layer. qkv, output: projections of the attention. gate_up, down: of the feed-forward.
        gated, parallel, neighbours, grouped: as in `DecoderShape`. rotated: whether queries and keys are.
        layers, last_norm, positions: of the model; the latter are embeddings of learned positions.
    """

    attention: str = "self_attn"
    qkv: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    output: str = "o_proj"
    query_norm: str = "q_norm"
    key_norm: str = "k_norm"
    feed_forward: str = "mlp"
    gate_up: tuple[str, ...] = ("gate_proj", "up_proj")
    down: str = "down_proj"
    attention_norm: str | None = "input_layernorm"
    feed_forward_norm: str | None = "post_attention_layernorm"
    after_attention_norm: str | None = None
    after_feed_forward_norm: str | None = None
    gated: bool = True
    parallel: bool = False
    neighbours: bool = False
    grouped: bool = False
    rotated: bool = True
    layers: str = "layers"
    last_norm: str = "norm"
    positions: str | None = None


_LLAMA = LayerFamily()
_GPT2 = LayerFamily(
    attention="attn",
    qkv=("c_attn",),
    output="c_proj",
    gate_up=("c_fc",),
    down="c_proj",
    attention_norm="ln_1",
    feed_forward_norm="ln_2",
    gated=False,
    rotated=False,
    layers="h",
    last_norm="ln_f",
    positions="wpe",
)
_NORMS_AFTER = LayerFamily(
    attention_norm=None,
    feed_forward_norm=None,
    after_attention_norm="post_attention_layernorm",
    after_feed_forward_norm="post_feedforward_layernorm",
)
_GEMMA2 = LayerFamily(
    feed_forward_norm="pre_feedforward_layernorm",
    after_attention_norm="post_attention_layernorm",
    after_feed_forward_norm="post_feedforward_layernorm",
)
_COHERE = LayerFamily(feed_forward_norm="input_layernorm", parallel=True, neighbours=True)

FAMILIES: Mapping[str, LayerFamily] = {
    "LlamaDecoderLayer": _LLAMA,
    "MistralDecoderLayer": _LLAMA,
    "Qwen2DecoderLayer": _LLAMA,
    "Qwen3DecoderLayer": _LLAMA,
    "MixtralDecoderLayer": _LLAMA,
    "Qwen2MoeDecoderLayer": _LLAMA,
    "Qwen3MoeDecoderLayer": _LLAMA,
    "Phi3DecoderLayer": LayerFamily(qkv=("qkv_proj",), gate_up=("gate_up_proj",)),
    "GraniteDecoderLayer": _LLAMA,
    "SmolLM3DecoderLayer": _LLAMA,
    "SeedOssDecoderLayer": _LLAMA,
    "OlmoDecoderLayer": _LLAMA,
    "Olmo2DecoderLayer": _NORMS_AFTER,
    "Olmo3DecoderLayer": _NORMS_AFTER,
    "Exaone4DecoderLayer": _NORMS_AFTER,
    "Ernie4_5DecoderLayer": LayerFamily(neighbours=True),
    "CohereDecoderLayer": _COHERE,
    "Cohere2DecoderLayer": _COHERE,
    "Glm4DecoderLayer": LayerFamily(
        gate_up=("gate_up_proj",),
        after_attention_norm="post_self_attn_layernorm",
        after_feed_forward_norm="post_mlp_layernorm",
        neighbours=True,
    ),
    "GemmaDecoderLayer": _LLAMA,
    "Gemma2DecoderLayer": _GEMMA2,
    "Gemma3DecoderLayer": _GEMMA2,
    "GPT2Block": _GPT2,
    "GPTBigCodeBlock": _GPT2,
    "GPTNeoXLayer": LayerFamily(
        attention="attention",
        qkv=("query_key_value",),
        output="dense",
        gate_up=("dense_h_to_4h",),
        down="dense_4h_to_h",
        gated=False,
        grouped=True,
        last_norm="final_layer_norm",
    ),
    "PhiDecoderLayer": LayerFamily(
        output="dense",
        query_norm="q_layernorm",
        key_norm="k_layernorm",
        gate_up=("fc1",),
        down="fc2",
        feed_forward_norm="input_layernorm",
        gated=False,
        parallel=True,
        last_norm="final_layernorm",
    ),
    "Starcoder2DecoderLayer": LayerFamily(gate_up=("c_fc",), down="c_proj", gated=False),
}
"""By the name of the class."""

# What a layer's own settings say, beyond its family.
_OF_LAYERS: Mapping[str, Callable[[Any], dict[str, Any]]] = {
    "GPTNeoXLayer": lambda layer: {"parallel": layer.use_parallel_residual},
    "GPTBigCodeBlock": lambda layer: {"grouped": not layer.attn.multi_query},
    "SmolLM3DecoderLayer": lambda layer: {"rotated": bool(layer.self_attn.use_rope)},
    "Cohere2DecoderLayer": lambda layer: {"rotated": layer.self_attn.sliding_window is not None},
    "Exaone4DecoderLayer": lambda layer: {"rotated": layer.self_attn.sliding_window is None or layer.self_attn.is_sliding},
}


def family_of(layer: object) -> LayerFamily | None:
    """None: the call does not compute such layers."""
    name = type(layer).__name__
    # Not of another library that borrows the name.
    if not is_of_transformers(layer) or name not in FAMILIES or hasattr(layer, "crossattention"):
        return None
    return replace(FAMILIES[name], **_OF_LAYERS[name](layer)) if name in _OF_LAYERS else FAMILIES[name]


def is_of_transformers(module: object) -> bool:
    """Whether its class is one of the library's own models."""
    return type(module).__module__.startswith("transformers.models.")
