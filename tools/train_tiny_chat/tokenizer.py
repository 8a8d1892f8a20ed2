"""The tokenizer: byte-level BPE whose digits and Chinese characters stand alone, trained on the corpus."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from tools.train_tiny_chat.corpus.conversation import PlainText
from tools.train_tiny_chat.corpus.mixture import examples

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VOCABULARY = 4096
_SEED = 7
_EXAMPLES = 40_000


def train_tokenizer(path: Path) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),  # arithmetic by digits
            pre_tokenizers.Split(Regex(r"[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]"), behavior="isolated"),  # no merges of whole phrases
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=list(SPECIALS), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    tokenizer.save(str(path))
    return tokenizer


def _texts() -> Iterator[str]:
    for example in itertools.islice(examples(_SEED), _EXAMPLES):
        if isinstance(example, PlainText):
            yield example.text
            continue
        for message in example.messages:
            yield message.content
            yield from (call.arguments for call in message.tool_calls)
