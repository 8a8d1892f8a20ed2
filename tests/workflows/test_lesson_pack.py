"""lesson-pack: what is asked in each stage, and how its JSON becomes a lesson while it is written."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mm_gateway.core import (
    ChatInput,
    ChoiceFinished,
    GenerationConfig,
    GenerationEvent,
    GenerationRequest,
    Grammar,
    Message,
    ModelInfo,
    TextDelta,
    Usage,
    WorkflowOutcome,
)
from mm_gateway.errors import ContextLengthExceededError, UnsupportedParameterError, UpstreamError
from mm_gateway.workflows.backend import WorkflowBackend
from mm_gateway.workflows.lesson_pack import LessonPackWorkflow
from tests.support import checkpoints
from tests.support.scripted_backend import ScriptedBackend, Step

PLAN = '{"sections":["Parts","Adding"]}'
EXPLANATION = (
    '{"topic":"Fractions","sections":[{"name":"Parts","content":"A \\"half\\"\\nis 1/2."},{"name":"Adding","content":"Same part."}]}'
)
EXERCISES = '[{"question":"What is 1/2 + 1/2?","answer":"1"},{"question":"And 1/4?","answer":"A quarter"}]'
MARKDOWN = """# Fractions

## Plan

1. Parts
2. Adding

## Parts

A "half"
is 1/2.

## Adding

Same part.

## Exercises

1. What is 1/2 + 1/2?

   **Answer:** 1

2. And 1/4?

   **Answer:** A quarter
"""


class StagedBackend(ScriptedBackend):
    """Answers each request with the next of `replies`, in pieces of `size` characters, to every choice."""

    def __init__(self, replies: Sequence[str | tuple[str, str]], size: int = 3, backend: str = "scripted") -> None:
        super().__init__([])
        self.replies = [reply if isinstance(reply, tuple) else (reply, "stop") for reply in replies]
        self.size = size
        self.backend = backend

    def info(self) -> ModelInfo:
        return ModelInfo(id="staged", created=0, backend=self.backend, elsewhere=self.backend == "remote")

    def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        text, reason = self.replies[len(self.requests)]
        script: list[Step] = []
        for at in range(0, len(text), self.size):
            script += [TextDelta(index, text[at : at + self.size]) for index in range(request.config.n)]
        script += [ChoiceFinished(index, reason) for index in range(request.config.n)]  # type: ignore[arg-type]
        self.script = [*script, Usage(10, 20 * request.config.n)]
        return super().generate(request)


async def lesson(
    model: ScriptedBackend, topic: str = "Fractions", config: GenerationConfig | None = None, **parameters: Any
) -> list[GenerationEvent]:
    backend = WorkflowBackend("mm-orch/lesson-pack", LessonPackWorkflow(), model, created=0)
    request = GenerationRequest(
        request_id="r",
        model="lesson",
        input=ChatInput((Message(role="user", content=topic),)),
        config=config or GenerationConfig(),
        workflow={"num_exercises": 2, **parameters},
    )
    return [event async for event in backend.generate(request)]


def text_of(events: Sequence[GenerationEvent], index: int = 0) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta) and event.index == index)


def outcome_of(events: Sequence[GenerationEvent]) -> WorkflowOutcome:
    return next(event for event in events if isinstance(event, WorkflowOutcome))


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
async def test_a_lesson_is_the_same_text_however_the_model_streams(size: int) -> None:
    events = await lesson(StagedBackend([PLAN, EXPLANATION, EXERCISES], size))
    assert text_of(events) == MARKDOWN
    assert outcome_of(events).result == {
        "topic": "Fractions",
        "plan": "1. Parts\n2. Adding",
        "explanation": '## Parts\n\nA "half"\nis 1/2.\n\n## Adding\n\nSame part.',
        "exercises": json.loads(EXERCISES),
    }
    assert [step.output_count for step in outcome_of(events).steps] == [2, 2, 2]
    if size == 1:
        assert len([event for event in events if isinstance(event, TextDelta)]) > 60


@pytest.mark.parametrize("size", [1, 1000])
async def test_json_object_gives_the_dictionary_while_it_is_written(size: int) -> None:
    config = GenerationConfig(grammar=Grammar("json_object"))
    events = await lesson(StagedBackend([PLAN, EXPLANATION, EXERCISES], size), config=config)
    assert json.loads(text_of(events)) == outcome_of(events).result
    with pytest.raises(UnsupportedParameterError):
        await lesson(StagedBackend([]), config=GenerationConfig(grammar=Grammar("json_schema", "{}")))


async def test_stages_are_asked_in_the_words_and_the_schema_of_the_parameters() -> None:
    model = StagedBackend([PLAN, EXPLANATION, EXERCISES])
    await lesson(model, "分数", difficulty="初级", include_examples=False, config=GenerationConfig(seed=3, temperature=0.1, stop=("END",)))
    prompts = [request.input.messages[-1].content for request in model.requests if isinstance(request.input, ChatInput)]
    assert prompts[0] == "为主题“分数”规划一节初级课程，列出各节的名称。"
    assert "1. Parts\n2. Adding" in prompts[1] and "不要举例" in prompts[1] and "编写2道" in prompts[2]
    plan, explanation, exercises = (json.loads(request.config.grammar.text) for request in model.requests if request.config.grammar)
    assert plan["properties"]["sections"]["maxItems"] == 5
    names = [entry["properties"]["name"] for entry in explanation["properties"]["sections"]["prefixItems"]]
    assert names == [{"const": "Parts"}, {"const": "Adding"}]
    assert (exercises["minItems"], exercises["maxItems"]) == (2, 2)
    assert {(request.config.seed, request.config.temperature, request.config.stop) for request in model.requests} == {(3, 0.1, ())}


async def test_every_choice_is_a_lesson_over_the_same_plan() -> None:
    model = StagedBackend([PLAN, EXPLANATION, EXERCISES])
    events = await lesson(model, config=GenerationConfig(n=2))
    assert text_of(events, 0) == text_of(events, 1) == MARKDOWN
    assert [request.config.n for request in model.requests] == [1, 2, 2]
    assert [event for event in events if isinstance(event, ChoiceFinished)] == [ChoiceFinished(0, "stop"), ChoiceFinished(1, "stop")]


async def test_max_tokens_bounds_all_stages_together() -> None:
    model = StagedBackend([PLAN, (EXPLANATION[:90], "length")])
    events = await lesson(model, config=GenerationConfig(max_new_tokens=40))
    assert [request.config.max_new_tokens for request in model.requests] == [40, 20]
    assert text_of(events).endswith('## Parts\n\nA "half"\nis 1/2.\n') and "Exercises" not in text_of(events)
    assert [(step.degraded, step.error) for step in outcome_of(events).steps[1:]] == [(True, "cut off by max_tokens")] * 2
    assert ChoiceFinished(0, "length") in events


async def test_after_a_stage_that_the_context_cuts_off_the_next_one_goes_on() -> None:
    events = await lesson(StagedBackend([PLAN, (EXPLANATION[:90], "length"), EXERCISES]))
    outcome = outcome_of(events)
    assert [step.error for step in outcome.steps] == [None, "cut off at the end of the model's context", None]
    assert outcome.degraded and len(outcome.result["exercises"]) == 2
    assert ChoiceFinished(0, "length") in events


async def test_json_that_is_cut_off_is_still_json() -> None:
    config = GenerationConfig(grammar=Grammar("json_object"))
    events = await lesson(StagedBackend([PLAN, (EXPLANATION[:90], "length"), (EXERCISES[:60], "length")]), config=config)
    assert json.loads(text_of(events))["exercises"] == json.loads(EXERCISES)[:1]
    assert outcome_of(events).steps[2].output_count == 1
    config = GenerationConfig(grammar=Grammar("json_object"), max_new_tokens=20)
    assert json.loads(text_of(await lesson(StagedBackend([PLAN]), config=config)))["exercises"] == []


@pytest.mark.parametrize("size", [1, 1000])
async def test_a_stop_string_ends_what_the_reader_sees(size: int) -> None:
    model = StagedBackend([PLAN, EXPLANATION], size)
    events = await lesson(model, config=GenerationConfig(stop=("\n\n## Adding",)))
    assert text_of(events) == MARKDOWN[: MARKDOWN.index("\n\n## Adding")]
    assert ChoiceFinished(0, "stop") in events and len(model.requests) == 2


async def test_a_server_elsewhere_gets_a_plain_schema_and_may_talk_around_its_json() -> None:
    fenced = f'Here you are:\n```json\n{{"exercises":{EXERCISES}}}\n```'
    model = StagedBackend([PLAN, EXPLANATION, fenced], 4, backend="remote")
    assert text_of(await lesson(model)) == MARKDOWN
    texts = [request.config.grammar.text for request in model.requests if request.config.grammar is not None]
    assert not any(word in text for text in texts for word in ("maxLength", "prefixItems", "const"))
    assert all(json.loads(text)["type"] == "object" for text in texts)


@pytest.mark.parametrize("reply", ["I would rather not.", '{"sections": oops'])
async def test_a_model_that_answers_with_something_else_is_an_error(reply: str) -> None:
    with pytest.raises(UpstreamError, match="staged did not answer the stage explanation"):
        await lesson(StagedBackend([PLAN, reply]))


async def test_fewer_exercises_than_asked_for_are_told() -> None:
    events = await lesson(StagedBackend([PLAN, EXPLANATION, EXERCISES]), num_exercises=5)
    assert outcome_of(events).steps[2].error == "the model wrote 2 of 5"


async def test_a_prompt_that_the_context_cannot_hold_is_refused() -> None:
    from mm_gateway.backends.mock.backend import MockBackend
    from mm_gateway.configuration.model_config import ModelConfig

    mock = MockBackend("mock", ModelConfig(model_name="mock", backend="mock", max_context_length=16), 0)
    with pytest.raises(ContextLengthExceededError):
        await lesson(mock)  # type: ignore[arg-type]


def test_random_weights_give_exactly_the_exercises_that_were_asked_for(tmp_path: Path) -> None:
    from mm_gateway.runtime.inference_engine import InferenceEngine
    from mm_gateway.runtime.model_loader import ModelConfig
    from mm_gateway.runtime.real_model_manager import RealModelManager

    manager = RealModelManager()
    folder = checkpoints.gpt2(tmp_path, n_positions=480, n_layer=1, n_embd=32)
    loaded = manager.load_model(ModelConfig(model_name=str(folder), dtype="fp32"))
    engine = InferenceEngine(loaded.model, loaded.tokenizer, loaded.device)
    result = LessonPackWorkflow(engine, use_real_models=True, language="en").execute({"topic": "tea", "num_exercises": 3})
    engine.close()
    manager.close()
    assert result.error is None
    assert len(result.result["exercises"]) == 3 and all(entry["question"] and entry["answer"] for entry in result.result["exercises"])
    assert 3 <= len(result.metadata["sections"]) <= 5
