"""Makes the random-weight Llama checkpoints that every server of a comparison loads, in Hugging Face's format and as GGUF.

Random weights cost the same time as trained ones. The output row of the end-of-sequence token is zero, so that greedy
decoding never ends early on any server, whatever extensions of the API it knows.
"""

# gguf comes with the extra `bench`.
# pyright: reportMissingImports=false

from __future__ import annotations

import json
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from benchmarks._workload import WORDS

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
EOS = "<|im_end|>"
CONTEXT_LENGTH = 2048


@dataclass(frozen=True)
class Shape:
    """A Llama's sizes; M and XS are those of the targets."""

    name: str
    hidden: int
    layers: int
    heads: int
    feed_forward: int
    vocab: int
    tied: bool


M = Shape("M", hidden=768, layers=12, heads=12, feed_forward=3072, vocab=32000, tied=False)
XS = Shape("XS", hidden=256, layers=4, heads=4, feed_forward=704, vocab=8192, tied=True)


def make_checkpoint(shape: Shape, work: Path) -> Path:
    """The folder of the checkpoint, made in `work` unless it is there already."""
    folder = work / shape.name
    if (folder / "done").exists():
        return folder
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _train_tokenizer(shape.vocab)
    eos = tokenizer.convert_tokens_to_ids(EOS)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        intermediate_size=shape.feed_forward,
        max_position_embeddings=CONTEXT_LENGTH,
        tie_word_embeddings=shape.tied,
        bos_token_id=0,
        eos_token_id=eos,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).float().eval()
    with torch.no_grad():
        model.lm_head.weight[: len(SPECIALS)] = 0.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "done").touch()
    return folder


def _train_tokenizer(vocab: int):
    """A byte-level BPE with GPT-2's splitting, trained on the sources of this Python's standard library; WORDS are one token each."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    def corpus():
        yield from [" " + " ".join(WORDS)] * 2000
        for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
            yield path.read_text(encoding="utf-8", errors="replace")
        for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*/*.py")):
            yield path.read_text(encoding="utf-8", errors="replace")

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab, special_tokens=list(SPECIALS), initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=SPECIALS[0], pad_token=SPECIALS[0], eos_token=EOS)
    fast.chat_template = CHATML
    return fast


def make_gguf(checkpoint: Path, precision: str) -> Path:
    """The checkpoint as GGUF for llama.cpp, beside it; `precision` is f32, f16 or q8_0 (norms stay f32, as its own converter does)."""
    path = checkpoint / f"{precision}.gguf"
    if path.exists():
        return path
    import gguf
    from safetensors.numpy import load_file

    config = json.loads((checkpoint / "config.json").read_text())
    partial = path.with_suffix(".partial")
    writer = gguf.GGUFWriter(partial, "llama")
    _write_metadata(writer, checkpoint, config)
    kind = {"f32": gguf.GGMLQuantizationType.F32, "f16": gguf.GGMLQuantizationType.F16, "q8_0": gguf.GGMLQuantizationType.Q8_0}[precision]
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    for name, tensor in load_file(checkpoint / "model.safetensors").items():
        target = names.get_name(name, try_suffixes=(".weight",))
        if target is None:
            raise ValueError(f"no GGUF name for tensor {name}")
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            tensor = _interleave_rotary(tensor, config["num_attention_heads"])
        raw = gguf.GGMLQuantizationType.F32 if tensor.ndim == 1 else kind
        writer.add_tensor(target, gguf.quants.quantize(tensor, raw), raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return partial.rename(path)


def _interleave_rotary(weight, heads: int):
    """Rows in llama.cpp's order: it rotates neighbouring pairs, Hugging Face's Llama rotates halves."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _write_metadata(writer, checkpoint: Path, config: dict) -> None:
    import gguf

    tokenizer = json.loads((checkpoint / "tokenizer.json").read_text())
    vocabulary = sorted(tokenizer["model"]["vocab"].items(), key=lambda item: item[1])
    heads = config["num_attention_heads"]
    writer.add_name(checkpoint.name)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_rope_freq_base(config.get("rope_theta") or config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_types([gguf.TokenType.CONTROL if token in SPECIALS else gguf.TokenType.NORMAL for token, _ in vocabulary])
    writer.add_token_merges([" ".join(pair) if isinstance(pair, list) else pair for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHATML)
