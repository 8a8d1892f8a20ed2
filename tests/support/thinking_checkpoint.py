"""Checkpoints of models that think: random weights, a real tokenizer, and a template in the manner of a published one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AddedToken, Qwen2Config, Qwen2ForCausalLM

from tests.support.checkpoints import make_tokenizer

HARMONY = ["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>", "<|call|>", "<|constrain|>"]


def thinking(folder: Path, template: str, *, words: tuple[str, ...] = ("<think>", "</think>"), **overrides: Any) -> Path:
    """A Qwen 2 of two layers.

    Args:
        words: tokens that are not special, as the tags of most models; none: they are several ordinary tokens.
    """
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "[THINK]", "[/THINK]", *HARMONY]
    tokenizer = make_tokenizer(specials, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in words])
    tokenizer.chat_template = template
    shape = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "initializer_range": 0.2,
        "tie_word_embeddings": False,
        "eos_token_id": 2,
    }
    import torch

    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(**{**shape, **overrides}))
    model.generation_config.eos_token_id = 2
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
