"""The config.json and generation_config.json that a GGUF file's metadata stands for."""

from __future__ import annotations

import logging
import re
from typing import Any

from mm_gateway.runtime.checkpoints.gguf.architectures import Keys, architecture_of
from mm_gateway.runtime.checkpoints.gguf.header import GgufHeader
from mm_gateway.runtime.checkpoints.gguf.tensors import read_tensor

logger = logging.getLogger(__name__)

# Keys that change nothing here: the vocabulary's size is that of its embedding, which is looked at.
_HARMLESS = {"vocab_size", "attention.causal", "rope.scaling.finetuned", "attention.layer_norm_epsilon"}
# Tensors that are computed anew, or read into the configuration.
_NO_WEIGHT = re.compile(r"(blk\.\d+\.)?(rope_freqs|rope_factors_long|rope_factors_short|attn_rot_embd)\.weight")
# What a file says of sampling, in transformers' words, and what llama.cpp's programs take where it does not say
# (common_params_sampling in https://github.com/ggml-org/llama.cpp/blob/master/common/common.h); a penalty of 1 is none.
_SAMPLING = {
    "temp": ("temperature", 0.8),
    "top_k": ("top_k", 40),
    "top_p": ("top_p", 0.95),
    "min_p": ("min_p", 0.05),
    "penalty_repeat": ("repetition_penalty", 1.0),
}
# Further ways to sample, by the value that switches each off.
_SAMPLERS = {"xtc_probability": 0, "mirostat": 0}
# Values that switch something off which is not read.
_OFF = (0, 0.0, False, None, "none")


def config_of(header: GgufHeader) -> dict[str, Any]:
    """What the checkpoint's config.json would say.

    Raises:
        ValueError: an architecture, or a property of it, that is not read from GGUF.
    """
    architecture = architecture_of(header)
    keys = Keys(header)
    config = architecture.config(keys)
    own = f"{header.architecture}."
    unknown = [
        key
        for key, value in header.metadata.items()
        if key.startswith(own) and (name := key.removeprefix(own)) not in keys.read and name not in _HARMLESS and value not in _OFF
    ]
    if unknown:
        raise ValueError(f"{header.file.name} states {', '.join(unknown[:3])}, which is not read from GGUF: it would answer wrongly")
    places = [name for name in header.tensors if architecture.weight_name(name) is None and not _NO_WEIGHT.fullmatch(name)]
    if places:
        raise ValueError(
            f"{header.file.name} holds tensors that {header.architecture} has no place for here ({', '.join(places[:3])}): "
            "it would answer wrongly"
        )
    _stored_frequencies(header, config)
    if "token_embd.weight" not in header.tensors:
        raise ValueError(f"{header.file.name} has no token embeddings: is it one part of several?")
    config |= {
        "model_type": architecture.model_type,
        "architectures": [architecture.class_name],
        "vocab_size": header.tensors["token_embd.weight"].shape[0],
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "dtype": _dtype(header),
        **special_token_ids(header),
    }
    return config


def special_token_ids(header: GgufHeader) -> dict[str, Any]:
    """Ids that begin and end texts, and fill batches."""
    ends = [header.metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")]
    stops = list(dict.fromkeys(end for end in ends if end is not None))
    return {
        "bos_token_id": header.metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": stops[0] if len(stops) == 1 else stops or None,
        "pad_token_id": header.metadata.get("tokenizer.ggml.padding_token_id"),
    }


def generation_config_of(header: GgufHeader) -> dict[str, Any]:
    """What the checkpoint's generation_config.json would say: with which values llama.cpp samples from this file, and what ends texts."""
    prefix = "general.sampling."
    stated = {key.removeprefix(prefix): value for key, value in header.metadata.items() if key.startswith(prefix)}
    unread = [key for key, off in _SAMPLERS.items() if stated.get(key, off) != off]
    if unread:
        logger.warning("%s: %s%s is not read: its texts are sampled without", header.file.name, prefix, f", {prefix}".join(unread))
    sampling = {name: stated.get(key, default) for key, (name, default) in _SAMPLING.items()}
    return {"do_sample": True, **sampling, **special_token_ids(header)}


def _stored_frequencies(header: GgufHeader, config: dict[str, Any]) -> None:
    """Factors of the rotary frequencies that are stored as tensors: those of Llama 3.1, and the two sets of Phi-3."""
    tensors = header.tensors
    rope = config.get("rope_parameters")
    if rope is None:
        return
    if "rope_freqs.weight" in tensors:
        factors = read_tensor(header, tensors["rope_freqs.weight"]).flatten().tolist()
        # With one set for all lengths it is what the file says: each frequency divided by its factor, nothing else.
        rope |= {"rope_type": "longrope", "long_factor": factors, "short_factor": factors, "attention_factor": 1.0, "factor": 1.0}
        rope["original_max_position_embeddings"] = config["max_position_embeddings"]
    elif "rope_factors_long.weight" in tensors:
        long, short = (read_tensor(header, tensors[f"rope_factors_{kind}.weight"]).flatten().tolist() for kind in ("long", "short"))
        original = config["original_max_position_embeddings"]
        rope |= {"rope_type": "longrope", "long_factor": long, "short_factor": short, "original_max_position_embeddings": original}
        rope["factor"] = config["max_position_embeddings"] / original


def _dtype(header: GgufHeader) -> str:
    """In which blocks are held once they are unpacked; 16 bits hold what 8 and fewer stand for."""
    kinds = {tensor.kind.name for tensor in header.tensors.values() if len(tensor.shape) > 1}
    if "BF16" in kinds:
        return "bfloat16"
    return "float32" if kinds == {"F32"} else "float16"
