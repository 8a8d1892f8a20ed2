"""Writes the trained network as a checkpoint in Hugging Face's format, in float16, with ChatML as its template."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from mm_gateway.chat_templates.templates import BUILT_IN
from tools.train_tiny_chat.corpus.conversation import token_id
from tools.train_tiny_chat.network import Shape


def export(weights: dict[str, Tensor], shape: Shape, tokenizer_file: Path, folder: Path) -> None:
    """weights: of a Network, by its names. Overwrites the files of the folder, not its README."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tensors = {f"model.{name}": weight.to(torch.float16).contiguous() for name, weight in weights.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    end, unknown = token_id(tokenizer, "<|im_end|>"), token_id(tokenizer, "<|endoftext|>")
    files = {
        "config.json": {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": shape.vocabulary,
            "hidden_size": shape.hidden,
            "intermediate_size": shape.feed_forward,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.heads,
            "head_dim": shape.head_size,
            "hidden_act": "silu",
            "max_position_embeddings": shape.context,
            "rms_norm_eps": shape.epsilon,
            "rope_theta": shape.rope_theta,
            "tie_word_embeddings": True,
            "attention_bias": False,
            "mlp_bias": False,
            "bos_token_id": None,
            "eos_token_id": end,
            "pad_token_id": unknown,
            "dtype": "float16",
        },
        "generation_config.json": {
            "do_sample": True,
            "temperature": 0.3,
            "top_p": 0.9,
            "eos_token_id": [end, unknown],
            "pad_token_id": unknown,
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": shape.context,
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "clean_up_tokenization_spaces": False,
            "chat_template": BUILT_IN["chatml"].source,
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=False) + "\n", encoding="utf-8")
