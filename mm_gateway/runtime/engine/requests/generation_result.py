"""One finished text for callers of the Python API: the fold of a generation's events."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mm_gateway.core import ChoiceFinished, FinishReason, GenerationEvent, TextDelta, Usage
from mm_gateway.runtime.engine.requests.generation import Generation


@dataclass(frozen=True)
class GenerationResult:
    """One finished text.

    Attributes:
        text: the output, without the prompt. finish_reason: `stop` or `length`.
        prompt_tokens, completion_tokens: counts. duration_s: from submission to the last token.
    """

    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    duration_s: float

    @property
    def tokens_per_second(self) -> float:
        """Output tokens per second of this request; other requests run at the same time."""
        return self.completion_tokens / self.duration_s if self.duration_s > 0 else 0.0


def results_of(generations: Sequence[Generation], prompt_tokens: Sequence[int], started_s: float) -> list[GenerationResult]:
    """Read generations to their end; blocks. Raises what one of them raises; the others are cancelled then.

    Args:
        prompt_tokens: of each. started_s: when they were submitted, of `time.monotonic`.
    """
    results = [_PartialResult(count, started_s) for count in prompt_tokens]
    # One event of each in turn: none of them is left unread until the others have ended.
    unread = deque(zip(results, map(iter, generations), strict=True))
    try:
        while unread:
            result, events = unread.popleft()
            if (event := next(events, None)) is not None:
                result.add(event)
                unread.append((result, events))
    finally:
        for generation in generations:
            generation.cancel()
    return [result.finish() for result in results]


def pieces_of(generation: Generation) -> Iterator[str]:
    """Pieces of a generation's text; blocks. Closing the iterator cancels the rest."""
    try:
        for event in generation:
            if isinstance(event, TextDelta) and event.text:
                yield event.text
    finally:
        generation.cancel()


class _PartialResult:
    """What is there of a request's first choice so far.

    Args:
        started_s: when it was submitted, of `time.monotonic`.
    """

    def __init__(self, prompt_tokens: int, started_s: float) -> None:
        self._prompt_tokens = prompt_tokens
        self._started_s = started_s
        self._pieces: list[str] = []
        self._finish_reason: FinishReason = "stop"
        self._completion_tokens = 0
        self._duration_s = 0.0

    def add(self, event: GenerationEvent) -> None:
        """Take one event in."""
        match event:
            case TextDelta(index=0, text=text):
                self._pieces.append(text)
            case ChoiceFinished(index=0, finish_reason=finish_reason):
                self._finish_reason = finish_reason
            case Usage(completion_tokens=completion_tokens):
                self._completion_tokens = completion_tokens
                self._duration_s = time.monotonic() - self._started_s

    def finish(self) -> GenerationResult:
        """The result, once all events are in."""
        return GenerationResult("".join(self._pieces), self._finish_reason, self._prompt_tokens, self._completion_tokens, self._duration_s)
