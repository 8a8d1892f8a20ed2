"""Qwen's first generation (`model_type: qwen`), served natively: its network is Qwen2's under other names, so no remote code runs.

Weights are renamed and the fused attention projection is split while transformers loads them; `qwen.tiktoken` becomes a
fast tokenizer. Past `seq_length` the original switches to other rotary angles and attention scales, so the context ends there.
Architecture: https://huggingface.co/Qwen/Qwen-7B-Chat (modeling_qwen.py), https://arxiv.org/abs/2309.16609.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.convert_slow_tokenizer import TikTokenConverter
from transformers.core_model_loading import Chunk, WeightConverter, WeightRenaming

from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.checkpoints.families.family import Family

logger = logging.getLogger(__name__)

ARCHITECTURE = "QWenLMHeadModel"
END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
EXTRAS = 205
PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""How the original splits text; single digits, unlike its descendants."""


class QWenConfig(Qwen2Config):
    """A Qwen v1 `config.json`, either generation of names, as the configuration of the same network."""

    model_type = "qwen"

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any):  # type: ignore[no-untyped-def, override]
        return super().from_dict(translate_config(config_dict), **kwargs)


class QWenForCausalLM(Qwen2ForCausalLM):
    """Qwen2's network with the conversion of Qwen v1's weights attached to its name."""

    config_class = QWenConfig  # type: ignore[assignment]


def register() -> None:
    """Make transformers' Auto classes know Qwen v1; any number of times."""
    AutoConfig.register("qwen", QWenConfig, exist_ok=True)
    AutoModelForCausalLM.register(QWenConfig, QWenForCausalLM, exist_ok=True)
    heads = [f".self_attn.{name}_proj" for name in ("q", "k", "v")]
    register_checkpoint_conversion_mapping(
        QWenForCausalLM.__name__,
        [
            WeightRenaming(r"^transformer\.wte\.", "model.embed_tokens."),
            WeightRenaming(r"^transformer\.ln_f\.", "model.norm."),
            WeightRenaming(r"^transformer\.h\.", "model.layers."),
            WeightRenaming(r"\.ln_1\.", ".input_layernorm."),
            WeightRenaming(r"\.ln_2\.", ".post_attention_layernorm."),
            WeightRenaming(r"\.attn\.c_proj\.", ".self_attn.o_proj."),
            # c_proj(w1(x) * silu(w2(x))): the gate is w2.
            WeightRenaming(r"\.mlp\.w1\.", ".mlp.up_proj."),
            WeightRenaming(r"\.mlp\.w2\.", ".mlp.gate_proj."),
            WeightRenaming(r"\.mlp\.c_proj\.", ".mlp.down_proj."),
            WeightConverter(r".attn.c_attn.weight", [f"{head}.weight" for head in heads], [Chunk(dim=0)]),
            WeightConverter(r".attn.c_attn.bias", [f"{head}.bias" for head in heads], [Chunk(dim=0)]),
        ],
        overwrite=True,
    )


def translate_config(found: dict[str, Any]) -> dict[str, Any]:
    """Qwen v1's names, either generation, as Qwen2's; what the network cannot be is refused.

    Raises:
        ModelLoadError: a variant that was never published, so that it cannot be served rightly.
    """
    if "num_key_value_heads" in found:  # already translated, as it comes back from a saved copy
        return found

    def first(*names: str, default: Any = None) -> Any:
        return next((found[name] for name in names if found.get(name) is not None), default)

    hidden, heads = first("hidden_size", "n_embd"), first("num_attention_heads", "n_head")
    if first("kv_channels", default=hidden // heads) != hidden // heads or first("rotary_pct", default=1.0) != 1.0:
        raise ModelLoadError("This Qwen v1 checkpoint has other head sizes or rotary shares than those published")
    if found.get("no_bias", True) is False:
        raise ModelLoadError("This Qwen v1 checkpoint has biases on all layers (no_bias: false), unlike those published")
    dtype = first("dtype", "torch_dtype") or ("bfloat16" if found.get("bf16") else "float16" if found.get("fp16") else "float32")
    translated = {
        "hidden_size": hidden,
        "num_hidden_layers": first("num_hidden_layers", "n_layer"),
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        # Both names mean the two halves of the original's gated layer together.
        "intermediate_size": first("intermediate_size", "ffn_hidden_size") // 2,
        "rms_norm_eps": first("layer_norm_epsilon", default=1e-6),
        "rope_parameters": {"rope_type": "default", "rope_theta": float(first("rotary_emb_base", default=10000.0))},
        "max_position_embeddings": first("seq_length", "n_positions", "max_position_embeddings", default=2048),
        "vocab_size": first("vocab_size", "padded_vocab_size"),
        "tie_word_embeddings": first("tie_word_embeddings", default=False),
        "dtype": dtype,
        "architectures": found.get("architectures"),
        "model_type": "qwen",
    }
    for name in ("bos_token_id", "eos_token_id", "pad_token_id", "quantization_config"):
        if found.get(name) is not None:
            translated[name] = found[name]
    return translated


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """`qwen.tiktoken` as a fast tokenizer. The conversion takes seconds for the full vocabulary, so its result is cached.

    Raises:
        ValueError, OSError: the file is missing or no rank file.
    """
    ranks = (folder / "qwen.tiktoken").read_bytes()
    cached = cache_folder() / f"{hashlib.sha256(ranks + PATTERN.encode()).hexdigest()[:32]}.json"
    if cached.is_file():
        return _fast(Tokenizer.from_file(str(cached)))
    tokenizer = convert_ranks(ranks)
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=cached.parent, delete=False, encoding="utf-8") as partial:
            partial.write(tokenizer.to_str())
        Path(partial.name).replace(cached)
    except OSError as error:
        logger.info("the converted tokenizer cannot be cached: %s", error)
    return _fast(tokenizer)


def cache_folder() -> Path:
    """Where converted tokenizers are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mm_gateway" / "tokenizers"


def convert_ranks(ranks: bytes) -> Tokenizer:
    """A byte-level BPE from lines of `base64-token rank`. Special tokens follow the last rank.

    Raises:
        ValueError: no such lines.
    """
    table: dict[bytes, int] = {}
    for number, line in enumerate(ranks.splitlines(), 1):
        if line:
            token, _, rank = line.partition(b" ")
            try:
                table[base64.b64decode(token, validate=True)] = int(rank)
            except ValueError as error:
                raise ValueError(f"qwen.tiktoken, line {number} is no rank of a token") from error

    class Converter(TikTokenConverter):
        @staticmethod
        def load_tiktoken_bpe(tiktoken_url: str) -> dict[bytes, int]:
            return table  # read above: the library's own reader wants one more package

    tokenizer = Converter("qwen.tiktoken", pattern=PATTERN).converted()
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    # The converter's idea of what follows each text is not Qwen's, which adds nothing.
    tokenizer.post_processor = None  # type: ignore[assignment]
    names = [END_OF_TEXT, IM_START, IM_END, *(f"<|extra_{index}|>" for index in range(EXTRAS))]
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in names])
    return tokenizer


def _fast(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END_OF_TEXT, pad_token=END_OF_TEXT, clean_up_tokenization_spaces=False
    )


QWEN_V1 = Family(
    name="Qwen v1",
    architectures=(ARCHITECTURE,),
    recognises=lambda checkpoint: checkpoint.get("model_type") == "qwen",
    register=register,
    tokenizer_file="qwen.tiktoken",
    load_tokenizer=load_tokenizer,
    converts_weights=True,
)
