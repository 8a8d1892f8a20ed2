"""What is proved to be read from GGUF files: kinds of blocks, and architectures. Tests run over both, docs/models.md is made of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gguf
import numpy as np
import transformers
from gguf import GGMLQuantizationType as Kind
from transformers import PreTrainedConfig
from transformers.integrations.gguf.dequant import GGML_NAME

_TESTS = "tests.runtime.checkpoints.gguf"
_EVERY_NUMBER = {f"{_TESTS}.test_header.test_each_kind_of_blocks_is_unpacked_as_another_reader_does": "every number"}
_WHOLE_MODELS = {
    f"{_TESTS}.test_kinds.test_a_model_computes_what_its_blocks_stand_for": "logits",
    f"{_TESTS}.test_kinds.test_it_is_held_as_it_is_said_and_takes_the_memory_that_was_foreseen": "memory within 5 %",
}
_ARCHITECTURES = {
    f"{_TESTS}.test_architectures.test_each_architecture_computes_what_its_model_did": "logits, token ids",
}
_MIXTURES = {
    f"{_TESTS}.test_architectures.test_mixtures_of_experts_write_what_transformers_writes": "greedy text",
    f"{_TESTS}.test_architectures.test_experts_stay_in_their_blocks": "experts in their blocks, memory within 5 %",
}

# Where a block has its scale, a number of 16 bits.
_SCALE_AT: Mapping[Kind, int] = {
    **dict.fromkeys((Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1, Kind.Q8_0, Kind.Q4_K, Kind.Q5_K, Kind.IQ4_NL, Kind.IQ4_XS), 0),
    **dict.fromkeys((Kind.IQ3_S, Kind.IQ3_XXS, Kind.IQ2_S, Kind.IQ2_XS, Kind.IQ2_XXS, Kind.IQ1_S), 0),
    **{Kind.Q6_K: 208, Kind.Q3_K: 108, Kind.Q2_K: 80, Kind.TQ2_0: 64, Kind.TQ1_0: 52},
}
# What the minimum beside it is for numbers around zero, as a multiple of the scale.
_MINIMUM: Mapping[Kind, float] = {Kind.Q4_1: -7.5, Kind.Q5_1: -15.5, Kind.Q2_K: 1.5, Kind.Q4_K: 7.5, Kind.Q5_K: 15.5}
_OF_NUMBERS = (Kind.F32, Kind.F16, Kind.BF16)
KINDS: tuple[Kind, ...] = (
    *_OF_NUMBERS,
    *(Kind.Q8_0, Kind.Q6_K, Kind.Q5_K, Kind.Q4_K, Kind.Q3_K, Kind.Q2_K, Kind.Q5_1, Kind.Q5_0, Kind.Q4_1, Kind.Q4_0),
    *(Kind.IQ4_NL, Kind.IQ4_XS, Kind.IQ3_S, Kind.IQ3_XXS, Kind.IQ2_S, Kind.IQ2_XS, Kind.IQ2_XXS, Kind.IQ1_M, Kind.IQ1_S),
    *(Kind.TQ2_0, Kind.TQ1_0, Kind.MXFP4),
)


def proofs_of_kind(kind: Kind) -> Mapping[str, str]:
    """What is proved, by the test that does: of kinds that another reader knows, its numbers too."""
    return (_EVERY_NUMBER if kind.name in GGML_NAME.values() else {}) | _WHOLE_MODELS


def proofs_of_architecture(name: str) -> Mapping[str, str]:
    """Of one of `configurations`."""
    return _ARCHITECTURES | (_MIXTURES if name in MIXTURES else {})


def random_blocks(kind: Kind, rows: int, columns: int, *, deviation: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """A matrix of a kind as it is stored [rows, bytes], every bit by chance, and the numbers that it stands for by the package gguf.

    Args:
        deviation: of the numbers, about.
    """
    chance = np.random.default_rng(int(kind))
    if kind in _OF_NUMBERS:
        stored = gguf.quantize((chance.standard_normal((rows, columns)) * deviation).astype(np.float32), kind)
        return stored, gguf.dequantize(stored, kind).reshape(rows, columns)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = chance.integers(0, 256, (rows * columns // block, size), dtype=np.uint8)
    factors = chance.uniform(0.5, 1.5, len(blocks))
    _set_scales(blocks, kind, factors)
    if kind != Kind.MXFP4:  # whose scales are powers of two
        _set_scales(blocks, kind, factors * deviation / float(gguf.dequantize(blocks, kind).std()))
    stored = blocks.reshape(rows, -1)
    return stored, gguf.dequantize(stored, kind).reshape(rows, columns)


def _set_scales(blocks: np.ndarray, kind: Kind, scales: np.ndarray) -> None:
    """scales [blocks]."""
    if kind == Kind.MXFP4:
        blocks[:, 0] = 122 + np.round(np.log2(scales))  # exponents; about 0.1
        return
    halves = scales.astype(np.float16)
    if kind == Kind.IQ1_M:  # four bits of the scale above those of each of four other words
        words = blocks[:, 48:].copy().view(np.uint16)
        for place in range(4):
            words[:, place] = (words[:, place] & 0x0FFF) | ((halves.view(np.uint16) >> (4 * place) & 15) << 12)
        blocks[:, 48:] = words.view(np.uint8)
        return
    at = _SCALE_AT[kind]
    blocks[:, at : at + 2] = halves[:, None].view(np.uint8)
    if kind in _MINIMUM:
        blocks[:, at + 2 : at + 4] = (halves * np.float16(_MINIMUM[kind]))[:, None].view(np.uint8)


SHAPE: dict[str, Any] = {
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": None,
}


def configurations(vocab_size: int) -> dict[str, PreTrainedConfig]:
    """By the architecture's name in the file, or Mixtral's; behind a comma what is special."""
    shape: dict[str, Any] = {"vocab_size": vocab_size, **SHAPE}
    experts: dict[str, Any] = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 96}
    deep: dict[str, Any] = {**shape, "num_hidden_layers": 7}
    return {
        "llama": transformers.LlamaConfig(**shape, tie_word_embeddings=False),
        "llama, tied": transformers.LlamaConfig(**shape, tie_word_embeddings=True, attention_bias=True),
        "llama, heads of their own width": transformers.LlamaConfig(**shape, head_dim=64),
        "granite": transformers.GraniteConfig(
            **shape, embedding_multiplier=6.0, residual_multiplier=0.3, attention_multiplier=0.1, logits_scaling=4.0
        ),
        "qwen2": transformers.Qwen2Config(**shape),
        "qwen3": transformers.Qwen3Config(**shape, head_dim=64),
        "mixtral": transformers.MixtralConfig(**shape, num_local_experts=5, num_experts_per_tok=2),
        "qwen2moe": transformers.Qwen2MoeConfig(**shape, **experts, shared_expert_intermediate_size=160, norm_topk_prob=False),
        "qwen3moe": transformers.Qwen3MoeConfig(**shape, **experts, head_dim=64, norm_topk_prob=True),  # pyright: ignore[reportCallIssue] - as Qwen's files have it
        "phi3": transformers.Phi3Config(**shape, sliding_window=None),
        "gemma3": transformers.Gemma3TextConfig(**deep, head_dim=48, query_pre_attn_scalar=48, sliding_window=16),
        "gpt2": transformers.GPT2Config(
            vocab_size=vocab_size, n_positions=256, n_embd=96, n_layer=3, n_head=6, initializer_range=0.2, bos_token_id=0, eos_token_id=2
        ),
    }


MIXTURES = ("mixtral", "qwen2moe", "qwen3moe")
