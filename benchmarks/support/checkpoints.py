"""Makes the random-weight Llama checkpoints that every server of a comparison loads, in Hugging Face's format.

Random weights cost the same time as trained ones. The output row of the end-of-sequence token is zero, so that greedy
decoding never ends early on any server, whatever extensions of the API it knows.
"""

from __future__ import annotations

import sysconfig
from dataclasses import dataclass
from pathlib import Path

from benchmarks.support.workload import WORDS

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
EOS = "<|im_end|>"
CONTEXT_LENGTH = 4096


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
    done = folder / f"done-{CONTEXT_LENGTH}"
    if done.exists():
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
    done.touch()
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
