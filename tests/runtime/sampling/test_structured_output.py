"""Even a model of random weights keeps to a grammar, whatever else is in its batch."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import ChoiceFinished, GenerationConfig, Grammar, TextDelta
from mm_gateway.errors import EngineError, InvalidRequestError, UnsupportedParameterError
from mm_gateway.runtime.inference_engine import InferenceEngine
from mm_gateway.runtime.model_loader import ModelConfig, ModelLoader
from mm_gateway.runtime.sampling import structured_output
from mm_gateway.runtime.sampling.structured_output import CompiledGrammar, GrammarCompiler, GrammarState


class Person(msgspec.Struct, forbid_unknown_fields=True):
    """What SCHEMA describes."""

    name: str
    age: int
    mood: Literal["good", "bad", "schön"]
    tags: list[str]


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "mood": {"enum": ["good", "bad", "schön"]},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 5}, "maxItems": 3},
    },
    "required": ["name", "age", "mood", "tags"],
    "additionalProperties": False,
}


def schema(value: Any) -> Grammar:
    return Grammar("json_schema", json.dumps(value))


@pytest.fixture(scope="module", params=["gpt2", "qwen2"])
def engine(request: pytest.FixtureRequest) -> Iterator[InferenceEngine]:
    folder: Path = request.getfixturevalue(f"{request.param}_checkpoint")
    loaded = ModelLoader().load(ModelConfig(model_name=str(folder), device="cpu", dtype="fp32"))
    engine = InferenceEngine.for_loaded_model(loaded, EngineSettings(max_running=32))
    yield engine
    engine.close()


def outputs(engine: InferenceEngine, count: int, **config: Any) -> list[tuple[str, str]]:
    """(text, finish reason) of each choice."""
    texts, reasons = [""] * count, [""] * count
    fields: dict[str, Any] = {"max_new_tokens": 200, "seed": 3} | config
    for event in engine.submit([engine.encode("Hello")], GenerationConfig(n=count, **fields)):
        if isinstance(event, TextDelta):
            texts[event.index] += event.text
        elif isinstance(event, ChoiceFinished):
            reasons[event.index] = event.finish_reason
    return list(zip(texts, reasons, strict=True))


@pytest.mark.parametrize("config", [{}, {"temperature": 0}, {"top_p": 0.5}, {"top_k": 3, "ignore_eos": True}, {"frequency_penalty": 1.0}])
def test_every_text_is_valid_json_of_its_schema(engine: InferenceEngine, config: dict[str, Any]) -> None:
    for text, reason in outputs(engine, 6, grammar=schema(SCHEMA), **config):
        assert reason == "stop"
        person = msgspec.json.decode(text, type=Person)
        assert 0 <= person.age <= 150 and len(person.name) <= 12 and len(person.tags) <= 3


def test_any_object_is_an_object(engine: InferenceEngine) -> None:
    for text, reason in outputs(engine, 4, grammar=Grammar("json_object"), max_new_tokens=150):
        assert text.startswith("{")
        if reason == "stop":
            assert isinstance(json.loads(text), dict)


def test_regex_choice_and_lark(engine: InferenceEngine) -> None:
    assert all(re.fullmatch(r"\d{3}-[a-f]{2}", text) for text, _ in outputs(engine, 4, grammar=Grammar("regex", r"\d{3}-[a-f]{2}")))
    choices = ["yes", "no", 'per"haps', "是"]
    found = {text for text, _ in outputs(engine, 16, grammar=Grammar("choice", json.dumps(choices)))}
    assert found <= set(choices) and len(found) > 1
    lark = 'start: "a" (b | c)\nb: "b" /[0-9]/\nc: "cc"'
    assert all(re.fullmatch(r"a(b\d|cc)", text) for text, _ in outputs(engine, 4, grammar=Grammar("lark", lark)))


def test_a_grammar_does_not_touch_its_neighbours(engine: InferenceEngine) -> None:
    config = GenerationConfig(max_new_tokens=20, temperature=0, ignore_eos=True)
    alone = engine.generate("The quick brown", config).text
    people = [GenerationConfig(max_new_tokens=100, grammar=schema(SCHEMA), seed=seed) for seed in range(4)]
    constrained = [engine.submit([engine.encode("Hello")], person) for person in people]
    assert engine.generate("The quick brown", config).text == alone
    for generation in constrained:
        text = "".join(event.text for event in generation if isinstance(event, TextDelta))
        assert text.startswith('{"name"')


def test_log_probabilities_are_still_the_models_own(engine: InferenceEngine) -> None:
    config = GenerationConfig(max_new_tokens=10, grammar=Grammar("choice", '["yes"]'), logprobs=2)
    tokens = [t for event in engine.submit([engine.encode("Hello")], config) if isinstance(event, TextDelta) for t in event.logprobs]
    assert tokens and all(token.logprob is not None and token.logprob < 0 for token in tokens)


@pytest.mark.parametrize(
    ("grammar", "says"),
    [
        (Grammar("json_schema", '{"type": "unheard-of"}'), "unheard-of"),
        (Grammar("json_schema", "{broken"), "response_format"),
        (Grammar("regex", "a(b", "guided_regex"), "guided_regex"),
        (Grammar("lark", "start: nowhere", "guided_grammar"), "nowhere"),
    ],
)
def test_what_cannot_be_compiled_says_where(engine: InferenceEngine, grammar: Grammar, says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says) as caught:
        engine.generate("Hello", GenerationConfig(grammar=grammar))
    assert caught.value.param == grammar.param
    assert len(str(caught.value)) < 1000


def test_a_tokenizer_without_an_end_cannot_follow_a_grammar(engine: InferenceEngine) -> None:
    with pytest.raises(UnsupportedParameterError, match="end-of-sequence"):
        GrammarCompiler(engine.tokenizer, 500, frozenset()).compile(Grammar("json_object"))


@pytest.mark.parametrize(
    "text",
    ['start: "a" T\nT: /b/ & /c/', 'start: "a" (T | U)\nT: /bb/ & /bc/\nU: /x+y/ & /x+z/'],
    ids=["at once", "further on"],
)
def test_a_grammar_that_comes_to_a_dead_end_is_an_error_of_its_request_and_no_finished_text(engine: InferenceEngine, text: str) -> None:
    """The reader of the old engine got "a" with the finish reason `stop`."""
    neighbour = engine.submit([engine.encode("Hello")], GenerationConfig(max_new_tokens=20, seed=1, ignore_eos=True))
    with pytest.raises(InvalidRequestError, match="guided_grammar: the output cannot go on in this grammar: no text fits it") as caught:
        engine.generate("Hello", GenerationConfig(grammar=Grammar("lark", text, "guided_grammar"), max_new_tokens=50))
    assert caught.value.param == "guided_grammar"
    assert sum(isinstance(event, ChoiceFinished) for event in neighbour) == 1


def test_masks_that_cannot_be_computed_fail_the_requests_that_they_are_for_and_no_other(engine: InferenceEngine) -> None:
    """All masks of a step are computed in one call, which fails as a whole."""
    people = GenerationConfig(max_new_tokens=100, grammar=schema(SCHEMA), seed=1)
    prompt = engine.encode("Hello")
    expected = [event for event in engine.submit([prompt], people) if isinstance(event, TextDelta)]
    compiled = engine.grammars.compile(schema(SCHEMA))
    broken = CompiledGrammar(engine, "tools", 0)  # type: ignore[arg-type]
    broken.new_state = lambda: GrammarState(object(), "tools")  # type: ignore[method-assign, arg-type]
    generations = [
        engine.submit([prompt], GenerationConfig(max_new_tokens=100, seed=1), grammar=grammar)
        for grammar in (compiled, broken, compiled, broken, None)
    ]
    for generation in (generations[1], generations[3]):
        with pytest.raises(EngineError, match="tools: which tokens may come next could not be found out"):
            list(generation)
    for generation in (generations[0], generations[2]):
        assert [event for event in generation if isinstance(event, TextDelta)] == expected
    assert sum(isinstance(event, ChoiceFinished) for event in generations[4]) == 1


def test_definitions_that_refer_to_each_other_thousands_of_times_are_refused(engine: InferenceEngine) -> None:
    """The process of the old engine ended with SIGSEGV."""
    links = {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(3000)}
    chain = schema({"$ref": "#/$defs/d0", "$defs": {**links, "d3000": {"type": "string"}}})
    rules = Grammar("lark", "\n".join(["start: r0", *(f'r{i}: "a" r{i + 1}' for i in range(3500)), 'r3500: "b"']), "guided_grammar")
    for grammar in (chain, rules):
        with pytest.raises(InvalidRequestError, match="too large a grammar"):
            engine.generate("Hello", GenerationConfig(grammar=grammar))


def test_a_grammar_is_compiled_once_for_all_fields_that_it_comes_in(engine: InferenceEngine) -> None:
    first = engine.grammars.compile(Grammar("regex", "[0-9]{7}", "guided_regex"))
    assert engine.grammars.compile(Grammar("regex", "[0-9]{7}", "guided_regex")) is first
    dead = 'start: "x" T\nT: /b/ & /c/'
    for param in ("guided_grammar", "tools"):
        with pytest.raises(InvalidRequestError) as caught:
            engine.generate("Hello", GenerationConfig(grammar=Grammar("lark", dead, param), max_new_tokens=50))
        assert caught.value.param == param


def test_compiled_grammars_are_kept_within_their_budget(engine: InferenceEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = GrammarCompiler(engine.tokenizer, 500, frozenset({0}))
    grammars = [Grammar("regex", f"[0-9]{{{length}}}") for length in range(1, 5)]
    first = compiler.compile(grammars[0])
    monkeypatch.setattr(structured_output, "CACHE_BYTES", first.size_bytes * 3)
    for grammar in grammars[1:]:
        compiler.compile(grammar)
    assert compiler.compile(grammars[3]) is compiler.compile(grammars[3])
    assert compiler.compile(grammars[0]) is not first


async def test_a_grammar_that_is_being_compiled_does_not_hold_up_one_that_was(engine: InferenceEngine) -> None:
    known = Grammar("choice", '["yes", "no"]')
    await engine.grammars.compiled(known)
    optional = schema({"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(900)}})
    slow = asyncio.create_task(engine.grammars.compiled(optional))
    await asyncio.sleep(0)
    await engine.grammars.compiled(known)
    assert not slow.done()
    await slow
