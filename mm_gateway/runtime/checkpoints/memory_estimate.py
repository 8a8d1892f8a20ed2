"""What a model will take before it is loaded, from the headers of its files, which costs milliseconds."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.runtime.checkpoints.context_length import configured_length, read_checkpoint_config
from mm_gateway.runtime.checkpoints.families.families import family_of
from mm_gateway.runtime.checkpoints.gguf.architectures import architecture_of
from mm_gateway.runtime.checkpoints.gguf.folder import gguf_file
from mm_gateway.runtime.checkpoints.gguf.header import GgufHeader, GgufTensor, weights_header
from mm_gateway.runtime.checkpoints.gguf.kept_blocks import KEPT
from mm_gateway.runtime.checkpoints.packed_linear import BITS, block_bytes, keeps_blocks, looks_rows_up
from mm_gateway.runtime.checkpoints.quantized.format import WeightFormat
from mm_gateway.runtime.checkpoints.quantized.formats import format_of, is_unpacked
from mm_gateway.runtime.checkpoints.stored.stored_dtype import stored_dtype
from mm_gateway.runtime.checkpoints.stored.stored_tensors import StoredTensors
from mm_gateway.runtime.kernels.decoder import Cells

_ITEM_BYTES = {"I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1}
_FLOATS = ("F64", "F32", "F16", "BF16")
_DTYPE_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
COMPILED_TYPES = frozenset({"llama", "mistral", "qwen2", "qwen3", "phi3", "gemma", "gemma3_text", "mixtral", "qwen2_moe", "qwen3_moe"})
"""Models, as config.json names them, whose layers are computed by one compiled call."""
_COUNT_BYTES = 3
"""For each running sequence and each token of the vocabulary."""
_EXPERT = re.compile(r"\.experts\.\d+\.")
_STORED_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes on the model's device.

    Attributes:
        kv_cache_bytes: what its KV cache is given. penalty_bytes: counts of tokens, taken when the first request with penalties comes.
    """

    weight_bytes: int
    kv_cache_bytes: int
    penalty_bytes: int
    draft_bytes: int = 0
    """Of the model that guesses what it says, its KV cache included."""

    @property
    def total(self) -> int:
        return self.weight_bytes + self.kv_cache_bytes + self.penalty_bytes + self.draft_bytes


def estimate(folder: Path, config: ModelConfig, engine: EngineSettings, *, device_type: str, budget_bytes: int | None) -> MemoryNeed:
    """Weights as they will be held, the counts that penalties need, and a KV cache: as configured, else what the model's sequences can
    use, at most a quarter of what the budget leaves beside the weights, at least one context.

    Args:
        device_type: `cuda` or `cpu`. budget_bytes: of the device; None: without bound.
    """
    checkpoint = read_checkpoint_config(folder)
    checkpoint["dtype"] = stored_dtype(folder, checkpoint)
    running = config.max_running or engine.max_running
    penalties = running * int(checkpoint.get("vocab_size") or 0) * _COUNT_BYTES
    weights = weight_bytes(folder, config, checkpoint, device_type=device_type)
    if config.kv_cache_bytes is not None:
        return MemoryNeed(weights, config.kv_cache_bytes, penalties)
    item = _kv_item_bytes(config, checkpoint) if device_type == "cpu" else _item_bytes(config, checkpoint)
    one = configured_length(checkpoint.get, config) * kv_bytes_per_token(checkpoint, item)
    useful = one * (2 * running if engine.prefix_cache else running)
    if budget_bytes is not None:
        useful = min(useful, max((budget_bytes - weights) // 4, one))
    return MemoryNeed(weights, useful, penalties)


def with_draft(need: MemoryNeed, folder: Path, config: ModelConfig, draft_folder: Path, draft: ModelConfig) -> MemoryNeed:
    """What a model on a CPU needs together with its draft, whose KV cache holds as many tokens as its own."""
    own, drafts = (read_checkpoint_config(path) for path in (folder, draft_folder))
    per_token = kv_bytes_per_token(own, _kv_item_bytes(config, own))
    tokens = need.kv_cache_bytes // per_token if per_token else 0
    cache = tokens * kv_bytes_per_token(drafts, _kv_item_bytes(draft, drafts))
    return dataclasses.replace(need, draft_bytes=weight_bytes(draft_folder, draft, drafts, device_type="cpu") + cache)


def weight_bytes(folder: Path, config: ModelConfig, checkpoint: dict[str, Any], *, device_type: str) -> int:
    """Memory of the weights in the configured precision; from file sizes where the files are not safetensors.

    Raises:
        ModelLoadError: what is configured contradicts the files, or they are of a format that is not read.
    """
    checkpoint = checkpoint | {"dtype": stored_dtype(folder, checkpoint)}
    item, on_cpu, form = _item_bytes(config, checkpoint), device_type == "cpu", format_of(folder, config)
    linear = form.linear_bytes(on_cpu=on_cpu)
    if (file := gguf_file(folder)) is not None:
        return _gguf_bytes(weights_header(file), config, item, on_cpu=on_cpu)
    stored_tensors = StoredTensors(folder)
    total, parts = 0.0, set[str]()
    if is_unpacked(folder, form, device_type):
        total, parts = _layers_bytes(stored_tensors, form, config, item, on_cpu=on_cpu)
    headers = [header for name, header in stored_tensors.headers.items() if name not in parts]
    if not stored_tensors.headers:
        stored = _STORED_BYTES.get(checkpoint["dtype"], 4)
        files = sum(file.stat().st_size for pattern in ("*.bin", "*.pt") for file in folder.glob(pattern))
        return int(files / stored * (linear or item))
    embeddings = {header.name for header in headers if len(header.shape) == 2 and _is_embedding(header.name)}
    # Tied embeddings are looked up in the output layer.
    largest = max((header for header in headers if header.name in embeddings), key=lambda header: header.items, default=None)
    shared = set[str]()
    if largest is not None and checkpoint.get("tie_word_embeddings", True):
        again = [name for name in stored_tensors.headers if "lm_head" in name]
        # Beside tied embeddings their second copy may be stored. A few rows tell a copy from an output layer of its own.
        if all(stored_tensors.are_equal(name, largest.name, rows=64) for name in again):
            headers = [header for header in headers if header.name not in again]
            shared = {largest.name} if on_cpu else set()
    for header in headers:
        if header.name in shared:
            total += header.items * form.output_bytes(item)
            total += 0 if looks_rows_up() else header.items * form.embedding_bytes(item, on_cpu=on_cpu)
        elif header.dtype not in _FLOATS and (form.published or not header.dtype.startswith("F8")):
            total += header.items * _ITEM_BYTES.get(header.dtype, 4)  # quantized in the file: held as it is
        elif len(header.shape) < 2:
            total += header.items * (4 if on_cpu else item)  # norms and biases
        elif linear is not None and header.name not in embeddings:
            output = header.name.endswith("lm_head.weight") and on_cpu
            total += header.items * (form.output_bytes(item) if output else linear)
        else:
            total += header.items * form.embedding_bytes(item, on_cpu=on_cpu)
    return int(total)


def _layers_bytes(stored: StoredTensors, form: WeightFormat, config: ModelConfig, item: int, *, on_cpu: bool) -> tuple[float, set[str]]:
    """Of layers that a quantized checkpoint stores in parts, as they will be held; and the names of those parts."""
    layers = form.layers(stored)
    # Experts that transformers joins into one weight are numbers by then, and so is every other layer beside them.
    keep = on_cpu and keeps_blocks(config) and family_of(stored.folder) is None and not any(_EXPERT.search(name) for name in layers)
    total = 0.0
    for layer in layers.values():
        kept = layer.kept if keep else None
        one = block_bytes(BITS[kept]) if kept is not None else 4 if on_cpu and len(layer.shape) == 1 else item
        total += math.prod(layer.shape) * one
    return total, {part for layer in layers.values() for part in layer.parts.values()}


def _gguf_bytes(header: GgufHeader, config: ModelConfig, item: int, *, on_cpu: bool) -> int:
    """Of a GGUF file's weights: in the blocks that our kernels compute with, or unpacked."""
    architecture = architecture_of(header)
    keep = on_cpu and keeps_blocks(config)

    def of_layer(tensor: GgufTensor) -> float:
        kept = KEPT.get(tensor.kind) if keep else None
        return tensor.items * (item if kept is None else block_bytes(kept.bits, fine=kept.fine))

    total = 0.0
    if on_cpu and "output.weight" not in header.tensors and not looks_rows_up():
        total += header.tensors["token_embd.weight"].items * item
    for stored, tensor in header.tensors.items():
        name = architecture.weight_name(stored)
        if name is None:
            continue
        if len(tensor.shape) < 2 or ".ffn_gate_inp." in stored:
            total += tensor.items * (4 if on_cpu else item)
        else:
            total += of_layer(tensor)
    return int(total)


def _kv_item_bytes(config: ModelConfig, checkpoint: dict[str, Any]) -> float:
    """Of a number in the cache of a CPU; where a model turns out not to be compiled, the same memory holds fewer tokens."""
    match config.kv_cache_dtype:
        case "fp16":
            return 2
        case "int8":
            return Cells.INT8.head_bytes(32) / 32  # with the scales
        case "fp32":
            return 4
        case "auto":
            exact = config.quantization is None and _item_bytes(config, checkpoint) == 4
            return 4 if exact or checkpoint.get("model_type") not in COMPILED_TYPES else 2


def kv_bytes_per_token(checkpoint: dict[str, Any], item_bytes: float) -> int:
    """Keys and values of one token over all layers; 0 where the configuration does not say."""

    def first(*names: str) -> int:
        return next((int(checkpoint[name]) for name in names if checkpoint.get(name)), 0)

    heads = first("num_attention_heads", "n_head")
    # Latent attention says the parts of its keys, which its values are stored as wide as.
    latent = first("qk_nope_head_dim") and first("qk_nope_head_dim") + first("qk_rope_head_dim")
    head_dim = latent or first("head_dim") or (first("hidden_size", "n_embd") // heads if heads else 0)
    return 2 * first("num_hidden_layers", "n_layer") * (first("num_key_value_heads") or heads) * math.ceil(head_dim * item_bytes)


def _item_bytes(config: ModelConfig, checkpoint: dict[str, Any]) -> int:
    if config.dtype != "auto":
        return _DTYPE_BYTES[config.dtype]
    return _STORED_BYTES.get(checkpoint["dtype"], 4)


def _is_embedding(name: str) -> bool:
    return any(part in ("embed_tokens", "wte", "wpe", "word_embeddings", "embed_in") for part in name.split("."))
