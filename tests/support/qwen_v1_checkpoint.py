"""Qwen v1 checkpoints as they were published, made small: config names of either generation, fused weights, `qwen.tiktoken`; and the
network itself, written down once more from its description, to compare with."""

from __future__ import annotations

import base64
import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch.nn.functional import silu

from tests.support.checkpoints import CORPUS

SPECIALS = 3 + 205
CONTEXT = 128


@dataclass(frozen=True)
class Shape:
    hidden: int = 64
    layers: int = 2
    heads: int = 4
    feed_forward: int = 96
    ranks: int = 0


def make_ranks(folder: Path, size: int = 600) -> int:
    """A `qwen.tiktoken` with merges learned from the corpus; how many ranks it has."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(CORPUS * 3, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False))
    to_byte = {char: byte for byte, char in byte_characters().items()}
    merged = [bytes(to_byte[char] for char in token) for token in tokenizer.get_vocab() if len(token) > 1]
    index = {bytes(to_byte[char] for char in token): rank for token, rank in tokenizer.get_vocab().items()}
    tokens = [bytes([byte]) for byte in range(256)] + sorted(merged, key=index.__getitem__)
    lines = [base64.b64encode(token) + b" " + str(rank).encode() for rank, token in enumerate(tokens)]
    (folder / "qwen.tiktoken").write_bytes(b"\n".join(lines) + b"\n")
    return len(tokens)


def byte_characters() -> dict[int, str]:
    """GPT-2's printable stand-ins for bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + place) for place, byte in enumerate(rest)}


def make_qwen_v1(folder: Path, *, old_names: bool = False, shards: int = 1, shape: Shape | None = None) -> dict[str, torch.Tensor]:
    """Save a checkpoint; its weights by their published names."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = shape or Shape()
    vocabulary = make_ranks(folder) + SPECIALS
    config: dict[str, object] = {
        "architectures": ["QWenLMHeadModel"],
        "auto_map": {"AutoConfig": "configuration_qwen.QWenConfig", "AutoModelForCausalLM": "modeling_qwen.QWenLMHeadModel"},
        "model_type": "qwen",
        "layer_norm_epsilon": 1e-6,
        "rotary_emb_base": 10000,
        "rotary_pct": 1.0,
        "kv_channels": shape.hidden // shape.heads,
        "no_bias": True,
        "seq_length": CONTEXT,
        "use_dynamic_ntk": True,
        "use_logn_attn": True,
        "tie_word_embeddings": False,
        "tokenizer_class": "QWenTokenizer",
        "torch_dtype": "float32",
    }
    if old_names:
        config |= {"n_embd": shape.hidden, "n_layer": shape.layers, "n_head": shape.heads}
        config |= {"ffn_hidden_size": 2 * shape.feed_forward, "padded_vocab_size": vocabulary}
    else:
        config |= {"hidden_size": shape.hidden, "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads}
        config |= {"intermediate_size": 2 * shape.feed_forward, "vocab_size": vocabulary}
    (folder / "config.json").write_text(json.dumps(config))
    generation = {"chat_format": "chatml", "eos_token_id": vocabulary - SPECIALS, "do_sample": True, "top_p": 0.8, "top_k": 0}
    stops = [[vocabulary - SPECIALS + 2], [vocabulary - SPECIALS + 1]]
    (folder / "generation_config.json").write_text(json.dumps({**generation, "max_new_tokens": 512, "stop_words_ids": stops}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "QWenTokenizer", "model_max_length": CONTEXT}))
    weights = _weights(shape, vocabulary)
    if shards == 1:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return weights
    names = list(weights)
    where = {name: f"model-{index % shards + 1:05d}-of-{shards:05d}.safetensors" for index, name in enumerate(names)}
    for file in set(where.values()):
        save_file({name: weights[name] for name in names if where[name] == file}, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return weights


def _weights(shape: Shape, vocabulary: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def random(*size: int, around: float = 0.0) -> torch.Tensor:
        return torch.randn(*size, generator=generator) * 0.15 + around

    hidden, feed_forward = shape.hidden, shape.feed_forward
    weights = {"transformer.wte.weight": random(vocabulary, hidden), "lm_head.weight": random(vocabulary, hidden)}
    weights["transformer.ln_f.weight"] = random(hidden, around=1.0)
    for layer in range(shape.layers):
        at = f"transformer.h.{layer}"
        weights |= {
            f"{at}.ln_1.weight": random(hidden, around=1.0),
            f"{at}.attn.c_attn.weight": random(3 * hidden, hidden),
            f"{at}.attn.c_attn.bias": random(3 * hidden),
            f"{at}.attn.c_proj.weight": random(hidden, hidden),
            f"{at}.ln_2.weight": random(hidden, around=1.0),
            f"{at}.mlp.w1.weight": random(feed_forward, hidden),
            f"{at}.mlp.w2.weight": random(feed_forward, hidden),
            f"{at}.mlp.c_proj.weight": random(hidden, feed_forward),
        }
    return weights


def reference_logits(weights: dict[str, torch.Tensor], ids: list[int], shape: Shape | None = None) -> torch.Tensor:
    """Logits [tokens, vocabulary] of the network as its paper and published code describe it, up to `seq_length`."""
    shape = shape or Shape()
    size = shape.hidden // shape.heads
    x = weights["transformer.wte.weight"][ids]
    angles = torch.arange(len(ids))[:, None] / 10000 ** (torch.arange(0, size, 2) / size)
    cosine, sine = (torch.cat([f(angles), f(angles)], dim=-1)[:, None] for f in (torch.cos, torch.sin))

    def rms_norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return x / torch.sqrt(x.square().mean(-1, keepdim=True) + 1e-6) * weight

    def rotate(x: torch.Tensor) -> torch.Tensor:
        first, second = x.chunk(2, dim=-1)
        return x * cosine + torch.cat([-second, first], dim=-1) * sine

    for layer in range(shape.layers):

        def weight(name: str, at: str = f"transformer.h.{layer}") -> torch.Tensor:
            return weights[f"{at}.{name}"]

        mixed = rms_norm(x, weight("ln_1.weight")) @ weight("attn.c_attn.weight").T + weight("attn.c_attn.bias")
        query, key, value = (part.view(len(ids), shape.heads, size) for part in mixed.split(shape.hidden, dim=-1))
        scores = torch.einsum("qhd,khd->hqk", rotate(query), rotate(key)) / math.sqrt(size)
        scores = scores.masked_fill(torch.ones(len(ids), len(ids), dtype=torch.bool).triu(1), -torch.inf)
        attended = torch.einsum("hqk,khd->qhd", scores.softmax(-1), value).reshape(len(ids), -1)
        x = x + attended @ weight("attn.c_proj.weight").T
        normed = rms_norm(x, weight("ln_2.weight"))
        gated = (normed @ weight("mlp.w1.weight").T) * silu(normed @ weight("mlp.w2.weight").T)
        x = x + gated @ weight("mlp.c_proj.weight").T
    return rms_norm(x, weights["transformer.ln_f.weight"]) @ weights["lm_head.weight"].T
