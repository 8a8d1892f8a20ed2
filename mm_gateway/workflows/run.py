"""One request on its way through a workflow: its stages, what they took, and the calls to the model; owns nothing beyond the request."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, TypeVar, cast

import msgspec

from mm_gateway import timeline
from mm_gateway.core import (
    Backend,
    ChatInput,
    ChoiceFinished,
    FinishReason,
    GenerationConfig,
    GenerationEvent,
    GenerationRequest,
    Message,
    Progress,
    Reasoning,
    StageUsage,
    TextDelta,
    TokenizingBackend,
    Usage,
    UsageSoFar,
    WorkflowOutcome,
    WorkflowStep,
)
from mm_gateway.errors import StageTimeoutError
from mm_gateway.text import estimate_tokens

T = TypeVar("T")

WAIT_TIMEOUT_S = 1800.0
"""As long as a load may be without progress, so that a workflow does not give up a model that is still loading."""
CLOSE_TIMEOUT_S = 10.0
"""For work that was cancelled to end."""

logger = logging.getLogger(__name__)


def closing(events: AsyncIterator[GenerationEvent]) -> contextlib.aclosing[AsyncGenerator[GenerationEvent]]:
    """Closes what a Backend or a workflow yields when it is left; an async generator, though its annotation says less."""
    return contextlib.aclosing(cast(AsyncGenerator[GenerationEvent], events))


class Run:
    """What the stages of a workflow work with. Of one event loop.

    A stage is what lies between `begin` and `end`, whose events the workflow yields.

    Args:
        request: as the client made it. model: what answers.
        wait_timeout_s: for each piece of work that is waited for, and for each next event of the model.

    Attributes:
        metadata: to be told with the outcome, JSON values. result: for callers in Python; None: the text.
    """

    def __init__(self, request: GenerationRequest, model: Backend, wait_timeout_s: float = WAIT_TIMEOUT_S) -> None:
        self._wait_timeout_s = wait_timeout_s
        self.request = request
        self.model = model
        self.metadata: dict[str, Any] = {}
        self.result: Any = None
        self._steps: list[WorkflowStep] = []
        self._stage: tuple[str, float, int] | None = None
        self._end_stage: Callable[[str | None], None] = lambda _: None
        self._usages: dict[str, Usage] = {}
        self._calls: list[AsyncGenerator[GenerationEvent]] = []
        self._tasks: list[asyncio.Task[Any]] = []

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation as the client sent it; the last one is the user's."""
        assert isinstance(self.request.input, ChatInput)
        return self.request.input.messages

    def begin(self, stage: str, detail: str = "", *, input_count: int = 1) -> Progress:
        """A stage begins; to be yielded. detail: what it does, for people."""
        assert self._stage is None, f"stage {self._stage} has not ended"
        self._stage = (stage, time.monotonic(), input_count)
        self._end_stage = timeline.stage(stage)
        return Progress(stage, detail)

    def progress(self, detail: str, fraction: float | None = None) -> Progress:
        """What the stage is doing now; to be yielded."""
        return Progress(self._stage[0] if self._stage is not None else "", detail, fraction)

    def end(self, *, output_count: int = 1, degraded: str | None = None, failed: str | None = None) -> WorkflowStep:
        """The stage has ended; to be yielded.

        Args:
            degraded: why it did less than it is for. failed: why it did nothing, where the workflow goes on all the same.
        """
        assert self._stage is not None, "no stage has begun"
        stage, started, input_count = self._stage
        self._stage = None
        self._end_stage(failed or degraded)
        step = WorkflowStep(
            stage,
            success=failed is None,
            duration_s=round(time.monotonic() - started, 4),
            input_count=input_count,
            output_count=output_count,
            degraded=degraded is not None,
            error=failed or degraded,
        )
        self._steps.append(step)
        return step

    def fail(self, error: Exception) -> WorkflowStep | None:
        """An error ends the workflow: how the stage ended in which it happened, if it was in one."""
        return self.end(output_count=0, failed=str(error)) if self._stage is not None else None

    def config(
        self, *, max_new_tokens: int | None = None, temperature: float | None = None, top_p: float | None = None
    ) -> GenerationConfig:
        """The request's own parameters, for the stage that answers; where it leaves these open, the ones given here."""
        config = self.request.config
        defaults = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p}
        return msgspec.structs.replace(
            config, **{name: value for name, value in defaults.items() if value is not None and getattr(config, name) is None}
        )

    def ask(self, messages: Sequence[Message], config: GenerationConfig, *, think: bool = True) -> ModelCall:
        """Let the model answer, in the stage that has begun; iterate the call.

        Args:
            think: False: not unless the request asks for it; for stages whose limit of tokens is for what they write.
        """
        stage = self._stage[0] if self._stage is not None else "answer"
        asked = self.request.input
        assert isinstance(asked, ChatInput)
        reasoning = asked.reasoning
        # A server elsewhere may refuse an effort for a model that does not think.
        if not think and reasoning.wanted is None and not self.model.info().elsewhere:
            reasoning = Reasoning(effort="none")
        request = GenerationRequest(
            request_id=f"{self.request.request_id}-{stage}",
            model=self.model.info().id,
            input=ChatInput(tuple(messages), truncate=asked.truncate, reasoning=reasoning),
            config=config,
            keep_alive=self.request.keep_alive,
            user=self.request.user,
            principal=self.request.principal,
        )
        call = ModelCall(self, stage, self.model.generate(request))
        self._calls.append(call.events)
        return call

    @property
    def context_length(self) -> int | None:
        """Tokens that a call to the model may take, prompt and output together; sure once `count_tokens` was called. None: unknown."""
        return self.model.info().context_length

    async def count_tokens(self, texts: Sequence[str]) -> Sequence[int]:
        """Tokens of each text; estimated where the model does not know its tokenizer. May wait for it to load."""
        if isinstance(self.model, TokenizingBackend):
            async with self.deadline("its model's tokenizer"):
                return await self.model.count_tokens(texts)
        return [estimate_tokens(text) for text in texts]

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task that has a deadline, and is cancelled, and waited for, when the request ends before it."""
        task = asyncio.create_task(self._in_time(work))
        self._tasks.append(task)
        return task

    @contextlib.asynccontextmanager
    async def deadline(self, what: str) -> AsyncGenerator[None]:
        """Bounds what is awaited within it. what: is waited for, in the error.

        Raises:
            StageTimeoutError: it takes longer than `wait_timeout_s`.
        """
        stage = self._stage[0] if self._stage is not None else "answer"
        timeout = asyncio.timeout(self._wait_timeout_s)
        try:
            async with timeout:
                yield
        except TimeoutError as error:
            if not timeout.expired():
                raise  # one of the work itself
            raise StageTimeoutError(
                f"The stage {stage} waited {self._wait_timeout_s:g} s for {what}. Try again, or raise workflows.wait_timeout_s"
            ) from error

    async def _in_time(self, work: Coroutine[Any, Any, T]) -> T:
        async with self.deadline("its work"):
            return await work

    def count(self, stage: str, usage: Usage) -> None:
        """Add what a call took."""
        known = self._usages.get(stage, Usage(0, 0))
        names = ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens", "accepted_tokens", "rejected_tokens")
        self._usages[stage] = Usage(**{name: getattr(known, name) + getattr(usage, name) for name in names})

    def usage(self) -> Usage:
        """The sum over all stages so far."""
        usages = self._usages.values()
        return Usage(
            sum(usage.prompt_tokens for usage in usages),
            sum(usage.completion_tokens for usage in usages),
            sum(usage.cached_tokens for usage in usages),
            sum(usage.reasoning_tokens for usage in usages),
            sum(usage.accepted_tokens for usage in usages),
            sum(usage.rejected_tokens for usage in usages),
            tuple(StageUsage(stage, usage.prompt_tokens, usage.completion_tokens) for stage, usage in self._usages.items()),
        )

    def outcome(self) -> WorkflowOutcome:
        """All that was done so far."""
        return WorkflowOutcome(self.model.info().id, tuple(self._steps), self.metadata, self.result)

    async def close(self) -> None:
        """Stop what still runs, and wait until it has."""
        if self._stage is not None:
            self._end_stage("broken off")
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            _, running = await asyncio.wait(self._tasks, timeout=CLOSE_TIMEOUT_S)
            if running:
                logger.error("%s left %d tasks that do not end after they were cancelled", self.request.request_id, len(running))
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.exception()  # seen, so that asyncio does not complain
        # A generator that was left amid its iteration frees what it holds only when it is closed.
        for events in self._calls:
            await events.aclose()


class ModelCall:
    """One request to the model, to be iterated once: Progress of the stage, then all but the usage, which the run counts.

    Attributes:
        finish_reason: of the first choice, once it has ended.
    """

    def __init__(self, run: Run, stage: str, events: AsyncIterator[GenerationEvent]) -> None:
        self.finish_reason: FinishReason | None = None
        self.events = self._read(run, stage, events)
        self._pieces: list[str] = []

    @property
    def text(self) -> str:
        """Of the first choice, so far."""
        return "".join(self._pieces)

    def __aiter__(self) -> AsyncIterator[GenerationEvent]:
        return self.events

    async def progress(self) -> AsyncIterator[Progress]:
        """Iterate, with only the progress to be seen: for a stage whose text is read when it is complete."""
        async for event in self:
            if isinstance(event, Progress):
                yield event

    async def _read(self, run: Run, stage: str, source: AsyncIterator[GenerationEvent]) -> AsyncGenerator[GenerationEvent]:
        async with closing(source) as events:
            while True:
                async with run.deadline("the model"):
                    event = await anext(events, None)
                match event:
                    case None:
                        return
                    case Progress():
                        yield run.progress(event.detail or event.stage, event.fraction)
                        continue
                    case Usage():
                        run.count(stage, event)
                        continue
                    case UsageSoFar():  # of this call alone
                        continue
                    case TextDelta(index=0):
                        self._pieces.append(event.text)
                    case ChoiceFinished(index=0):
                        self.finish_reason = event.finish_reason
                    case _:
                        pass
                yield event
