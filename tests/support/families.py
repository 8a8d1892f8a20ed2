"""Architectures of transformers that were tried: the tests run over these tables, and docs/models.md is made from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers

from tests.support.checkpoints import make_tokenizer

# Proportions of real small models: heads that are no power of two, three of them to one of keys and values, as SmolLM2 has them.
SHAPE: Mapping[str, Any] = {
    "hidden_size": 144,
    "num_hidden_layers": 3,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 400,
    "max_position_embeddings": 128,
    "initializer_range": 0.15,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


@dataclass(frozen=True)
class Family:
    """name: of its class, without `Config`. changes: of SHAPE. notes: for people."""

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    notes: str = ""

    @property
    def architecture(self) -> str:
        """As config.json says it."""
        return "GPT2LMHeadModel" if self.name == "GPT2" else f"{self.name.removesuffix('Text')}ForCausalLM"


_GPT = {"n_embd": 144, "n_layer": 3, "n_head": 9, "n_positions": 128}
_DEEPSEEK = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "kv_lora_rank": 16,
    "q_lora_rank": 24,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "num_key_value_heads": 9,
    "moe_intermediate_size": 48,
    "first_k_dense_replace": 1,
}
_WIDE_HEADS = {"head_dim": 32}

SERVED = (
    Family("GPT2", _GPT, "Conv1D layers; chat by lines, `User:` / `Assistant:`"),
    Family("Llama", notes="tied and untied; Llama 2's chat format or the checkpoint's own; SmolLM2 is one"),
    Family("Qwen2", notes="ChatML"),
    Family("Qwen3", _WIDE_HEADS),
    Family("Qwen3Moe", {**_WIDE_HEADS, "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 48}),
    Family("Mistral", {"sliding_window": 16}, "sliding window"),
    Family("Mixtral", {"num_local_experts": 4}),
    Family("Phi", {"num_key_value_heads": 9}),
    Family("Phi3"),
    Family("Gemma", _WIDE_HEADS),
    Family(
        "Gemma2",
        {**_WIDE_HEADS, "sliding_window": 16},
        "soft-capped scores; on a CPU, with [its kernels](install.md#a-compiler-for-the-kernels-of-a-cpu)",
    ),
    Family("Gemma3Text", {**_WIDE_HEADS, "sliding_window": 16}, "text only; sliding windows"),
    Family("GPTNeoX"),
    Family("OPT", {"ffn_dim": 400, "word_embed_proj_dim": 144}),
    Family("Olmo"),
    Family("Olmo2"),
    Family("Granite"),
    Family("Cohere"),
    Family("Starcoder2"),
    Family("GPTBigCode", _GPT, "one head of keys and values"),
    Family("SmolLM3"),
    Family("Glm4"),
    Family("Exaone4"),
    Family("Cohere2", {"sliding_window": 16}),
    Family("Olmo3", {"sliding_window": 16}),
    Family("Qwen2Moe", {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 48, "shared_expert_intermediate_size": 48}),
    Family("Ernie4_5"),
    Family("SeedOss"),
    Family("Ministral3"),
    Family("Glm4Moe", {**_DEEPSEEK, "head_dim": 16, "num_key_value_heads": 3}),
    Family("Glm4MoeLite", _DEEPSEEK, "latent attention"),
    Family("DeepseekV3", _DEEPSEEK, "latent attention: values narrower than keys; experts"),
)
_NOT_TAKEN_OVER = "transformers' class does not let its attention be taken over"
_STATE = "linear attention keeps a state that the KV cache does not hold"
REFUSED = (
    Family(
        "GptOss",
        {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16},
        "attention sinks are not what the engine's attention computes",
    ),
    Family("Bloom", notes=_NOT_TAKEN_OVER),
    Family("Falcon", {"alibi": False}, _NOT_TAKEN_OVER),
    Family("GPTJ", {**_GPT, "rotary_dim": 8}, _NOT_TAKEN_OVER),
    Family("StableLm", notes=_NOT_TAKEN_OVER),
    Family("Mamba", notes="no attention at all"),
    Family("Lfm2", {"layer_types": ["conv", "conv", "full_attention"]}, "convolutions keep a state that the KV cache does not hold"),
    Family("Qwen3Next", notes=_STATE),
    Family("Qwen3_5Text", notes=_STATE),
)


def make_family(folder: Path, family: Family) -> Path:
    """A checkpoint with random weights, whose biases and norms are not those that they begin with."""
    tokenizer = make_tokenizer(["<unk>", "<s>", "</s>"], unk_token="<unk>", bos_token="<s>", eos_token="</s>", vocab_size=487)
    torch.manual_seed(0)
    config = getattr(transformers, f"{family.name}Config")(vocab_size=len(tokenizer), **{**SHAPE, **family.changes})
    model = getattr(transformers, family.architecture)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.generation_config.do_sample = False
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
