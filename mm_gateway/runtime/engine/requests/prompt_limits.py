"""What one model takes as a prompt: which token ids, and how many; checked before anything is queued."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mm_gateway.errors import ContextLengthExceededError, InvalidRequestError


@dataclass(frozen=True, slots=True)
class PromptLimits:
    """
    Attributes:
        context_length: tokens of prompt and output together. vocab_size: of the logits; token ids are below it.
    """

    context_length: int
    vocab_size: int

    def output_tokens(self, prompt: Sequence[int], asked: int | None, param: str, *, at_least: int = 0) -> int:
        """How many tokens may follow a prompt: those asked for, else all that the context leaves.

        Args:
            asked: >= 0. param: the field to name in errors. at_least: `min_tokens`.

        Raises:
            InvalidRequestError: it is empty, holds an id outside the vocabulary, or leaves less than `at_least`.
            ContextLengthExceededError: it does not leave room for what is asked, or for one token where nothing is.
        """
        self._check_ids(prompt, param)
        room = self.context_length - len(prompt)
        if room < (1 if asked is None else asked):
            raise ContextLengthExceededError(self.context_length, len(prompt), asked, param=param)
        if room < at_least:
            text = f"min_tokens must be at most {room}, the tokens that this prompt leaves of the context, got {at_least}"
            raise InvalidRequestError(text, param="min_tokens")
        return room if asked is None else asked

    def check_input(self, tokens: Sequence[int], param: str) -> None:
        """Of what is only read, as for embeddings. Raises as `output_tokens` does."""
        self._check_ids(tokens, param)
        if len(tokens) > self.context_length:
            raise ContextLengthExceededError(self.context_length, len(tokens), param=param)

    def check_tokens(self, tokens: Iterable[int], param: str) -> None:
        """Raises InvalidRequestError: an id is outside the vocabulary."""
        for token in tokens:
            if not 0 <= token < self.vocab_size:
                raise InvalidRequestError(f"{param}: token id {token} is outside the vocabulary of {self.vocab_size}", param=param)

    def _check_ids(self, tokens: Sequence[int], param: str) -> None:
        if not tokens:
            raise InvalidRequestError(f"{param} must not be empty", param=param)
        if not (min(tokens) >= 0 and max(tokens) < self.vocab_size):
            raise InvalidRequestError(f"{param} holds token ids outside the vocabulary of {self.vocab_size}", param=param)
