"""A workflow as a Backend over the Backend of the model it uses: checks the request, runs the stages, sums up what they took."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from mm_gateway.core import (
    Backend,
    ChatInput,
    ChoiceFinished,
    GenerationEvent,
    GenerationRequest,
    ModelInfo,
    ProbedBackend,
)
from mm_gateway.errors import InvalidRequestError, UnsupportedParameterError
from mm_gateway.workflows.definition import WorkflowDefinition
from mm_gateway.workflows.parameters import read_parameters
from mm_gateway.workflows.run import WAIT_TIMEOUT_S, Run, closing


class WorkflowBackend:
    """One workflow with one model.

    Args:
        name: as clients know it. model: what answers. created: Unix seconds at which the gateway started.
        wait_timeout_s: for each wait of a stage, as for `Run`.

    Attributes:
        model: what answers.
    """

    def __init__(
        self, name: str, workflow: WorkflowDefinition[Any], model: Backend, created: int, wait_timeout_s: float = WAIT_TIMEOUT_S
    ) -> None:
        self._name = name
        self._workflow = workflow
        self.model = model
        self._created = created
        self._wait_timeout_s = wait_timeout_s

    def info(self) -> ModelInfo:
        model = self.model.info()
        return ModelInfo(
            id=self._name,
            created=self._created,
            backend="workflow",
            state=model.state,
            context_length=model.context_length,
            details={"model": model.id} | self._workflow.described(),
        )

    async def probe(self, timeout_s: float) -> bool:
        """That of its model, where it has one."""
        return isinstance(self.model, ProbedBackend) and await self.model.probe(timeout_s)

    async def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        """Run the stages; an error in one of them is the request's."""
        workflow = self._workflow
        given = dict(request.workflow or {})
        text = _subject(request, self._name, workflow.subject_characters)
        _refuse_unserved(request, workflow, self._name)
        if workflow.subject in given:
            raise InvalidRequestError(f"{workflow.subject} is the last user message, not a parameter", param=f"workflow.{workflow.subject}")
        parameters = read_parameters(workflow.parameters, {**given, workflow.subject: text}, prefix="workflow.")
        run = Run(request, self.model, self._wait_timeout_s)
        finished: list[ChoiceFinished] = []
        try:
            async with closing(workflow.stages(run, parameters)) as events:
                async for event in events:
                    # A choice is finished when the workflow is: what it does after the text belongs to the reply.
                    if isinstance(event, ChoiceFinished):
                        finished.append(event)
                    else:
                        yield event
        except Exception as error:
            if (step := run.fail(error)) is not None:
                yield step
            raise
        finally:
            await run.close()
        yield run.outcome()
        for choice in finished:
            yield choice
        yield run.usage()

    async def close(self) -> None:
        """The catalog closes workflow and model."""


def _subject(request: GenerationRequest, name: str, most: int | None) -> str:
    """The last user message."""
    if not isinstance(request.input, ChatInput):
        raise InvalidRequestError(f"{name} is a workflow and is served by /v1/chat/completions, not by this endpoint", param="model")
    messages = request.input.messages
    last = messages[-1]
    at = f"messages[{len(messages) - 1}]"
    if last.role != "user":
        raise InvalidRequestError(f"The last message must be the user's for {name}, got one of role {last.role}", param=f"{at}.role")
    if not last.content.strip():
        raise InvalidRequestError(f"The last message must not be empty for {name}", param=f"{at}.content")
    if most is not None and len(last.content) > most:
        text = f"The last message must have at most {most} characters for {name}, got {len(last.content)}"
        raise InvalidRequestError(text, param=f"{at}.content")
    return last.content


def _refuse_unserved(request: GenerationRequest, workflow: WorkflowDefinition[Any], name: str) -> None:
    assert isinstance(request.input, ChatInput)
    config = request.config
    used: dict[str, str | None] = {
        "tools": "tools" if request.input.tools is not None else None,
        "logprobs": "logprobs" if config.logprobs is not None else None,
        "json_object": config.grammar.param if config.grammar is not None and config.grammar.kind == "json_object" else None,
        "grammar": config.grammar.param if config.grammar is not None and config.grammar.kind != "json_object" else None,
        "ends": "min_tokens" if config.min_tokens else "stop_token_ids" if config.stop_token_ids else None,
        "rendering": _rendering_field(request.input),
        "prompt": "prompt_logprobs" if config.prompt_logprobs is not None else "return_token_ids" if config.return_token_ids else None,
    }
    for feature, param in used.items():
        if param is not None and feature not in workflow.serves:
            raise UnsupportedParameterError(f"{param} is not supported by {name}", param=param)


def _rendering_field(input: ChatInput) -> str | None:
    """A field that is about the prompt, which is the workflow's own; None: there is none."""
    used = {
        "chat_template_kwargs": input.rendering.variables,
        "add_generation_prompt": not input.rendering.add_generation_prompt and not input.rendering.continue_final_message,
        "continue_final_message": input.rendering.continue_final_message,
        "add_special_tokens": input.rendering.add_special_tokens,
        "documents": input.rendering.documents,
        "echo": input.echo,
        "truncate_prompt_tokens": input.truncate_prompt_tokens is not None,
    }
    return next((name for name, value in used.items() if value), None)
