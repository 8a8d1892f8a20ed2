"""What a workflow is: a name, typed parameters, and stages as an async generator; knows nothing of who runs it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import ClassVar, Generic, Literal, Self

from mm_gateway.configuration.settings import Settings
from mm_gateway.core import GenerationEvent
from mm_gateway.core.limits import MAX_SUBJECT_CHARACTERS
from mm_gateway.workflows.parameters import P, describe
from mm_gateway.workflows.run import Run

Feature = Literal["tools", "logprobs", "json_object", "grammar", "ends"]


class WorkflowDefinition(ABC, Generic[P]):
    """What all workflows say of themselves, and their stages. Subclass `Workflow`, which adds the Python call."""

    name: ClassVar[str]
    description: ClassVar[str]
    subject: ClassVar[str]
    """The parameter that is the last user message."""
    subject_characters: ClassVar[int | None] = MAX_SUBJECT_CHARACTERS
    """Most characters of it; None: what the model's context leaves."""
    serves: ClassVar[frozenset[Feature]] = frozenset()
    """What of a request it serves beyond sampling parameters; the rest is refused by name. `grammar`: response_format and guided_…;
    `ends`: min_tokens and stop_token_ids."""
    parameters: type[P]

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
