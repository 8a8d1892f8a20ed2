"""What a workflow is: a name, typed parameters, and stages as an async generator; the same class is a model and a Python call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Self

from mm_gateway.configuration.settings import ModelType, Settings
from mm_gateway.core import GenerationEvent
from mm_gateway.workflows.execution import WorkflowResult, execute
from mm_gateway.workflows.parameters import P, describe
from mm_gateway.workflows.run import Run

if TYPE_CHECKING:
    from mm_gateway.runtime.inference_engine import InferenceEngine

Feature = Literal["tools", "logprobs", "json_object", "grammar"]


class Workflow(ABC, Generic[P]):
    """One workflow. To add one: a subclass in a file of its own, and a row in `all_workflows.py`.

    Args:
        inference_engine: what answers `execute`.
        use_real_models: False: the mock answers `execute`, and no engine is needed.
        language: the parameter of that name where `execute` is given none; for workflows that have one.
        model_type: the engine's chat template; None: the tokenizer's own, else by the model's architecture.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    subject: ClassVar[str]
    """The parameter that is the last user message."""
    serves: ClassVar[frozenset[Feature]] = frozenset()
    """What of a request it serves beyond sampling parameters; the rest is refused by name. `grammar`: response_format and guided_…"""
    parameters: type[P]

    def __init__(
        self,
        inference_engine: InferenceEngine | None = None,
        *,
        use_real_models: bool = False,
        language: str | None = None,
        model_type: ModelType | None = None,
    ) -> None:
        self._engine = inference_engine
        self._use_real_models = use_real_models
        self._language = language
        self._model_type: ModelType | None = model_type

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """As the gateway serves it; the place to make providers from the settings."""
        return cls()

    @classmethod
    def described(cls) -> dict[str, object]:
        """What it is, what the last user message is to it, and the JSON schemas of its parameters."""
        return {"description": cls.description, "input": cls.subject, "parameters": describe(cls.parameters, cls.subject)}

    @abstractmethod
    def stages(self, run: Run, parameters: P) -> AsyncIterator[GenerationEvent]:
        """Yield what `run` gives of stages, and text, citations and the end of each of `n` choices; see `run.py`.

        An async generator. It is closed in whatever stage it is when the client goes; `run` stops calls and tasks.
        """
        ...

    async def close(self) -> None:
        """Release what providers hold; idempotent."""

    def execute(self, parameters: Mapping[str, Any]) -> WorkflowResult:
        """Run the workflow and wait for it; from any thread, also where an event loop runs.

        Args:
            parameters: the subject and whatever else the workflow takes.

        Raises:
            InvalidRequestError: a parameter is missing, unknown or wrong. ModelLoadError: there is no engine to answer.
        """
        defaults = {"language": self._language} if self._language is not None else {}
        return execute(
            self,
            {**defaults, **parameters},
            engine=self._engine,
            use_real_models=self._use_real_models,
            model_type=self._model_type,
        )
