"""What an engine has done so far, in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A glance at the engine. All counts are since its start, except running, waiting and what the KV cache holds."""

    running: int
    waiting: int
    steps: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    preemptions: int
    accepted_tokens: int
    """Tokens of completions that were guessed, and came several a step."""
    draft_tokens: int
    """Tokens that were guessed, right or wrong."""
    kv_tokens: int
    """That the KV cache can hold, > 0."""
    kv_used_tokens: int
    """Of these, what sequences hold now that run."""
    grammar_compiles: int = 0
    grammar_compile_s: float = 0.0
    """Seconds that they took together, on threads beside the engine's."""
