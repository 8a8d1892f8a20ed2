"""lesson-pack: a plan, an explanation, and exercises; each stage is JSON by constrained decoding, shown as it is written.

Where a stage is cut off by the end of the model's context, what there is of it counts, the step is degraded, and the next stage
goes on, since none reads what the one before it wrote but the plan. Where `max_tokens`, which bounds all stages together, is used
up, the lesson ends there. Either way the choice finishes with `length`.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated, Any, Literal, cast, get_args

import msgspec
from msgspec import Meta

from mm_gateway.core import (
    ChoiceFinished,
    GenerationConfig,
    GenerationEvent,
    Grammar,
    Ignored,
    Message,
    Progress,
    ReasoningDelta,
    TextDelta,
)
from mm_gateway.errors import UpstreamError
from mm_gateway.text import language_of
from mm_gateway.workflows import lesson_schemas as schemas
from mm_gateway.workflows import lesson_writing as writing
from mm_gateway.workflows.lesson_writing import LessonText
from mm_gateway.workflows.parameters import Parameters
from mm_gateway.workflows.partial_json import PartialJson
from mm_gateway.workflows.prompts import DIFFICULTY_ZH, Difficulty, Language, exercises_messages, explanation_messages, plan_messages
from mm_gateway.workflows.run import Run
from mm_gateway.workflows.workflow import Workflow

_TEMPLATE_TOKENS = 32
"""What a chat template adds to messages at most."""


class LessonPackParameters(Parameters, frozen=True, kw_only=True):
    topic: str
    difficulty: Annotated[
        Literal["beginner", "intermediate", "advanced", "初级", "中级", "高级"], Meta(description="Level of the learner")
    ] = "intermediate"
    num_exercises: Annotated[int, Meta(ge=1, le=20, description="How many exercises there are, exactly")] = 3
    language: Annotated[Literal["en", "zh"] | None, Meta(description="By default the topic's")] = None
    include_examples: Annotated[bool, Meta(description="Ask for an example in each section")] = True


class LessonPackWorkflow(Workflow[LessonPackParameters]):
    """`execute` returns {"topic", "plan", "explanation", "exercises": [{"question", "answer"}]}, plan and explanation as Markdown."""

    name = "lesson-pack"
    description = "A lesson on a topic: plan, explanation, exercises with answers. Markdown, or JSON with response_format json_object"
    subject = "topic"
    parameters = LessonPackParameters
    serves = frozenset({"json_object"})

    async def stages(self, run: Run, parameters: LessonPackParameters) -> AsyncIterator[GenerationEvent]:
        lesson = _Lesson(run, parameters)
        async for event in lesson.plan():
            yield event
        for choice in lesson.choices:
            yield choice.delta(choice.text.begin())
        async for event in lesson.explain():
            yield event
        if not lesson.over():
            async for event in lesson.exercise():
                yield event
        for choice in lesson.choices:
            yield choice.delta(choice.text.end())
            yield ChoiceFinished(choice.index, "length" if choice.cut and not choice.text.stopped else "stop")
        run.result = lesson.result()


class _Choice:
    """One of the `n` lessons over the same plan. cut: the stages that were cut off."""

    def __init__(self, index: int, text: LessonText) -> None:
        self.index = index
        self.text = text
        self.cut: set[str] = set()
        self.explanation: Any = None
        self.exercises: Any = None

    def delta(self, text: str) -> TextDelta:
        return TextDelta(self.index, text)


class _Lesson:
    """The stages of one request. `choices` are there after the plan."""

    def __init__(self, run: Run, parameters: LessonPackParameters) -> None:
        self._run = run
        self._topic = " ".join(parameters.topic.split())
        self._count = parameters.num_exercises
        self._language: Language = parameters.language or language_of(parameters.topic)
        self._difficulty: Difficulty = _difficulty(parameters.difficulty)
        self._examples = parameters.include_examples
        # A server elsewhere may not know all of JSON schema.
        self._portable = run.model.info().elsewhere
        self._config = run.config(temperature=0.7, top_p=0.9)
        self.sections: list[str] = []
        self.choices: list[_Choice] = []

    async def plan(self) -> AsyncIterator[GenerationEvent]:
        run = self._run
        yield run.begin("plan", f"planning {self._topic}")
        messages = plan_messages(self._topic, self._difficulty, self._language)
        model = run.model.info()
        if model.state not in ("ready", "busy"):
            yield run.progress(f"loading {model.id}")
        grammar = schemas.plan_grammar(await self._room(messages), portable=self._portable)
        call = run.ask(messages, await self._stage_config(messages, grammar, n=1), think=False)
        async for progress in call.progress():
            yield progress
        value = self._parse(PartialJson(), call.text, "plan")
        cut = call.finish_reason == "length"
        self._check(value, cut, "plan")
        given = cast(dict[str, Sequence[object]], value).get("sections", ()) if isinstance(value, dict) else ()
        names = [" ".join(str(name).split()) for name in given]
        # The last name of a plan that was cut off may be half a name.
        complete = names[:-1] if cut and len(names) > 1 else names
        self.sections = [name for name in complete if name][: schemas.MAX_SECTIONS] or [self._topic]
        form: writing.Form = "json" if run.request.config.grammar is not None else "markdown"
        config = run.request.config
        self.choices = [
            _Choice(index, LessonText(self._topic, self.sections, self._language, form, config.stop)) for index in range(config.n)
        ]
        run.metadata |= {"topic": self._topic, "language": self._language, "difficulty": self._difficulty, "sections": self.sections}
        yield run.end(output_count=len(self.sections), degraded=self._why_cut() if cut else None)

    async def explain(self) -> AsyncIterator[GenerationEvent]:
        run = self._run
        yield run.begin("explanation", f"explaining {self._topic}", input_count=len(self.sections))
        messages = explanation_messages(self._topic, self._difficulty, self._language, self.sections, include_examples=self._examples)
        frame = schemas.explanation_frame(self._topic, self.sections)
        grammar = schemas.explanation_grammar(self._topic, self.sections, await self._room(messages, frame), portable=self._portable)

        def show(choice: _Choice, value: Any) -> str:
            choice.explanation = value
            return choice.text.explain(value)

        async for event in self._write("explanation", messages, grammar, show):
            yield event
        written = min(writing.sections_written(choice.explanation) for choice in self.choices)
        yield run.end(output_count=written, degraded=self._why("explanation", written, len(self.sections)))

    def over(self) -> bool:
        """Every choice has come to a stop string."""
        return all(choice.text.stopped for choice in self.choices)

    async def exercise(self) -> AsyncIterator[GenerationEvent]:
        run = self._run
        yield run.begin("exercises", f"writing {self._count} exercises", input_count=len(self.sections))
        messages = exercises_messages(self._topic, self._difficulty, self._language, self.sections, self._count)
        room = await self._room(messages, schemas.exercises_frame(self._count))
        grammar = schemas.exercises_grammar(self._count, room, portable=self._portable)

        if self._left() != 0:
            for choice in self.choices:
                yield choice.delta(choice.text.begin_exercises())

        def show(choice: _Choice, value: Any) -> str:
            choice.exercises = value
            return choice.text.exercise(value, self._count)

        async for event in self._write("exercises", messages, grammar, show):
            yield event
        for choice in self.choices:
            yield choice.delta(choice.text.exercise(choice.exercises, self._count, complete="exercises" not in choice.cut))
        done = min(len(self._exercises(choice)) for choice in self.choices)
        yield run.end(output_count=done, degraded=self._why("exercises", done, self._count))

    def result(self) -> dict[str, Any]:
        """The first choice as the guide's dictionary."""
        choice = self.choices[0]
        return {
            "topic": self._topic,
            "plan": writing.plan_text(self.sections),
            "explanation": writing.explanation_text(choice.explanation, self.sections),
            "exercises": self._exercises(choice),
        }

    def _exercises(self, choice: _Choice) -> list[dict[str, str]]:
        return writing.exercise_list(choice.exercises, self._count, complete="exercises" not in choice.cut)

    async def _write(
        self, stage: str, messages: Sequence[Message], grammar: Grammar, show: Callable[[_Choice, Any], str]
    ) -> AsyncIterator[GenerationEvent]:
        """Let the model write a stage of all choices; `show` says what of it is new to the reader."""
        if self._left() == 0:
            for choice in self.choices:
                choice.cut.add(stage)
            return
        readers = [PartialJson() for _ in self.choices]
        values: list[Any] = [None] * len(self.choices)
        config = await self._stage_config(messages, grammar, n=len(self.choices))
        async for event in self._run.ask(messages, config, think=False):
            match event:
                case Progress() | ReasoningDelta() | Ignored():
                    yield event
                case TextDelta(index=index, text=text):
                    values[index] = self._parse(readers[index], text, stage)
                    new = show(self.choices[index], values[index])
                    if new:
                        yield self.choices[index].delta(new)
                case ChoiceFinished(index=index, finish_reason=reason):
                    if reason == "length":
                        self.choices[index].cut.add(stage)
                    self._check(values[index], reason == "length", stage)
                case _:
                    pass

    async def _stage_config(self, messages: Sequence[Message], grammar: Grammar, *, n: int) -> GenerationConfig:
        left = self._left()
        if left is not None:
            # What the client allows for all stages may be more than the context has room for in one.
            room = await self._room(messages)
            left = left if room is None else min(left, room)
        return msgspec.structs.replace(self._config, n=n, stop=(), grammar=grammar, max_new_tokens=left)

    def _left(self) -> int | None:
        """Tokens of `max_tokens` that each choice may still take; None: no limit."""
        limit = self._run.request.config.max_new_tokens
        if limit is None:
            return None
        shared = {"plan"}  # by all choices
        size = self._run.request.config.n
        used = [usage.completion_tokens / (1 if usage.stage in shared else size) for usage in self._run.usage().stages]
        return max(0, limit - math.ceil(sum(used)))

    async def _room(self, messages: Sequence[Message], frame: str = "") -> int | None:
        """Tokens that the context leaves for the reply, without what its frame takes; at least one. None: unknown."""
        tokens = await self._run.count_tokens([frame, *(message.content for message in messages)])
        context = self._run.context_length
        if context is None:
            return None
        return max(1, context - sum(tokens) - _TEMPLATE_TOKENS)

    def _parse(self, reader: PartialJson, text: str, stage: str) -> Any:
        try:
            return reader.feed(text)
        except ValueError as error:
            raise self._unusable(stage, str(error)) from None

    def _check(self, value: Any, cut: bool, stage: str) -> None:
        if value is None and not cut:
            raise self._unusable(stage, "there is none in it")

    def _unusable(self, stage: str, reason: str) -> UpstreamError:
        """Only a model that no grammar holds comes to this."""
        model = self._run.model.info().id
        return UpstreamError(f"{model} did not answer the stage {stage} with the JSON that it was asked for: {reason[:200]}")

    def _why(self, stage: str, done: int, wanted: int) -> str | None:
        if any(stage in choice.cut for choice in self.choices):
            return self._why_cut()
        return f"the model wrote {done} of {wanted}" if done < wanted else None

    def _why_cut(self) -> str:
        return "cut off by max_tokens" if self._left() == 0 else "cut off at the end of the model's context"


def _difficulty(name: str) -> Difficulty:
    if name in get_args(Difficulty):
        return cast(Difficulty, name)
    return next(level for level, zh in DIFFICULTY_ZH.items() if zh == name)
