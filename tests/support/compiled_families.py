"""Configurations of the families that the compiled call computes, in the proportions of real models, a quarter as wide or less."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import (
    Cohere2Config,
    CohereConfig,
    Ernie4_5Config,
    Exaone4Config,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    Glm4Config,
    GPT2Config,
    GPTBigCodeConfig,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    Olmo3Config,
    OlmoConfig,
    Phi3Config,
    PhiConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
    Qwen3MoeConfig,
    SeedOssConfig,
    SmolLM3Config,
    Starcoder2Config,
)

# Of SmolLM2-135M, a quarter as wide.
SHAPE: dict[str, Any] = {
    "vocab_size": 491,
    "hidden_size": 144,
    "num_hidden_layers": 3,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 384,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "rope_theta": 10000.0}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
    "rope_theta": 10000.0,
}


# As many experts as fill no register, of which some get no row.
MIXTURE: dict[str, Any] = {"num_experts": 21, "num_experts_per_tok": 3, "moe_intermediate_size": 48}


def with_changes(**changes: Any) -> dict[str, Any]:
    return SHAPE | changes


GEMMA_3_LAYERS = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]
FAMILIES: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": lambda: LlamaConfig(**SHAPE),
    "llama, tied": lambda: LlamaConfig(**with_changes(tie_word_embeddings=True)),
    "llama, wide heads, one key head": lambda: LlamaConfig(**with_changes(head_dim=64, num_key_value_heads=1)),
    "llama, biases": lambda: LlamaConfig(**SHAPE, attention_bias=True, mlp_bias=True),
    "llama, rope llama3": lambda: LlamaConfig(**SHAPE, rope_parameters=LLAMA3),
    "llama, rope linear": lambda: LlamaConfig(**SHAPE, rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}),
    "qwen2": lambda: Qwen2Config(**SHAPE),
    "qwen2, a window in some layers": lambda: Qwen2Config(**SHAPE, use_sliding_window=True, sliding_window=20, max_window_layers=1),
    "qwen2, yarn": lambda: Qwen2Config(**SHAPE, rope_parameters=YARN),
    "qwen3": lambda: Qwen3Config(**SHAPE, head_dim=32),
    "mistral, a window": lambda: MistralConfig(**SHAPE, sliding_window=20),
    "gemma": lambda: GemmaConfig(**with_changes(head_dim=32, num_key_value_heads=1)),
    "gemma, another name of its activation is null": lambda: GemmaConfig(**with_changes(head_dim=32, hidden_activation=None)),
    "gemma 2": lambda: Gemma2Config(
        **with_changes(head_dim=32, query_pre_attn_scalar=24),
        sliding_window=20,
        attn_logit_softcapping=5.0,
        final_logit_softcapping=3.0,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
    "gemma 2, nothing is capped": lambda: Gemma2Config(
        **with_changes(head_dim=32), sliding_window=20, attn_logit_softcapping=None, final_logit_softcapping=None
    ),
    "gemma 3": lambda: Gemma3TextConfig(
        **with_changes(num_hidden_layers=4, head_dim=32, query_pre_attn_scalar=24), sliding_window=20, layer_types=GEMMA_3_LAYERS
    ),
    "mixtral": lambda: MixtralConfig(**SHAPE, num_local_experts=5, num_experts_per_tok=2),
    "qwen2 moe, a dense layer": lambda: Qwen2MoeConfig(**SHAPE, **MIXTURE, mlp_only_layers=[0], shared_expert_intermediate_size=96),
    "qwen3 moe": lambda: Qwen3MoeConfig(**with_changes(head_dim=32), **MIXTURE, norm_topk_prob=True),
    "phi3": lambda: Phi3Config(**SHAPE, sliding_window=None),
    "phi3, partial rotary": lambda: Phi3Config(
        **with_changes(head_dim=32),
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
    ),
}

# GPT-2 (124M)'s, a quarter as wide.
GPT2: dict[str, Any] = {
    "vocab_size": 491,
    "n_embd": 192,
    "n_layer": 3,
    "n_head": 3,
    "n_positions": 512,
    "initializer_range": 0.14,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
FAMILIES |= {
    "gpt2": lambda: GPT2Config(**GPT2),
    "gpt2, scaled by layer, untied": lambda: GPT2Config(
        **GPT2, scale_attn_by_inverse_layer_idx=True, reorder_and_upcast_attn=True, tie_word_embeddings=False
    ),
    "gpt2, scores as they are, a feed-forward of another width": lambda: GPT2Config(
        **GPT2, scale_attn_weights=False, n_inner=320, activation_function="relu"
    ),
}

HALF_ROTATED = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
# Pythia's: as many heads of keys as of queries, a quarter of each rotated.
NEOX = with_changes(hidden_size=192, num_attention_heads=3, rope_parameters=HALF_ROTATED | {"partial_rotary_factor": 0.25})
MIXED_LAYERS = ["sliding_attention", "full_attention", "sliding_attention"]
FAMILIES |= {
    "gpt neox": lambda: GPTNeoXConfig(**NEOX),
    "gpt neox, one after the other, no biases": lambda: GPTNeoXConfig(**NEOX, use_parallel_residual=False, attention_bias=False),
    "gpt bigcode": lambda: GPTBigCodeConfig(**GPT2),
    "gpt bigcode, a key head for each": lambda: GPTBigCodeConfig(**GPT2, multi_query=False),
    "phi": lambda: PhiConfig(**with_changes(num_key_value_heads=9, head_dim=32, rope_parameters=HALF_ROTATED)),
    "phi, norms of queries": lambda: PhiConfig(**SHAPE, qk_layernorm=True),
    "starcoder 2, a window": lambda: Starcoder2Config(**SHAPE, sliding_window=20),
    "olmo": lambda: OlmoConfig(**SHAPE),
    "olmo, tied, so no parameter but packed ones": lambda: OlmoConfig(**with_changes(tie_word_embeddings=True)),
    "olmo 2": lambda: Olmo2Config(**SHAPE),
    "olmo 3": lambda: Olmo3Config(**SHAPE, sliding_window=20, layer_types=MIXED_LAYERS),
    "exaone 4": lambda: Exaone4Config(**SHAPE, sliding_window=20, layer_types=MIXED_LAYERS),
    "granite": lambda: GraniteConfig(
        **SHAPE, embedding_multiplier=12.0, logits_scaling=8.0, residual_multiplier=0.22, attention_multiplier=0.3
    ),
    "cohere": lambda: CohereConfig(**SHAPE, logit_scale=0.25),
    "cohere 2": lambda: Cohere2Config(**SHAPE, sliding_window=20, layer_types=MIXED_LAYERS),
    "smollm 3": lambda: SmolLM3Config(**SHAPE, no_rope_layers=[1, 0, 1]),
    "glm 4": lambda: Glm4Config(**with_changes(head_dim=32), attention_bias=True),
    "ernie 4.5": lambda: Ernie4_5Config(**SHAPE, use_bias=True),
    "seed oss": lambda: SeedOssConfig(**SHAPE, head_dim=32, attention_bias=True),
}
