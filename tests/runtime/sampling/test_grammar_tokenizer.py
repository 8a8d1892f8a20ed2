"""llguidance reads our vocabulary as it would read the tokenizer itself."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

import llguidance.hf
import numpy as np
import pytest
from llguidance import LLMatcher, LLTokenizer
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask
from transformers import PreTrainedTokenizerFast

from mm_gateway.core import Grammar
from mm_gateway.runtime.checkpoints.tokenizer import load_tokenizer
from mm_gateway.runtime.grammars.sources import LIMITS, source_of
from mm_gateway.runtime.sampling import structured_output
from mm_gateway.runtime.sampling.grammar_tokenizer import grammar_tokenizer
from mm_gateway.runtime.sampling.structured_output import GrammarCompiler
from tests.support.stalls import stalls

SCHEMA = {
    "type": "object",
    "properties": {"machine learning": {"type": "string", "maxLength": 20}},
    "required": ["machine learning"],
    "additionalProperties": False,
}
GRAMMARS = [
    Grammar("regex", "[a-zA-Z ]{5,40}"),
    Grammar("json_object"),
    Grammar("choice", '["The quick brown fox", "yes", "你好，世界！"]'),
    Grammar("lark", 'start: "The quick brown fox jumps" /[0-9]+/'),
    Grammar("json_schema", json.dumps(SCHEMA)),
]


def fast_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    tokenizer = load_tokenizer(folder, name="tiny", trust_remote_code=False)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    return tokenizer


def test_a_model_may_have_fewer_logits_than_its_tokenizer_has_tokens(checkpoint: Path) -> None:
    tokenizer = fast_tokenizer(checkpoint)
    vocab_size = len(tokenizer) - 40
    matcher = LLMatcher(grammar_tokenizer(tokenizer, vocab_size, [1]), source_of(GRAMMARS[0]), limits=LIMITS)
    mask = allocate_token_bitmask(1, vocab_size)
    fill_next_token_bitmask(matcher, mask)
    assert mask.any()


@pytest.mark.parametrize("seed", range(2 * len(GRAMMARS)))
def test_every_mask_is_that_of_llguidances_own_reading(checkpoint: Path, seed: int) -> None:
    tokenizer = fast_tokenizer(checkpoint)
    end = tokenizer.convert_tokens_to_ids(str(tokenizer.eos_token))
    assert isinstance(end, int)
    vocab_size = len(tokenizer) + (4 if seed % 2 else 267)  # of the logits: more than there are tokens, as Qwen 2.5 has 267 more
    source, rng = source_of(GRAMMARS[seed % len(GRAMMARS)]), random.Random(seed)
    expected = LLMatcher(llguidance.hf.from_tokenizer(tokenizer, n_vocab=vocab_size, eos_token=[end]), source, limits=LIMITS)
    ours = LLMatcher(grammar_tokenizer(tokenizer, vocab_size, [end]), source, limits=LIMITS)
    token = -1
    for _ in range(60):
        masks = [allocate_token_bitmask(1, vocab_size) for _ in range(2)]
        fill_next_token_bitmask(expected, masks[0])
        fill_next_token_bitmask(ours, masks[1])
        assert (masks[0] == masks[1]).all()
        token = int(rng.choice(np.flatnonzero(np.unpackbits(masks[0].view(np.uint8), bitorder="little")[:vocab_size])))
        if token == end:
            break
        assert expected.consume_token(token) and ours.consume_token(token)


def test_the_vocabulary_is_read_before_the_first_grammar_comes(llama_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a vocabulary of 150,000 tokens that takes a moment in which no other thread runs, which a load has the time for."""
    tokenizer = fast_tokenizer(llama_checkpoint)
    compiler = GrammarCompiler(tokenizer, len(tokenizer), frozenset({2}))

    def read_again(*_: object) -> LLTokenizer:
        raise AssertionError("the vocabulary is read for a grammar")

    monkeypatch.setattr(structured_output, "grammar_tokenizer", read_again)
    assert compiler.compile(Grammar("regex", "[a-z]+")).size_bytes > 0


def long_key(characters: int) -> Grammar:
    key = "k" * characters
    return Grammar("json_schema", json.dumps({"type": "object", "properties": {key: {"type": "null"}}, "required": [key]}))


def first_mask_and_token(matcher: LLMatcher, vocab_size: int) -> int:
    bits = allocate_token_bitmask(1, vocab_size)
    fill_next_token_bitmask(matcher, bits)
    (token,) = np.flatnonzero(np.unpackbits(bits.view(np.uint8), bitorder="little"))
    assert matcher.consume_token(int(token))
    return int(token)


async def test_a_long_text_that_a_grammar_asks_for_keeps_nobody_from_the_interpreter(qwen2_checkpoint: Path) -> None:
    tokenizer = fast_tokenizer(qwen2_checkpoint)
    matcher = LLMatcher(grammar_tokenizer(tokenizer, len(tokenizer), [0]), source_of(long_key(400_000)), limits=LIMITS)
    async with stalls() as seen:
        tokens = [await asyncio.to_thread(first_mask_and_token, matcher, len(tokenizer)) for _ in range(5)]
    assert str(tokenizer.decode(tokens)).startswith('{"kk')
    assert seen.longest_cpu_s < 0.1


def test_what_is_forced_is_spelled_as_the_tokenizer_does(qwen2_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though only a part of it is tokenized at a time."""
    monkeypatch.setattr("mm_gateway.runtime.sampling.grammar_tokenizer._WINDOW", 100)
    tokenizer = fast_tokenizer(qwen2_checkpoint)
    words = " ".join(f"word{i} die Öl 你好" for i in range(20))
    matcher = LLMatcher(grammar_tokenizer(tokenizer, len(tokenizer), [0]), source_of(Grammar("choice", json.dumps([words]))), limits=LIMITS)
    expected = tokenizer.encode(words, add_special_tokens=False)
    assert [first_mask_and_token(matcher, len(tokenizer)) for _ in expected] == expected
    assert matcher.is_accepting()
