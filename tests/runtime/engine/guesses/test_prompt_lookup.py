"""Guessed tokens change how many steps a text takes, and nothing of the text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from transformers import LlamaConfig, Phi3Config

from mm_gateway.chat_templates.reasoning_formats.format import ThoughtPlan
from mm_gateway.chat_templates.reasoning_formats.formats import REASONING_FORMATS, tags
from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import ChoiceFinished, GenerationConfig, Grammar, ReasoningDelta, TextDelta, Usage
from mm_gateway.errors import InvalidRequestError
from mm_gateway.runtime.inference_engine import InferenceEngine
from mm_gateway.runtime.kernels.library import library
from mm_gateway.runtime.model_loader import ModelConfig, ModelLoader
from tests.runtime.engine.forward.test_compiled_forward import SHAPE, save

pytestmark = pytest.mark.skipif(library() is None, reason="no C++ compiler")

REPETITIVE = [7, 8, 9, 10, 11, 12, 13, 14] * 6
PLAIN = [5, 90, 17, 33, 200, 41]

Factory = Callable[..., InferenceEngine]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a model that mostly says its last token again, since its embeddings, which are its head, outweigh its layers."""
    shape = SHAPE | {"initializer_range": 0.02, "tie_word_embeddings": True}
    folder, model = save(tmp_path_factory.mktemp("llama"), LlamaConfig(**shape))
    with torch.no_grad():
        model.get_parameter("model.embed_tokens.weight").mul_(6)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def plain_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a model that says many tokens."""
    return save(tmp_path_factory.mktemp("plain"), LlamaConfig(**SHAPE))[0]


@pytest.fixture
def make_engine(folder: Path) -> Iterator[Factory]:
    engines: list[InferenceEngine] = []

    def make(held: dict[str, Any], *, kv_cache_bytes: int | None = None, **settings: Any) -> InferenceEngine:
        entry: dict[str, Any] = {"model_name": str(folder), "device": "cpu"} | held
        loaded = ModelLoader().load(ModelConfig(**entry))
        engines.append(InferenceEngine.for_loaded_model(loaded, EngineSettings(**settings), kv_cache_bytes))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


ROWS = {
    "type": "array",
    "minItems": 6,
    "maxItems": 9,
    "items": {
        "type": "object",
        "properties": {"name": {"enum": ["left", "right"]}, "count": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["name", "count"],
        "additionalProperties": False,
    },
}
GRAMMARS = [
    Grammar("json_schema", json.dumps(ROWS)),
    Grammar("regex", "(abc|abd|[e-h]{3,9} )*"),
    Grammar("lark", 'start: "begin" line{5,}\nline: "\\n" /[+-]/ /[a-d]{1,4}/'),
]


def requests() -> list[tuple[list[int], GenerationConfig]]:
    """Greedy and by seed, with every way to choose among tokens, log-probabilities, several choices, stops and limits."""
    configs = [
        GenerationConfig(max_new_tokens=60, temperature=0, ignore_eos=True),
        GenerationConfig(max_new_tokens=60, temperature=0, ignore_eos=True, logprobs=2),
        GenerationConfig(max_new_tokens=60, temperature=2, seed=1, ignore_eos=True),
        GenerationConfig(max_new_tokens=60, temperature=2, seed=2, top_k=5, ignore_eos=True, n=2),
        GenerationConfig(max_new_tokens=60, temperature=2, seed=3, top_p=0.4, min_p=0.05, logit_bias={9: 4.0}),
        GenerationConfig(max_new_tokens=60, temperature=2, seed=4, min_tokens=3, frequency_penalty=0.4),
        GenerationConfig(max_new_tokens=40, temperature=2, seed=5, repetition_penalty=1.2, bad_words=("ab", "e"), ignore_eos=True),
        GenerationConfig(max_new_tokens=40, temperature=0, presence_penalty=0.5, logprobs=1, ignore_eos=True),
        GenerationConfig(max_new_tokens=1, temperature=0),
        GenerationConfig(max_new_tokens=60, temperature=0, stop_token_ids=(13,)),
    ]
    return [(prompt, config) for config in configs for prompt in (REPETITIVE, PLAIN)]


def told(
    engine: InferenceEngine, *, together: bool, grammar: Grammar | None = None, thoughts: ThoughtPlan | None = None, **changes: Any
) -> list[list[Any]]:
    """All tokens with their scores, and how each choice ended. changes: of every request's parameters."""

    def events_of(generation: Any) -> list[Any]:
        choices: dict[int, list[Any]] = {}
        try:
            for event in generation:
                if isinstance(event, TextDelta | ReasoningDelta):
                    entries = [(type(event).__name__, token) for token in event.token_ids]
                    choices.setdefault(event.index, []).extend([*entries, *event.logprobs])
                elif isinstance(event, ChoiceFinished):
                    choices.setdefault(event.index, []).append(event.finish_reason)
        except InvalidRequestError as error:  # where a grammar wants a bad word
            choices.setdefault(-1, []).append(str(error))
        return [choices[index] for index in sorted(choices)]

    changes |= {"grammar": grammar}
    submitted = (engine.submit([prompt], msgspec.structs.replace(config, **changes), thoughts=thoughts) for prompt, config in requests())
    return [events_of(generation) for generation in (list(submitted) if together else submitted)]


@pytest.mark.parametrize("held", [{"dtype": "fp32"}, {"dtype": "fp16"}, {"quantization": "8bit"}, {"quantization": "4bit"}])
def test_texts_are_the_same_token_by_token_in_fewer_steps(held: dict[str, str], make_engine: Factory) -> None:
    plain, guessing = make_engine(held, prompt_lookup=False), make_engine(held)
    expected = told(plain, together=False)
    assert told(guessing, together=False) == expected
    assert plain.stats().accepted_tokens == 0
    assert guessing.stats().accepted_tokens > 100
    assert guessing.stats().steps < 0.7 * plain.stats().steps
    assert told(guessing, together=True) == expected


@pytest.mark.parametrize("grammar", GRAMMARS, ids=lambda grammar: grammar.kind)
def test_texts_in_a_grammar_are_the_same(grammar: Grammar, make_engine: Factory) -> None:
    plain, guessing = make_engine({"dtype": "fp32"}, prompt_lookup=False), make_engine({"dtype": "fp32"})
    expected = told(plain, together=False, grammar=grammar)
    assert told(guessing, together=False, grammar=grammar) == expected
    assert guessing.stats().accepted_tokens > 50
    assert told(guessing, together=True, grammar=grammar) == expected


THOUGHTS = [
    ThoughtPlan(REASONING_FORMATS["think"], "thought", 25),  # closed for it
    ThoughtPlan(tags("letters", "e", "o", forced="o\n"), "thought"),  # that random weights open and close by themselves
    ThoughtPlan(tags("letters", "e", "o"), "undecided"),
    ThoughtPlan(REASONING_FORMATS["harmony"], "undecided", 9),
]


@pytest.mark.parametrize("plan", THOUGHTS, ids=lambda plan: f"{plan.format.name}, {plan.state}")
@pytest.mark.parametrize("grammar", [None, GRAMMARS[1]], ids=["free", "regex"])
def test_texts_with_thoughts_are_the_same(plan: ThoughtPlan, grammar: Grammar | None, make_engine: Factory) -> None:
    engine = make_engine({"dtype": "fp32"})
    expected = told(engine, together=False, grammar=grammar, thoughts=plan, speculation=False)
    assert engine.stats().draft_tokens == 0
    assert told(engine, together=False, grammar=grammar, thoughts=plan) == expected
    assert engine.stats().accepted_tokens > 20
    assert told(engine, together=True, grammar=grammar, thoughts=plan) == expected


def test_texts_are_the_same_where_room_is_scarce(make_engine: Factory) -> None:
    expected = told(make_engine({"dtype": "fp32"}, prompt_lookup=False), together=False)
    per_token = 2 * 3 * 3 * 16 * 4
    scarce = make_engine({"dtype": "fp32"}, kv_cache_bytes=200 * per_token)
    assert told(scarce, together=True) == expected
    assert scarce.stats().preemptions > 0
    assert scarce.stats().accepted_tokens > 0


def test_usage_says_how_many_tokens_were_guessed(make_engine: Factory) -> None:
    engine = make_engine({"dtype": "fp32"})
    usage = list(engine.submit([REPETITIVE], requests()[0][1]))[-1]
    assert isinstance(usage, Usage)
    assert usage.completion_tokens == 60
    stats = engine.stats()
    assert 0 < usage.accepted_tokens == stats.accepted_tokens
    assert usage.rejected_tokens == stats.draft_tokens - stats.accepted_tokens


def test_nothing_is_guessed_for_a_request_that_wants_none(make_engine: Factory) -> None:
    engine = make_engine({"dtype": "fp32"})
    usage = list(engine.submit([REPETITIVE], msgspec.structs.replace(requests()[0][1], speculation=False)))[-1]
    assert isinstance(usage, Usage)
    assert (usage.accepted_tokens, usage.rejected_tokens, engine.stats().draft_tokens) == (0, 0, 0)


def test_a_model_that_its_modules_compute_guesses_nothing(make_engine: Factory) -> None:
    engine = make_engine({"dtype": "fp32"}, compiled_forward=False)
    told(engine, together=False)
    assert engine.stats().accepted_tokens == 0


def test_a_model_whose_angles_depend_on_the_length_guesses_nothing(tmp_path: Path) -> None:
    factors = [1.0 + 0.1 * index for index in range(8)]
    long = {"rope_type": "longrope", "long_factor": factors, "short_factor": [1.0] * 8, "rope_theta": 10000.0}
    config = Phi3Config(**SHAPE, sliding_window=None, original_max_position_embeddings=128, rope_parameters=long)
    folder, _ = save(tmp_path, config)
    loaded = ModelLoader().load(ModelConfig(model_name=str(folder), device="cpu", dtype="fp32"))
    engine = InferenceEngine.for_loaded_model(loaded, EngineSettings())
    try:
        list(engine.submit([REPETITIVE], requests()[0][1]))
        assert engine.stats().steps == 60
    finally:
        engine.close()


def test_a_prediction_takes_fewer_steps_and_the_text_is_the_same(plain_folder: Path) -> None:
    engine = InferenceEngine.for_loaded_model(
        ModelLoader().load(ModelConfig(model_name=str(plain_folder), device="cpu", dtype="fp32")), EngineSettings()
    )

    def say(config: GenerationConfig, prediction: list[int] | None) -> tuple[list[int], Usage, int]:
        before = engine.stats().steps
        events = list(engine.submit([PLAIN], config, prediction=prediction))
        usage = next(event for event in events if isinstance(event, Usage))
        return (
            [token for event in events if isinstance(event, TextDelta) for token in event.token_ids],
            usage,
            engine.stats().steps - before,
        )

    for temperature in (0, 1):
        config = GenerationConfig(max_new_tokens=80, ignore_eos=True, temperature=temperature, seed=7)
        plain, without, steps = say(config, None)
        assert without.accepted_tokens < 20, "it does not repeat itself"
        edited = [*plain[:30], 3, 4, 5, *plain[34:]]
        for prediction, most in ((plain, 15), (edited, 25)):
            told, usage, fewer = say(config, prediction)
            assert told == plain
            assert fewer <= most < steps and usage.accepted_tokens > 50
        told, usage, _ = say(config, [plain[0], *reversed(plain)])
        assert told == plain and usage.rejected_tokens > 0
        text = engine.decode(plain)
        assert say(msgspec.structs.replace(config, prediction=text), None)[0] == plain
        told, usage, _ = say(msgspec.structs.replace(config, speculation=False), plain)
        assert told == plain and usage.accepted_tokens == usage.rejected_tokens == 0
    engine.close()
