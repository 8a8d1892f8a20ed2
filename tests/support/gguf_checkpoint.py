"""Writes a model of transformers as a GGUF file, in the way of llama.cpp's converter: names, order of rows, raised norms, vocabulary."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import MODEL_ARCH, GGMLQuantizationType, TokenType
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from mm_gateway.runtime.checkpoints.gguf.header import read_header
from mm_gateway.runtime.checkpoints.gguf.tensors import read_tensor

ARCHITECTURES = {
    "llama": MODEL_ARCH.LLAMA,
    "mistral": MODEL_ARCH.LLAMA,
    "granite": MODEL_ARCH.GRANITE,
    "qwen2": MODEL_ARCH.QWEN2,
    "qwen3": MODEL_ARCH.QWEN3,
    "mixtral": MODEL_ARCH.LLAMA,
    "qwen2_moe": MODEL_ARCH.QWEN2MOE,
    "qwen3_moe": MODEL_ARCH.QWEN3MOE,
    "phi3": MODEL_ARCH.PHI3,
    "gemma3_text": MODEL_ARCH.GEMMA3,
    "gpt2": MODEL_ARCH.GPT2,
}


def write_gguf(
    file: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    kind: GGMLQuantizationType = GGMLQuantizationType.F32,
    *,
    pre: str = "gpt-2",
    extra: Mapping[str, float] | None = None,
    sampling: Mapping[str, float] | None = None,
    tensors_in_part: int = 0,
    tensors: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """The file.

    Args:
        kind: of matrices whose rows fill its blocks; the others, and norms, stay as they are.
        pre: name of the rules that cut text. extra: further keys of the architecture. sampling: those of
            `general.sampling`. tensors_in_part: cut the file into parts of so many; then the name of the first is returned.
    """
    config = model.config
    arch = ARCHITECTURES[config.model_type]
    writer = gguf.GGUFWriter(str(file), gguf.MODEL_ARCH_NAMES[arch], split_max_tensors=tensors_in_part)
    layers = int(getattr(config, "num_hidden_layers", 0))
    _write_config(writer, config)
    for key, value in (extra or {}).items():
        writer.add_float32(f"{gguf.MODEL_ARCH_NAMES[arch]}.{key}", value)
    for key, value in (sampling or {}).items():
        kind_of_value = gguf.GGUFValueType.INT32 if isinstance(value, int) else gguf.GGUFValueType.FLOAT32
        writer.add_key_value(f"general.sampling.{key}", value, kind_of_value)
    _write_vocabulary(writer, tokenizer, pre, int(config.vocab_size))
    names = gguf.get_tensor_name_map(arch, layers)
    tied = bool(config.tie_word_embeddings)
    for name, tensor in _apart(model.state_dict()):
        if name.endswith((".attn.bias", ".attn.masked_bias")) or (tied and name == "lm_head.weight"):
            continue
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if stored is not None and stored.endswith("_exps"):
            stored += ".weight"
        assert stored is not None, name
        data = _as_stored(config, name, stored, tensor.detach().float()).numpy()
        block = gguf.GGML_QUANT_SIZES[kind][0]
        fits = data.ndim >= 2 and "ffn_gate_inp" not in stored and data.shape[-1] % block == 0
        used = kind if fits else GGMLQuantizationType.F32
        packed = data if used == GGMLQuantizationType.F32 else quantized(data, used)
        writer.add_tensor(stored, np.ascontiguousarray(packed), raw_dtype=None if used == GGMLQuantizationType.F32 else used)
    for name, data in (tensors or {}).items():
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return writer.format_shard_names(file)[0]


def rewrite_gguf(file: Path, target: Path, encode: Callable[[str, np.ndarray], tuple[np.ndarray, GGMLQuantizationType]]) -> Path:
    """A copy of a GGUF file with other blocks.

    Args:
        encode: from a tensor's name and fp32 numbers to what is written: bytes of blocks [rows, bytes], or numbers, and their kind.
    """
    header = read_header(file)
    writer = gguf.GGUFWriter(str(target), header.architecture)
    for name, field in gguf.GGUFReader(str(file)).fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), field.types[0], sub_type=inner)
    for tensor in header.tensors.values():
        data, kind = encode(tensor.name, read_tensor(header, tensor).float().numpy())
        writer.add_tensor(tensor.name, data, raw_dtype=None if kind == GGMLQuantizationType.F32 else kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def gguf_of(checkpoint: Path, folder: Path) -> bytes:
    """A checkpoint's model and tokenizer as the content of a GGUF file. folder: to write it in."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    return write_gguf(folder / "made.gguf", model, AutoTokenizer.from_pretrained(checkpoint)).read_bytes()


def gguf_parts_of(checkpoint: Path, folder: Path, name: str) -> dict[str, bytes]:
    """As `gguf_of`, in three parts by their names."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    tensors = len(model.state_dict())
    write_gguf(folder / f"{name}.gguf", model, AutoTokenizer.from_pretrained(checkpoint), tensors_in_part=-(-tensors // 3))
    return {path.name: path.read_bytes() for path in sorted(folder.glob(f"{name}-*-of-*.gguf"))}


def quantized(data: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
    """Bytes [..., rows, bytes]; the package takes matrices alone."""
    rows = data.reshape(-1, data.shape[-1])
    return gguf.quantize(rows, kind).reshape(*data.shape[:-1], -1)


def _apart(state: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """A model's weights with the gates of its experts apart from what they gate."""
    for name, tensor in state.items():
        if name.endswith(".experts.gate_up_proj"):
            gate, up = tensor.chunk(2, dim=1)
            yield name.replace("gate_up_proj", "gate_proj"), gate
            yield name.replace("gate_up_proj", "up_proj"), up
        else:
            yield name, tensor


def _as_stored(config: Any, name: str, stored: str, tensor: torch.Tensor) -> torch.Tensor:
    if config.model_type in ("llama", "mistral", "mixtral", "granite") and name.endswith(
        ("q_proj.weight", "k_proj.weight", "q_proj.bias", "k_proj.bias")
    ):
        heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
        return tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)
    if name.endswith("shared_expert_gate.weight"):
        return tensor[0]
    if config.model_type == "gemma3_text" and name.endswith("norm.weight"):
        return tensor + 1
    if config.model_type == "gpt2" and tensor.ndim == 2 and stored.startswith("blk."):
        return tensor.T.contiguous()
    return tensor


def _write_config(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_head_count(config.num_attention_heads)
    if config.model_type == "gpt2":
        writer.add_feed_forward_length(config.n_inner or 4 * config.n_embd)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    rope = config.rope_parameters
    rope = rope.get("full_attention", rope)
    writer.add_rope_freq_base(rope["rope_theta"])
    if config.model_type != "gemma3_text":
        writer.add_rope_dimension_count(int(head_dim * rope.get("partial_rotary_factor", 1.0)))
    if config.model_type == "mixtral":
        writer.add_expert_count(config.num_local_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
    if config.model_type in ("qwen2_moe", "qwen3_moe"):
        writer.add_expert_count(config.num_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    if config.model_type == "qwen2_moe":
        writer.add_expert_shared_feed_forward_length(config.shared_expert_intermediate_size)
    if config.model_type == "phi3":
        writer.add_sliding_window(config.sliding_window or 0)
        writer.add_rope_scaling_orig_ctx_len(config.original_max_position_embeddings)
    if config.model_type == "gemma3_text":
        writer.add_sliding_window(config.sliding_window)
    if config.model_type == "granite":
        writer.add_embedding_scale(config.embedding_multiplier)
        writer.add_residual_scale(config.residual_multiplier)
        writer.add_attention_scale(config.attention_multiplier)
        writer.add_logit_scale(config.logits_scaling)


def _write_vocabulary(writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerFast, pre: str, size: int) -> None:
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = tokenizer.get_vocab()
    added = {entry["content"]: entry["special"] for entry in content["added_tokens"]}
    tokens = [f"[PAD{index}]" for index in range(size)]
    kinds = [int(TokenType.UNUSED)] * size
    byte_fallback = bool(content["model"].get("byte_fallback"))
    for token, index in vocabulary.items():
        tokens[index] = token
        kinds[index] = int(TokenType.NORMAL)
        if token in added:
            kinds[index] = int(TokenType.CONTROL if added[token] else TokenType.USER_DEFINED)
        elif byte_fallback and token.startswith("<0x") and len(token) == 6:
            kinds[index] = int(TokenType.BYTE)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in content["model"]["merges"]]
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    if byte_fallback:
        writer.add_tokenizer_model("llama")
        ranks = {"".join(merge.split(" ")): -float(index) for index, merge in reversed(list(enumerate(merges)))}
        writer.add_token_scores([ranks.get(token, -1e6) for token in tokens])
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_merges(merges)
    for name, add in (
        ("bos", writer.add_bos_token_id),
        ("eos", writer.add_eos_token_id),
        ("unk", writer.add_unk_token_id),
        ("pad", writer.add_pad_token_id),
    ):
        if (number := getattr(tokenizer, f"{name}_token_id")) is not None:
            add(number)
    writer.add_add_bos_token(False)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)
