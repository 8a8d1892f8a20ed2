"""What an engine has done so far, in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A glance at the engine. All counts are since its start, except running and waiting."""

    running: int
    waiting: int
    steps: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    preemptions: int
    accepted_tokens: int
    """Tokens of completions that were guessed, and came several a step."""
