"""What ends a text and what must not come before it does: vLLM's stop_token_ids, min_tokens, bad_words and their neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import ChoiceFinished, GenerationConfig, Grammar, TextDelta
from mm_gateway.errors import InvalidRequestError
from mm_gateway.runtime.inference_engine import InferenceEngine
from mm_gateway.runtime.model_loader import ModelConfig, ModelLoader
from mm_gateway.runtime.scheduling.barred_tokens import BarredTokens

IM_START, IM_END = 1, 2  # of the Qwen 2 checkpoint; the second is its end of text


@pytest.fixture(scope="module")
def engine(qwen2_checkpoint: Path) -> Iterator[InferenceEngine]:
    loaded = ModelLoader().load(ModelConfig(model_name=str(qwen2_checkpoint), device="cpu", dtype="fp32"))
    engine = InferenceEngine.for_loaded_model(loaded, EngineSettings(max_running=32))
    yield engine
    engine.close()


def told(engine: InferenceEngine, *, choice: int = 0, **config: Any) -> tuple[str, list[int], str]:
    """Text, tokens of the text, and finish reason of a choice."""
    text, tokens, reason = "", [], ""
    values: dict[str, Any] = {"max_new_tokens": 16, "temperature": 0} | config
    for event in engine.submit([engine.encode("Hello")], GenerationConfig(**values)):
        match event:
            case TextDelta(index=index) if index == choice:
                text, tokens = text + event.text, [*tokens, *event.token_ids]
            case ChoiceFinished(index=index) if index == choice:
                reason = event.finish_reason
            case _:
                pass
    return text, tokens, reason


def end_of(engine: InferenceEngine, **config: Any) -> ChoiceFinished:
    events = engine.submit([engine.encode("Hello")], GenerationConfig(**dict[str, Any]({"max_new_tokens": 16, "temperature": 0} | config)))
    return next(event for event in events if isinstance(event, ChoiceFinished))


@pytest.fixture(scope="module")
def greedy(engine: InferenceEngine) -> list[int]:
    """What the model says by itself; every token is a text of its own."""
    tokens = told(engine, ignore_eos=True)[1]
    assert len(tokens) == 16 and IM_END not in tokens
    return tokens


def new_at(tokens: list[int]) -> int:
    """A position, not the first, of a token that was not there before."""
    return next(position for position in range(2, len(tokens)) if tokens[position] not in tokens[:position])


@pytest.mark.parametrize("ignore_eos", [False, True])
def test_a_stop_token_ends_the_text_and_is_not_part_of_it(engine: InferenceEngine, greedy: list[int], ignore_eos: bool) -> None:
    end = new_at(greedy)
    text, tokens, reason = told(engine, stop_token_ids=(greedy[end],), ignore_eos=ignore_eos)
    assert (text, tokens, reason) == (engine.decode(greedy[:end]), greedy[:end], "stop")


def test_a_stop_token_is_part_of_the_text_where_that_is_asked_for(engine: InferenceEngine, greedy: list[int]) -> None:
    end = new_at(greedy)
    text, _, reason = told(engine, stop_token_ids=(greedy[end],), include_stop_str_in_output=True)
    assert (text, reason) == (engine.decode(greedy[: end + 1]), "stop")


def test_a_stop_string_is_part_of_the_text_where_that_is_asked_for(engine: InferenceEngine, greedy: list[int]) -> None:
    whole = engine.decode(greedy)
    stop = whole[4:6]
    end = whole.index(stop)
    assert told(engine, stop=(stop,))[0] == whole[:end]
    assert end_of(engine, stop=("never", stop)) == ChoiceFinished(0, "stop", stop)
    assert end_of(engine, stop=("never",)) == ChoiceFinished(0, "length")
    assert end_of(engine, stop=("<|im_end|>",), logit_bias={IM_END: 100}) == ChoiceFinished(0, "stop", "<|im_end|>")
    assert end_of(engine, stop=(stop,), logit_bias={IM_END: 100}) == ChoiceFinished(0, "stop")
    assert told(engine, stop=(stop,), include_stop_str_in_output=True)[0] == whole[:end] + stop


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({}, ""),
        ({"include_stop_str_in_output": True}, ""),  # it has no text
        ({"include_stop_str_in_output": True, "skip_special_tokens": False}, "<|im_end|>"),
        ({"include_stop_str_in_output": True, "stop": ("<|im_end|>",)}, "<|im_end|>"),  # asked for as a text
        ({"skip_special_tokens": False}, ""),
    ],
)
def test_the_end_of_text_is_shown_only_where_special_tokens_and_stops_are(
    engine: InferenceEngine, config: dict[str, Any], text: str
) -> None:
    assert told(engine, logit_bias={IM_END: 100}, **config)[::2] == (text, "stop")


def test_special_tokens_are_part_of_the_text_where_that_is_asked_for(engine: InferenceEngine) -> None:
    biased: dict[str, Any] = {"max_new_tokens": 2, "logit_bias": {IM_START: 100}}
    assert told(engine, **biased)[0] == ""
    assert told(engine, skip_special_tokens=False, **biased)[0] == "<|im_start|>" * 2


def test_nothing_ends_the_text_before_min_tokens(engine: InferenceEngine, greedy: list[int]) -> None:
    first = engine.decode(greedy[:1])
    assert told(engine, stop=(first,))[0] == ""
    either: list[dict[str, Any]] = [{"logit_bias": {IM_END: 100}}, {"stop_token_ids": (greedy[0],), "logit_bias": {greedy[0]: 100}}]
    for ends in either:
        text, tokens, reason = told(engine, min_tokens=5, **ends)
        assert (len(tokens), reason) == (5, "stop") and text
        assert told(engine, **ends)[1] == []


def test_a_stop_string_counts_from_min_tokens_on(engine: InferenceEngine) -> None:
    config: dict[str, Any] = {"logit_bias": {engine.encode("x")[0]: 100}, "stop": ("x",)}
    assert told(engine, **config)[::2] == ("", "stop")
    assert told(engine, min_tokens=3, **config)[::2] == ("xxx", "stop")


def test_min_tokens_are_no_more_than_may_come(engine: InferenceEngine) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        GenerationConfig(max_new_tokens=4, min_tokens=5)
    assert refused.value.param == "min_tokens"
    with pytest.raises(InvalidRequestError, match="min_tokens must be at most") as refused:
        told(engine, max_new_tokens=None, min_tokens=10**6)
    assert refused.value.param == "min_tokens"


def test_a_bad_word_of_one_token_never_comes(engine: InferenceEngine, greedy: list[int]) -> None:
    word = next(token for token in greedy if engine.encode(engine.decode([token])) == [token])
    assert word not in told(engine, bad_words=(engine.decode([word]),), ignore_eos=True)[1]


def test_of_a_longer_bad_word_the_beginning_may_come(engine: InferenceEngine) -> None:
    first, second = engine.encode("fo")[0], engine.encode("box")[0]
    spelled = engine.decode([first, second])
    ids = engine.encode(spelled)
    assert len(ids) > 1
    biased = {ids[0]: 50.0, ids[1]: 60.0} if ids[0] != ids[1] else {ids[0]: 60.0}
    _, tokens, _ = told(engine, bad_words=(spelled,), logit_bias=biased, ignore_eos=True)
    assert all(tokens[at : at + len(ids)] != ids for at in range(len(tokens)))
    assert ids[0] in tokens or ids[1] in tokens


def test_a_grammar_that_is_complete_before_min_tokens_is_an_error_that_says_so(engine: InferenceEngine) -> None:
    grammar = Grammar("choice", '["ab"]', "structured_outputs.choice")
    with pytest.raises(InvalidRequestError, match=r"min_tokens: after \d of 9 tokens .* structured_outputs.choice") as failed:
        told(engine, grammar=grammar, min_tokens=9)
    assert failed.value.param == "min_tokens"
    assert told(engine, grammar=Grammar("regex", "[a-z]+"), min_tokens=9, logit_bias={IM_END: 100})[0].isalpha()


def test_a_grammar_that_asks_for_a_bad_word_is_an_error_that_says_so(engine: InferenceEngine) -> None:
    letters = tuple("abcdefghijklmnopqrstuvwxyz")
    other = engine.submit([engine.encode("Hello")], GenerationConfig(max_new_tokens=16, temperature=0, ignore_eos=True))
    with pytest.raises(InvalidRequestError, match=r"bad_words: the output cannot go on .* guided_regex") as failed:
        told(engine, grammar=Grammar("regex", "1[a-z]", "guided_regex"), bad_words=letters)
    assert failed.value.param == "bad_words"
    assert [event.finish_reason for event in other if isinstance(event, ChoiceFinished)] == ["length"]  # who runs beside it goes on


def test_choices_are_barred_each_by_its_own_tokens(engine: InferenceEngine) -> None:
    config: dict[str, Any] = {"n": 3, "temperature": 1.0, "seed": 1, "min_tokens": 6, "logit_bias": {IM_END: 30}, "bad_words": ("e", "a")}
    for choice in range(3):
        _, tokens, reason = told(engine, choice=choice, **config)
        assert (len(tokens), reason) == (6, "stop")


@pytest.mark.parametrize("field", ["stop_token_ids", "logit_bias"])
def test_ids_outside_the_vocabulary_are_named(engine: InferenceEngine, field: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"{field}: token id 99999 is outside") as refused:
        told(engine, **dict[str, Any]({field: (99999,) if field == "stop_token_ids" else {99999: 1.0}}))
    assert refused.value.param == field


def test_what_is_barred_survives_preemption(gpt2_checkpoint: Path) -> None:
    loaded = ModelLoader().load(ModelConfig(model_name=str(gpt2_checkpoint), device="cpu", dtype="fp32"))
    config = GenerationConfig(max_new_tokens=24, min_tokens=20, temperature=0.8, seed=4, bad_words=("the", "o", "qu"), logit_bias={0: 20})
    found: list[list[list[int]]] = []
    for budget in (None, 2 * 2 * 64 * 4 * 110):
        engine = InferenceEngine.for_loaded_model(loaded, EngineSettings(max_running=6), budget)
        prompts = [engine.encode("Once upon a time " * (1 + i % 3)) for i in range(8)]
        generations = [engine.submit([ids], config) for ids in prompts]
        found.append([[token for event in each if isinstance(event, TextDelta) for token in event.token_ids] for each in generations])
        preemptions = engine.stats().preemptions
        engine.close()
    assert found[0] == found[1] and preemptions
    assert all(20 <= len(tokens) <= 24 for tokens in found[0])


TOKENS = st.lists(st.integers(0, 3), min_size=1, max_size=8)


@given(TOKENS, st.integers(0, 7), st.integers(0, 5), st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3), max_size=4))
def test_barred_tokens_are_those_of_the_definition(tokens: list[int], prompt: int, least: int, words: list[list[int]]) -> None:
    prompt = min(prompt, len(tokens))
    output = tokens[prompt:]
    expected = {word[-1] for word in words if len(word) == 1 or output[-len(word) + 1 :] == word[:-1]}
    expected |= {7, 8} if len(output) < least else set()
    barred = BarredTokens(min_tokens=least, ends=frozenset({7, 8}), words=words)
    assert barred.next(tokens, prompt) == expected
    assert bool(barred) == bool(least or words)


def test_a_limit_that_is_clamped_to_the_context_is_no_error(engine: InferenceEngine) -> None:
    limit = {"max_new_tokens": 10**6, "clamp_to_context": True, "logit_bias": {IM_END: 100}}
    assert told(engine, **limit)[2] == "stop"
    with pytest.raises(InvalidRequestError):
        told(engine, **{**limit, "clamp_to_context": False})
