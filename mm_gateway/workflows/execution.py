"""A workflow as a Python call: over an engine or the mock, waited for, its events folded into a result."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from mm_gateway.backends.engine_backend import EngineBackend
from mm_gateway.backends.mock.backend import MockBackend
from mm_gateway.configuration.model_config import ModelConfig, ModelType
from mm_gateway.core import Backend, ChatInput, GenerationRequest, Message, TextDelta, Usage, WorkflowOutcome, WorkflowStep
from mm_gateway.errors import GatewayError, ModelLoadError
from mm_gateway.workflows.backend import WorkflowBackend
from mm_gateway.workflows.definition import WorkflowDefinition
from mm_gateway.workflows.parameters import read_parameters
from mm_gateway.workflows.run import closing

if TYPE_CHECKING:
    from mm_gateway.runtime.inference_engine import InferenceEngine


@dataclass(frozen=True)
class WorkflowResult:
    """What `execute` returns.

    Attributes:
        result: the text, or what the workflow makes of it; None where it failed.
        status: `success`; `partial`: a step did less than it is for; `failed`: `error` says why.
        metadata: `steps` [{name, success, duration_s, input_count, output_count, degraded, error}], `degraded`, `model`, `usage`, and
            what the workflow tells.
    """

    result: Any
    status: Literal["success", "partial", "failed"]
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    error: str | None = None


def execute(
    workflow: WorkflowDefinition[Any],
    parameters: Mapping[str, Any],
    *,
    engine: InferenceEngine | None,
    use_real_models: bool,
    model_type: ModelType | None,
) -> WorkflowResult:
    """Run a workflow on an event loop of its own and wait.

    Raises:
        InvalidRequestError: a parameter is missing, unknown or wrong. ModelLoadError: there is no engine.
    """
    checked = read_parameters(workflow.parameters, parameters)
    model: Backend
    if not use_real_models:
        model = MockBackend("mock", ModelConfig(model_name="mock", backend="mock"), created=0)
    elif engine is None:
        raise ModelLoadError("use_real_models needs an inference_engine")
    else:
        model = EngineBackend(engine, model_type=model_type)
    subject = getattr(checked, workflow.subject)
    request = GenerationRequest(
        request_id=f"execute-{secrets.token_hex(8)}",
        model=workflow.name,
        input=ChatInput((Message(role="user", content=subject),)),
        workflow={name: value for name, value in parameters.items() if name != workflow.subject},
    )
    return _in_own_loop(_run(WorkflowBackend(workflow.name, workflow, model, created=0), request))


async def _run(backend: WorkflowBackend, request: GenerationRequest) -> WorkflowResult:
    pieces: list[str] = []
    outcome, usage = WorkflowOutcome("", ()), Usage(0, 0)
    steps: list[dict[str, Any]] = []
    try:
        async with closing(backend.generate(request)) as events:
            async for event in events:
                match event:
                    case TextDelta(index=0, text=text):
                        pieces.append(text)
                    case WorkflowStep():
                        steps.append(event.told())
                    case WorkflowOutcome():
                        outcome = event
                    case Usage():
                        usage = event
                    case _:
                        pass
    except GatewayError as error:
        return WorkflowResult(None, "failed", {"steps": steps, "degraded": True}, str(error))
    taken = {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}
    metadata = {**outcome.metadata, "model": outcome.model, "degraded": outcome.degraded, "steps": steps, "usage": taken}
    result = outcome.result if outcome.result is not None else "".join(pieces)
    return WorkflowResult(result, "partial" if outcome.degraded else "success", metadata)


def _in_own_loop(work: Coroutine[Any, Any, WorkflowResult]) -> WorkflowResult:
    """The work's result, from a thread that may have an event loop running already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    # A loop cannot be entered twice, so the work has a thread with one of its own; an error of it is the caller's.
    with ThreadPoolExecutor(1, thread_name_prefix="workflow") as thread:
        return thread.submit(asyncio.run, work).result()
