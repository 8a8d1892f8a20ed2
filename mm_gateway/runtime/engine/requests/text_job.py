"""One request for text in the engine: its sequences, what they say, and what was counted for its usage."""

from __future__ import annotations

from collections.abc import Sequence as AbstractSequence
from dataclasses import dataclass

from mm_gateway.core import Progress, Usage
from mm_gateway.runtime.engine.requests.generation import Generation
from mm_gateway.runtime.engine.requests.sequence_text import SequenceText
from mm_gateway.runtime.sampling.structured_output import CompiledGrammar
from mm_gateway.runtime.scheduling.sequence import Sequence


@dataclass(eq=False, slots=True)
class TextJob:
    """One request.

    Attributes:
        texts: those that have not ended, by sequence id.
        prompt_tokens: over all prompts, each counted once.
        choices_per_prompt: the request's `n`.
        echo: text of each prompt that is to be told with its log-probabilities, by sequence id.
        grammar: what every text has to follow. prediction: tokens that texts are likely to be.
        reported: the progress that the client was told last.
    """

    generation: Generation
    texts: dict[int, SequenceText]
    prompt_tokens: int
    choices_per_prompt: int
    echo: dict[int, str]
    grammar: CompiledGrammar | None = None
    prediction: AbstractSequence[int] = ()
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    cached_tokens: int = 0
    accepted_tokens: int = 0
    rejected_tokens: int = 0
    reported: Progress | None = None

    @property
    def places(self) -> int:
        """Places of the queue that it takes."""
        return len(self.texts)

    @property
    def sequences(self) -> list[Sequence]:
        """Those that the scheduler holds."""
        return [text.seq for text in self.texts.values()]

    @property
    def usage(self) -> Usage:
        """What it has cost so far."""
        return Usage(
            self.prompt_tokens,
            self.completion_tokens,
            cached_tokens=self.cached_tokens,
            reasoning_tokens=self.reasoning_tokens,
            accepted_tokens=self.accepted_tokens,
            rejected_tokens=self.rejected_tokens,
        )
