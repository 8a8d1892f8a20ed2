"""The tokenizer of a GGUF file gives the ids of the tokenizer that the file was made from."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mm_gateway.runtime.checkpoints.gguf.header import read_header
from mm_gateway.runtime.checkpoints.gguf.pre_tokenizers import PRE_TOKENIZERS, WHOLE_WORDS
from mm_gateway.runtime.checkpoints.gguf.tokenizer import tokenizer_of
from tests.support.byte_fallback import make_byte_fallback_tokenizer, one_of_each_block
from tests.support.checkpoints import make_tokenizer
from tests.support.gguf_checkpoint import write_gguf

TEXTS = [
    "",
    " ",
    "  two  blanks and\n\n lines\r\n\tof tabs ",
    "hello hello  hello",
    "don't I'LL 12345 1e-9 ½ naïve",
    "你好，世界！🇩🇪👨‍👩‍👧‍👦",
    "<|im_start|>user\nhello<|im_end|>\n",
    "".join(one_of_each_block()),
]


def read_back(tokenizer: PreTrainedTokenizerFast, folder: Path, pre: str = "gpt-2") -> PreTrainedTokenizerFast:
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=1,
            tie_word_embeddings=True,
        )
    )
    return tokenizer_of(read_header(write_gguf(folder / "m.gguf", model, tokenizer, pre=pre)))


@pytest.mark.parametrize("text", TEXTS)
def test_byte_level_ids_are_the_same(text: str, tmp_path: Path) -> None:
    tokenizer = make_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], eos_token="<|im_end|>")
    found = read_back(tokenizer, tmp_path)
    ids = tokenizer(text)["input_ids"]
    assert found(text)["input_ids"] == ids
    assert found.decode(ids) == tokenizer.decode(ids)


@pytest.mark.parametrize("text", TEXTS)
def test_sentencepiece_ids_are_the_same(text: str, tmp_path: Path) -> None:
    tokenizer = make_byte_fallback_tokenizer()
    found = read_back(tokenizer, tmp_path)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert found(text)["input_ids"] == ids
    assert found.decode(ids) == tokenizer.decode(ids)


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_each_way_to_cut_text_loses_nothing(pre: str, tmp_path: Path) -> None:
    found = read_back(make_tokenizer(["<|endoftext|>"]), tmp_path, pre)
    for text in TEXTS:
        assert found.decode(found(text, add_special_tokens=False)["input_ids"]) == text
    assert isinstance(found.backend_tokenizer.pre_tokenizer, pre_tokenizers.Sequence)
    assert found.backend_tokenizer.model.ignore_merges == (pre in WHOLE_WORDS)


def test_an_unknown_way_to_cut_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rules of tomorrow"):
        read_back(make_tokenizer(["<|endoftext|>"]), tmp_path, "tomorrow")
