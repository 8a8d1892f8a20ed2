"""Workflows as models, whatever their stages are: parameters, usage, steps, errors, cancelling, and the Python call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, suppress
from typing import Any

import pytest

from mm_gateway.catalog import Catalog
from mm_gateway.core import (
    ChatInput,
    ChoiceFinished,
    CompletionInput,
    GenerationConfig,
    GenerationEvent,
    GenerationRequest,
    Grammar,
    Message,
    Progress,
    Reasoning,
    ReasoningDelta,
    StageUsage,
    TextDelta,
    Tool,
    ToolUse,
    Usage,
    WorkflowOutcome,
    WorkflowStep,
)
from mm_gateway.errors import EngineError, InvalidRequestError, ModelNotFoundError, StageTimeoutError, UnsupportedParameterError
from mm_gateway.workflows.backend import WorkflowBackend
from mm_gateway.workflows.parameters import Parameters
from mm_gateway.workflows.run import Run
from mm_gateway.workflows.workflow import Workflow
from tests.support.scripted_backend import ScriptedBackend
from tests.workflows.echo_twice import EchoTwice

ANSWER = [TextDelta(0, "A "), TextDelta(0, "text"), ChoiceFinished(0, "stop"), Usage(5, 2, 1)]


def request(**changes: Any) -> GenerationRequest:
    values: dict[str, Any] = {"request_id": "r", "model": "mm-orch/echo-twice", "input": ChatInput((Message(role="user", content="tea"),))}
    return GenerationRequest(**values | changes)


def over(model: ScriptedBackend) -> WorkflowBackend:
    return WorkflowBackend("mm-orch/echo-twice", EchoTwice(), model, created=0)


async def collect(backend: WorkflowBackend, asked: GenerationRequest) -> list[GenerationEvent]:
    return [event async for event in backend.generate(asked)]


async def test_stages_run_in_order_and_end_with_outcome_choices_and_the_sum_of_usage() -> None:
    model = ScriptedBackend([Progress("loading", "half of it", 0.5), *ANSWER])
    events = await collect(over(model), request())
    assert [event.stage for event in events if isinstance(event, Progress)] == ["title", "title", "text", "text"]
    assert events[1] == Progress("title", "half of it", 0.5)
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "# A text\n\nA text"
    outcome, finished, usage = events[-3:]
    assert isinstance(outcome, WorkflowOutcome) and [step.name for step in outcome.steps] == ["title", "text"]
    assert outcome.metadata == {"title": "A text"} and not outcome.degraded and outcome.model == "scripted"
    assert finished == ChoiceFinished(0, "stop")
    assert usage == Usage(10, 4, 2, stages=(StageUsage("title", 5, 2), StageUsage("text", 5, 2)))
    assert model.closed == 2


@pytest.mark.parametrize(
    ("asked", "title", "text"),
    [
        (Reasoning(), Reasoning(effort="none"), Reasoning()),
        (Reasoning(effort="high"), Reasoning(effort="high"), Reasoning(effort="high")),
        (Reasoning(thinking_budget=0), Reasoning(thinking_budget=0), Reasoning(thinking_budget=0)),
    ],
)
async def test_a_request_says_how_much_is_thought_and_by_default_only_the_stage_that_answers_thinks(
    asked: Reasoning, title: Reasoning, text: Reasoning
) -> None:
    model = ScriptedBackend([ReasoningDelta(0, "Hm."), *ANSWER])
    conversation = ChatInput((Message(role="user", content="tea"),), reasoning=asked)
    events = await collect(over(model), request(input=conversation))
    assert [sent.input.reasoning for sent in model.requests if isinstance(sent.input, ChatInput)] == [title, text]
    assert [event.text for event in events if isinstance(event, ReasoningDelta)] == ["Hm."]


async def test_the_requests_own_parameters_go_to_the_stage_that_answers() -> None:
    model = ScriptedBackend(ANSWER)
    conversation = ChatInput((Message(role="user", content="tea"),), truncate=False)
    asked = request(input=conversation, config=GenerationConfig(temperature=0.3, seed=7), keep_alive=9.0, principal="p")
    await collect(over(model), asked)
    title, text = model.requests
    assert isinstance(text.input, ChatInput) and text.input.truncate is False
    assert title.config == GenerationConfig(max_new_tokens=12)
    assert text.config == GenerationConfig(temperature=0.3, seed=7, max_new_tokens=200)
    assert text.keep_alive == 9.0 and text.principal == "p" and text.workflow is None


@pytest.mark.parametrize(
    ("given", "param", "words"),
    [
        ({"sentences": 99}, "workflow.sentences", "must be between 1 and 10, got 99"),
        ({"sentences": "3"}, "workflow.sentences", "Expected `int`"),
        ({"sentence": 3}, "workflow.sentence", "there are events, topic, sentences"),
        ({"topic": "coffee"}, "workflow.topic", "last user message"),
        ({"events": 1}, "workflow.events", "Expected `bool`"),
    ],
)
async def test_a_wrong_parameter_is_named(given: Mapping[str, Any], param: str, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words) as caught:
        await collect(over(ScriptedBackend(ANSWER)), request(workflow=given))
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"input": ChatInput((Message(role="user", content="x"),), ToolUse((Tool("f"),)))}, "tools"),
        ({"config": GenerationConfig(logprobs=0)}, "logprobs"),
        ({"config": GenerationConfig(grammar=Grammar("json_object"))}, "response_format"),
        ({"config": GenerationConfig(grammar=Grammar("regex", "a", "guided_regex"))}, "guided_regex"),
        ({"input": ChatInput((Message(role="assistant", content="x"),))}, "messages[0].role"),
        (
            {
                "input": ChatInput((Message(role="system", content="x"), Message(role="user", content=" "))),
            },
            "messages[1].content",
        ),
        ({"input": CompletionInput(("x",))}, "model"),
    ],
)
async def test_what_a_workflow_does_not_serve_is_refused_by_name(changes: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await collect(over(ScriptedBackend(ANSWER)), request(**changes))
    assert caught.value.param == param


async def test_an_error_of_the_model_is_the_workflows_error_and_ends_its_stage() -> None:
    seen: list[GenerationEvent] = []
    with pytest.raises(EngineError, match="broken"):
        async for event in over(ScriptedBackend([EngineError("broken")])).generate(request()):
            seen.append(event)  # noqa: PERF401 - what came before the error is asserted
    assert isinstance(seen[-1], WorkflowStep) and not seen[-1].success and seen[-1].error == "broken"


async def test_closing_amid_a_stage_closes_the_models_generator() -> None:
    model = ScriptedBackend([TextDelta(0, "a"), 60.0, *ANSWER])
    async with aclosing(over(model).generate(request())) as events:  # type: ignore[type-var]
        async for event in events:
            if isinstance(event, Progress):
                break
    assert (model.started, model.closed) == (0, 0)
    task = asyncio.create_task(collect(over(model), request()))
    while not model.started:  # noqa: ASYNC110 - the scripted backend counts its starts; each turn of the loop is one look
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (model.started, model.closed) == (1, 1)


class _Fetching(Workflow[Parameters]):
    name, description, subject = "fetching", "Waits for tasks", "query"

    class parameters(Parameters, frozen=True, kw_only=True):
        query: str

    def __init__(self) -> None:
        super().__init__()
        self.stopped = 0

    async def stages(self, run: Run, parameters: Parameters) -> AsyncIterator[GenerationEvent]:
        yield run.begin("fetch", input_count=2)
        tasks = [run.start(self.fetch()) for _ in range(2)]
        yield run.progress("both run", 0.5)
        await asyncio.gather(*tasks)

    async def fetch(self) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            self.stopped += 1


async def test_tasks_of_a_stage_stop_with_the_request() -> None:
    workflow = _Fetching()
    backend = WorkflowBackend("mm-orch/fetching", workflow, ScriptedBackend(ANSWER), created=0)
    async with aclosing(backend.generate(request())) as events:  # type: ignore[type-var]
        async for event in events:
            if event == Progress("fetch", "both run", 0.5):
                await asyncio.sleep(0)
                break
    assert workflow.stopped == 2


async def test_a_catalog_resolves_a_workflow_with_the_model_that_it_names() -> None:
    models = {name: ScriptedBackend(ANSWER, name) for name in ("one", "two@x")}
    catalog = Catalog(models, aliases={"second": "two@x"}, workflows=[EchoTwice()], workflow_model="second")
    assert catalog.resolve("mm-orch/echo-twice").info().details["model"] == "two@x"
    assert catalog.resolve("mm-orch/echo-twice@one").info().details["model"] == "one"
    assert catalog.resolve("mm-orch/echo-twice@two@x").info().id == "mm-orch/echo-twice@two@x"
    for name in ("mm-orch/echo-twice@none", "mm-orch/echo-twice@mm-orch/echo-twice", "mm-orch/echo-twice@", "mm-orch/other@one"):
        with pytest.raises(ModelNotFoundError, match="Configured models: one, two@x"):
            catalog.resolve(name)
    listed = catalog.infos()[-1]
    assert listed.id == "mm-orch/echo-twice" and listed.backend == "workflow"
    assert listed.details["parameters"]["sentences"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 10,
        "description": "How long the text is",
        "default": 3,
    }
    assert "topic" not in listed.details["parameters"]


async def test_a_plain_model_refuses_parameters_of_a_workflow() -> None:
    from mm_gateway.backends.mock.backend import MockBackend
    from mm_gateway.configuration.model_config import ModelConfig

    mock = MockBackend("mock", ModelConfig(model_name="mock", backend="mock"), 0)
    with pytest.raises(UnsupportedParameterError) as caught:
        _ = [event async for event in mock.generate(request(workflow={}))]
    assert caught.value.param == "workflow"


def test_execute_runs_the_same_stages_and_tells_what_they_did() -> None:
    result = EchoTwice().execute({"topic": "tea", "sentences": 2})
    assert result.status == "success" and result.error is None
    assert result.result.startswith("# ")
    assert [step["name"] for step in result.metadata["steps"]] == ["title", "text"]
    assert {"success", "duration_s", "input_count", "output_count", "degraded", "error"} <= set(result.metadata["steps"][0])
    assert result.metadata["model"] == "mock" and result.metadata["usage"]["completion_tokens"] == 36


async def test_execute_works_where_an_event_loop_runs() -> None:
    assert EchoTwice().execute({"topic": "tea"}).status == "success"


def test_execute_reports_an_error_of_the_model_as_failed_and_raises_for_wrong_parameters() -> None:
    result = EchoTwice().execute({"topic": "!mock error=503"})
    assert (result.result, result.status, result.error) == (None, "failed", "The mock was told to be unavailable")
    assert result.metadata["steps"][0]["success"] is False
    with pytest.raises(InvalidRequestError) as caught:
        EchoTwice().execute({"topic": "tea", "sentences": 0})
    assert caught.value.param == "sentences"
    with pytest.raises(InvalidRequestError, match="topic"):
        EchoTwice().execute({})


class Topic(Parameters, frozen=True, kw_only=True):
    topic: str


class Waiting(Workflow[Topic]):
    """Waits for ever for work of its own, or for the model where the topic is "model"."""

    name = "waiting"
    description = "A test's"
    subject = "topic"
    parameters = Topic

    async def stages(self, run: Run, parameters: Topic) -> AsyncIterator[GenerationEvent]:
        yield run.begin("work")
        if parameters.topic != "model":
            await run.start(asyncio.Event().wait())
        async for event in run.ask(run.messages, run.config()):
            yield event
        yield run.end()


@pytest.mark.parametrize("topic", ["work", "model"])
async def test_every_wait_of_a_stage_has_a_bound_and_its_error_names_the_stage(topic: str) -> None:
    model = ScriptedBackend([TextDelta(0, "begun"), 1e9])
    backend = WorkflowBackend("mm-orch/waiting", Waiting(), model, created=0, wait_timeout_s=0.1)
    asked = request(input=ChatInput((Message(role="user", content=topic),)))
    events: list[GenerationEvent] = []
    with pytest.raises(StageTimeoutError, match=r"stage work waited 0\.1 s for"):
        async with asyncio.timeout(20), aclosing(backend.generate(asked)) as stream:  # type: ignore[type-var]
            async for event in stream:
                events.append(event)  # noqa: PERF401 - what came before the error is asserted
    assert isinstance(events[-1], WorkflowStep)
    assert not events[-1].success
    assert model.closed == model.started


async def test_a_timeout_of_the_work_itself_is_its_own() -> None:
    async def late() -> None:
        raise TimeoutError("its own")

    run = Run(request(), ScriptedBackend([]), wait_timeout_s=60)
    with pytest.raises(TimeoutError, match="its own"):
        await run.start(late())


async def test_closing_a_run_does_not_wait_for_work_that_will_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mm_gateway.workflows.run.CLOSE_TIMEOUT_S", 0.05)
    begun, end = asyncio.Event(), asyncio.Event()

    async def stubborn() -> None:
        while not end.is_set():
            with suppress(asyncio.CancelledError):
                begun.set()
                await end.wait()

    run = Run(request(), ScriptedBackend([]))
    task = run.start(stubborn())
    await begun.wait()
    await asyncio.wait_for(run.close(), 20)
    assert not task.done()
    end.set()
    await asyncio.wait([task])
