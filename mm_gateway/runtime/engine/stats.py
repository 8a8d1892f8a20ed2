"""What an engine has done so far, in numbers."""

from __future__ import annotations

from dataclasses import dataclass

from mm_gateway.runtime.kv_cache.prefix_tiers.restored_tokens import RestoredTokens


@dataclass(slots=True)
class Guesses:
    """Tokens that were guessed, so that several may come in one step.

    Attributes:
        drafts: times that some were. tokens: right or wrong ones. accepted: those that were right, and are tokens of completions.
    """

    drafts: int = 0
    tokens: int = 0
    accepted: int = 0

    def add(self, guessed: int, accepted: int) -> None:
        self.drafts += 1
        self.tokens += guessed
        self.accepted += accepted


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
    lookup: Guesses
    """Of what followed the same words before."""
    draft_model: Guesses
    restored: RestoredTokens
    """Of prompts, by where they were kept."""
    kv_tokens: int
    """That the KV cache can hold, > 0."""
    kv_used_tokens: int
    """Of these, what sequences hold now that run."""
    grammar_compiles: int = 0
    grammar_compile_s: float = 0.0
    """Seconds that they took together, on threads beside the engine's."""

    @property
    def drafts(self) -> int:
        """Times that something was guessed."""
        return self.lookup.drafts + self.draft_model.drafts

    @property
    def draft_tokens(self) -> int:
        """Tokens that were guessed, right or wrong."""
        return self.lookup.tokens + self.draft_model.tokens

    @property
    def accepted_tokens(self) -> int:
        """Tokens of completions that were guessed, and came several a step."""
        return self.lookup.accepted + self.draft_model.accepted
