"""The base class of workflows: the same class is a model for the gateway and a call in Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mm_gateway.configuration.model_config import ModelType
from mm_gateway.workflows.definition import WorkflowDefinition
from mm_gateway.workflows.execution import WorkflowResult, execute
from mm_gateway.workflows.parameters import P

if TYPE_CHECKING:
    from mm_gateway.runtime.inference_engine import InferenceEngine


class Workflow(WorkflowDefinition[P]):
    """One workflow. To add one: a subclass in a file of its own, and a row in `all_workflows.py`.

    Args:
        inference_engine: what answers `execute`.
        use_real_models: False: the mock answers `execute`, and no engine is needed.
        language: the parameter of that name where `execute` is given none; for workflows that have one.
        model_type: the engine's chat template; None: the tokenizer's own, else by the model's architecture.
    """

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
