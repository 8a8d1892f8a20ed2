"""Makes small checkpoints in the real on-disk format of each family: random weights, byte-level tokenizers trained on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

CORPUS = [
    "The quick brown fox jumps over the lazy dog. User: hello! Assistant: how are you today?",
    "System: you are a helpful assistant. What is machine learning? It is the study of algorithms.",
    "你好，世界！什么是深度学习？ Übergröße, naïve café, 12345 + 67890 = 80235.",
    "def main(argument: int) -> str:\n    return str(argument)\n\nOnce upon a time there was a small model.",
]

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def make_tokenizer(specials: list[str], *, vocab_size: int = 480, **roles: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer; specials take the first ids."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles)


def padded_tokenizer() -> PreTrainedTokenizerFast:
    """Whose one special token fills and ends."""
    return make_tokenizer(["<pad>"], pad_token="<pad>", eos_token="<pad>")


def token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    """The id of one token; transformers' own reader takes lists too and says so in its type."""
    found = tokenizer.convert_tokens_to_ids(token)
    assert isinstance(found, int)
    return found


def gpt2(folder: Path, **overrides: Any) -> Path:
    tokenizer = make_tokenizer(["<|endoftext|>"], bos_token="<|endoftext|>", eos_token="<|endoftext|>")
    config = GPT2Config(
        **{"vocab_size": len(tokenizer), "n_positions": 256, "n_embd": 64, "n_layer": 2, "n_head": 4, "initializer_range": 0.2} | overrides,
        bos_token_id=0,
        eos_token_id=0,
    )
    return _save(folder, GPT2LMHeadModel, config, tokenizer)


def llama(folder: Path, **overrides: Any) -> Path:
    tokenizer = make_tokenizer(["<unk>", "<s>", "</s>"], unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    return _save(folder, LlamaForCausalLM, LlamaConfig(**_decoder(tokenizer, bos_token_id=1, eos_token_id=2) | overrides), tokenizer)


def mistral(folder: Path, **overrides: Any) -> Path:
    """With a sliding window of 24 tokens."""
    tokenizer = make_tokenizer(["<unk>", "<s>", "</s>"], unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    shape = _decoder(tokenizer, bos_token_id=1, eos_token_id=2, sliding_window=24) | overrides
    return _save(folder, MistralForCausalLM, MistralConfig(**shape), tokenizer)


def qwen2(folder: Path, **overrides: Any) -> Path:
    tokenizer = make_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = CHATML
    return _save(folder, Qwen2ForCausalLM, Qwen2Config(**_decoder(tokenizer, bos_token_id=0, eos_token_id=2) | overrides), tokenizer)


def _decoder(tokenizer: PreTrainedTokenizerFast, **more: int) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 128,
        "max_position_embeddings": 256,
        "initializer_range": 0.2,
        "tie_word_embeddings": False,
    } | more


def _save(folder: Path, model_class: type[PreTrainedModel], config: PreTrainedConfig, tokenizer: PreTrainedTokenizerFast) -> Path:
    torch.manual_seed(0)
    model = model_class(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:  # biases and norms start at constants, which would hide mistakes in them
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.generation_config.do_sample = False
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
