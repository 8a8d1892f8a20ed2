"""Whatever schema compiles, a model of random weights writes what fits it, or is cut by its limit of tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import ChoiceFinished, GenerationConfig, Grammar, TextDelta
from mm_gateway.errors import InvalidRequestError
from mm_gateway.runtime.inference_engine import InferenceEngine
from mm_gateway.runtime.model_loader import ModelConfig, ModelLoader
from tests.support.json_schemas import json_schemas


@pytest.fixture(scope="module")
def engine(qwen2_checkpoint: Path) -> Iterator[InferenceEngine]:
    loaded = ModelLoader().load(ModelConfig(model_name=str(qwen2_checkpoint), device="cpu", dtype="fp32"))
    engine = InferenceEngine.for_loaded_model(loaded, EngineSettings(max_running=32))
    yield engine
    engine.close()


@given(schemas=st.lists(json_schemas(), min_size=8, max_size=8), seed=st.integers(0, 1000))
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_what_a_model_writes_fits_its_schema_or_is_cut(engine: InferenceEngine, schemas: list[dict[str, Any]], seed: int) -> None:
    generations = []
    for schema in schemas:
        grammar = Grammar("json_schema", json.dumps(schema))
        try:
            generations.append((schema, engine.submit([[5]], GenerationConfig(n=2, max_new_tokens=40, seed=seed, grammar=grammar))))
        except InvalidRequestError:
            continue  # it does not compile
    for schema, generation in generations:
        texts, reasons = ["", ""], ["", ""]
        for event in generation:
            if isinstance(event, TextDelta):
                texts[event.index] += event.text
            elif isinstance(event, ChoiceFinished):
                reasons[event.index] = event.finish_reason
        for text, reason in zip(texts, reasons, strict=True):
            assert reason in ("stop", "length")
            if reason == "stop":
                jsonschema.Draft202012Validator(schema).validate(json.loads(text))


SPECIAL = "<|im_end|>"  # a token of the model, which ends its texts


@pytest.mark.parametrize(
    ("grammar", "right"),
    [
        (Grammar("choice", json.dumps([SPECIAL]), "guided_choice"), SPECIAL),
        (Grammar("choice", json.dumps([f"one {SPECIAL} two"]), "guided_choice"), f"one {SPECIAL} two"),
        (Grammar("regex", r"<\|im_end\|>", "guided_regex"), SPECIAL),
        (Grammar("lark", f'start: "{SPECIAL}"', "guided_grammar"), SPECIAL),
        (Grammar("json_schema", json.dumps({"const": SPECIAL})), json.dumps(SPECIAL)),
        (Grammar("json_schema", json.dumps({"type": "object", "properties": {SPECIAL: {"const": 1}}, "required": [SPECIAL]})), None),
        (Grammar("lark", 'start: %json {"enum": ["<|im_end|>"]}', "tools"), json.dumps(SPECIAL)),
    ],
)
def test_text_that_spells_a_control_token_is_written_or_refused_with_the_reason(
    engine: InferenceEngine, grammar: Grammar, right: str | None
) -> None:
    try:
        result = engine.generate("Hello", GenerationConfig(grammar=grammar, max_new_tokens=60, seed=1))
    except InvalidRequestError as refused:
        assert refused.param == grammar.param
        assert "control token" in str(refused)
    else:
        assert result.finish_reason == "stop" and right in (None, result.text)
