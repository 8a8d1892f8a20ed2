"""The architectures that are read from GGUF files, a row each: their configuration and their weights in transformers' words.

What llama.cpp's converter does to each of them is undone here
(https://github.com/ggml-org/llama.cpp/tree/master/conversion, formerly convert_hf_to_gguf.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mm_gateway.runtime.checkpoints.gguf.header import GgufHeader

# The parts of a layer, in llama.cpp's words and in transformers'.
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# Experts, which transformers joins: gate and up of one expert lie above each other, those of all behind each other.
_EXPERTS = {
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_exps": "mlp.experts.gate_up_proj",
    "ffn_up_exps": "mlp.experts.gate_up_proj",
    "ffn_gate_up_exps": "mlp.experts.gate_up_proj",
    "ffn_down_exps": "mlp.experts.down_proj",
}
_SHARED_EXPERT = {
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
    "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
    "ffn_up_shexp": "mlp.shared_expert.up_proj",
    "ffn_down_shexp": "mlp.shared_expert.down_proj",
}
_DENSE = ("ffn_gate", "ffn_up", "ffn_down")
_OF_MIXTURE = {name: where for name, where in _LAYER.items() if name not in _DENSE} | _EXPERTS
_MODEL = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_SANDWICH = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}


class Keys:
    """The keys of a file's architecture; remembers which were read, so that one that nobody knows is not overlooked."""

    def __init__(self, header: GgufHeader) -> None:
        self.header = header
        self.read: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, such as `block_count`."""
        self.read.add(key)
        return self.header.get(key, default)

    def need(self, key: str) -> Any:
        """Raises ValueError where the file does not say it."""
        value = self.get(key)
        if value is None:
            raise ValueError(f"{self.header.file.name} lacks {self.header.architecture}.{key}")
        return value


@dataclass(frozen=True)
class Architecture:
    """One row.

    Attributes:
        model_type, class_name: transformers' names for it.
        config: what its config.json would say beyond what all have.
        layer, model: names of weights, llama.cpp's to transformers'. prefix: of a layer, before its number.
        permuted: rows of q and k are stored in the order of rotary embedding in pairs.
        raised_norms: norms are stored with one added. transposed: layers that transformers keeps as [in, out].
    """

    model_type: str
    class_name: str
    config: Callable[[Keys], dict[str, Any]]
    layer: Mapping[str, str] = field(default_factory=lambda: _LAYER)
    model: Mapping[str, str] = field(default_factory=lambda: _MODEL)
    prefix: str = "model.layers."
    permuted: bool = False
    raised_norms: bool = False
    transposed: bool = False

    def weight_name(self, stored: str) -> str | None:
        """transformers' name of a tensor; None for one that is no weight of the network."""
        name, _, kind = stored.rpartition(".")
        if stored.startswith("blk."):
            _, number, leaf = name.split(".", 2)
            if leaf not in self.layer:
                return None
            joined = leaf.endswith("_exps")
            return f"{self.prefix}{number}.{self.layer[leaf]}" + ("" if joined else f".{kind}")
        return f"{self.model[name]}.{kind}" if name in self.model else None

    def is_row(self, stored: str) -> bool:
        """Whether a tensor that is stored as a vector is a matrix of one row: the gate of the expert that all tokens share."""
        return stored.endswith(".ffn_gate_inp_shexp.weight")

    def turned(self, stored: str, shape: tuple[int, ...]) -> bool:
        """Whether transformers keeps a tensor as [in, out]: the matrices of layers, no embedding."""
        return self.transposed and stored.startswith("blk.") and len(shape) == 2


def _decoder(keys: Keys) -> dict[str, Any]:
    """What decoders with rotary embedding and gated layers have in common."""
    heads, width = keys.need("attention.head_count"), keys.need("embedding_length")
    head_dim = keys.get("attention.key_length") or width // heads
    if keys.get("attention.value_length", head_dim) != head_dim:
        raise ValueError("its values are of another width than its keys, which is not read from GGUF")
    return {
        "hidden_size": width,
        "num_hidden_layers": keys.need("block_count"),
        "intermediate_size": keys.need("feed_forward_length"),
        "num_attention_heads": heads,
        "num_key_value_heads": keys.get("attention.head_count_kv") or heads,
        "head_dim": head_dim,
        "rms_norm_eps": keys.need("attention.layer_norm_rms_epsilon"),
        "max_position_embeddings": keys.need("context_length"),
        "rope_parameters": _rope(keys, head_dim),
    }


def _rope(keys: Keys, head_dim: int) -> dict[str, Any]:
    rotated = keys.get("rope.dimension_count", head_dim)
    found: dict[str, Any] = {"rope_type": "default", "rope_theta": keys.get("rope.freq_base", 10000.0)}
    if rotated != head_dim:
        found["partial_rotary_factor"] = rotated / head_dim
    kind = keys.get("rope.scaling.type", "none")
    factor, original = keys.get("rope.scaling.factor"), keys.get("rope.scaling.original_context_length")
    if kind == "linear":
        found |= {"rope_type": "linear", "factor": factor}
    elif kind == "yarn":
        found |= {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}
    elif kind not in ("none", "longrope"):
        raise ValueError(f"its rotary embedding is scaled in a way that is not read from GGUF ({kind})")
    return found


def _llama(keys: Keys) -> dict[str, Any]:
    config = _decoder(keys)
    header = keys.header
    bias = {"attention_bias": "blk.0.attn_q.bias" in header.tensors, "mlp_bias": "blk.0.ffn_gate.bias" in header.tensors}
    return config | bias


def _mixture(keys: Keys, *, normalized: bool) -> dict[str, Any]:
    """normalized: whether llama.cpp scales the weights of a token's experts to a sum of one for this architecture, if it is silent."""
    if "blk.0.ffn_gate.0.weight" in keys.header.tensors:
        raise ValueError("its experts are stored one by one, as files were before April 2024: convert the model again")
    softmax = 1
    if keys.get("expert_gating_func", softmax) != softmax:
        raise ValueError("its experts are chosen in a way that is not read from GGUF")
    if keys.get("expert_weights_scale", 1.0) not in (0.0, 1.0):
        raise ValueError("the weights of its experts are scaled, which is not read from GGUF")
    return {
        "num_experts": keys.need("expert_count"),
        "num_experts_per_tok": keys.need("expert_used_count"),
        "norm_topk_prob": bool(keys.get("expert_weights_norm", normalized)),
    }


def _mixtral(keys: Keys) -> dict[str, Any]:
    found = _mixture(keys, normalized=True)
    if not found.pop("norm_topk_prob"):
        raise ValueError("the weights of its experts are not scaled to a sum of one, which is not read from GGUF for Mixtral")
    return _decoder(keys) | {"num_local_experts": found.pop("num_experts"), **found, "sliding_window": None}


def _qwen2moe(keys: Keys) -> dict[str, Any]:
    inner = {"moe_intermediate_size": keys.need("expert_feed_forward_length")}
    shared = {"shared_expert_intermediate_size": keys.need("expert_shared_feed_forward_length")}
    return _qwen2(keys) | _mixture(keys, normalized=False) | inner | shared | {"qkv_bias": "blk.0.attn_q.bias" in keys.header.tensors}


def _qwen3moe(keys: Keys) -> dict[str, Any]:
    return _qwen3(keys) | _mixture(keys, normalized=True) | {"moe_intermediate_size": keys.need("expert_feed_forward_length")}


def _qwen2(keys: Keys) -> dict[str, Any]:
    return _decoder(keys) | {"use_sliding_window": False}


def _qwen3(keys: Keys) -> dict[str, Any]:
    return _decoder(keys) | {"use_sliding_window": False, "attention_bias": "blk.0.attn_q.bias" in keys.header.tensors}


def _phi3(keys: Keys) -> dict[str, Any]:
    config = _decoder(keys)
    config["sliding_window"] = keys.get("attention.sliding_window") or None
    if config["sliding_window"] is not None and config["sliding_window"] >= config["max_position_embeddings"]:
        config["sliding_window"] = None
    config["original_max_position_embeddings"] = keys.get("rope.scaling.original_context_length", config["max_position_embeddings"])
    keys.get("rope.scaling.attn_factor")  # follows from the two lengths, as transformers computes it
    # Special tokens are the file's; the class's own defaults are those of another vocabulary.
    return config


def _gemma3(keys: Keys) -> dict[str, Any]:
    config = _decoder(keys)
    # The 27B model alone scales its queries by another width than the heads' own, and the file does not say so.
    scale = config["hidden_size"] // config["num_attention_heads"] if config["num_hidden_layers"] == 62 else config["head_dim"]
    whole = config.pop("rope_parameters")
    layers = config["num_hidden_layers"]
    return config | {
        "sliding_window": keys.need("attention.sliding_window"),
        "layer_types": ["full_attention" if (i + 1) % 6 == 0 else "sliding_attention" for i in range(layers)],
        "final_logit_softcapping": keys.get("final_logit_softcapping"),
        "query_pre_attn_scalar": scale,
        "hidden_activation": "gelu_pytorch_tanh",
        # Scaling is that of the layers that see everything; the others rotate by a base of their own, which no key names.
        "rope_parameters": {
            "full_attention": whole,
            "sliding_attention": {"rope_type": "default", "rope_theta": keys.get("rope.freq_base_swa", 10000.0)},
        },
    }


def _granite(keys: Keys) -> dict[str, Any]:
    return _llama(keys) | {
        "embedding_multiplier": keys.get("embedding_scale", 1.0),
        "residual_multiplier": keys.get("residual_scale", 1.0),
        "attention_multiplier": keys.get("attention.scale", 1.0),
        "logits_scaling": keys.get("logit_scale", 1.0),
    }


def _gpt2(keys: Keys) -> dict[str, Any]:
    positions = keys.need("context_length")
    return {
        "n_embd": keys.need("embedding_length"),
        "n_layer": keys.need("block_count"),
        "n_inner": keys.need("feed_forward_length"),
        "n_head": keys.need("attention.head_count"),
        "n_positions": positions,
        "layer_norm_epsilon": keys.need("attention.layer_norm_epsilon"),
    }


ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture("llama", "LlamaForCausalLM", _llama, permuted=True),
    "granite": Architecture("granite", "GraniteForCausalLM", _granite, permuted=True),
    "qwen2": Architecture("qwen2", "Qwen2ForCausalLM", _qwen2),
    "qwen3": Architecture("qwen3", "Qwen3ForCausalLM", _qwen3, layer=_LAYER | _HEAD_NORMS),
    "qwen2moe": Architecture("qwen2_moe", "Qwen2MoeForCausalLM", _qwen2moe, layer=_OF_MIXTURE | _SHARED_EXPERT),
    "qwen3moe": Architecture("qwen3_moe", "Qwen3MoeForCausalLM", _qwen3moe, layer=_OF_MIXTURE | _HEAD_NORMS),
    "phi3": Architecture(
        "phi3",
        "Phi3ForCausalLM",
        _phi3,
        layer=_LAYER | {"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"},
    ),
    "gemma3": Architecture("gemma3_text", "Gemma3ForCausalLM", _gemma3, layer=_LAYER | _SANDWICH | _HEAD_NORMS, raised_norms=True),
    "gpt2": Architecture(
        "gpt2",
        "GPT2LMHeadModel",
        _gpt2,
        layer={
            "attn_norm": "ln_1",
            "attn_qkv": "attn.c_attn",
            "attn_output": "attn.c_proj",
            "ffn_norm": "ln_2",
            "ffn_up": "mlp.c_fc",
            "ffn_down": "mlp.c_proj",
        },
        model={"token_embd": "transformer.wte", "position_embd": "transformer.wpe", "output_norm": "transformer.ln_f", "output": "lm_head"},
        prefix="transformer.h.",
        transposed=True,
    ),
}

_MIXTRAL = Architecture("mixtral", "MixtralForCausalLM", _mixtral, layer=_OF_MIXTURE, permuted=True)


def architecture_of(header: GgufHeader) -> Architecture:
    """Raises ValueError for one that is not read from GGUF."""
    if header.architecture == "llama" and header.get("expert_count"):
        return _MIXTRAL  # which llama.cpp counts as a Llama
    found = ARCHITECTURES.get(header.architecture)
    if found is None:
        raise ValueError(
            f"{header.file.name} holds a model of architecture {header.architecture}; read from GGUF are {', '.join(ARCHITECTURES)}"
        )
    return found
