"""What a reply tells of tokens beside its text, in vLLM's fields."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from mm_gateway.core import GenerationEvent, PromptTokens, ReasoningDelta, TextDelta, UsageSoFar
from mm_gateway.errors import InvalidRequestError
from mm_gateway.protocol import ChatCompletionRequest, CompletionRequest
from mm_gateway.protocol.forwarded import ForwardedStreamOptions
from mm_gateway.protocol.generation import StreamOptions


@dataclass(frozen=True, slots=True)
class TokenDetails:
    """
    Attributes:
        ids: of prompts and choices. prompt_logprobs: log-probabilities of prompts. running_usage: the usage so far in each chunk.
    """

    ids: bool = False
    prompt_logprobs: bool = False
    running_usage: bool = False

    @property
    def wanted(self) -> bool:
        """Whether the backend has to tell which tokens there are."""
        return self.ids or self.prompt_logprobs or self.running_usage


def token_details(body: ChatCompletionRequest | CompletionRequest) -> TokenDetails:
    """What a body asks for.

    Raises:
        InvalidRequestError: log-probabilities of the prompt in a stream.
    """
    if body.stream and body.prompt_logprobs is not None:
        raise InvalidRequestError("prompt_logprobs cannot be streamed", param="prompt_logprobs")
    return TokenDetails(
        ids=bool(body.return_token_ids),
        prompt_logprobs=body.prompt_logprobs is not None,
        running_usage=running_usage(body.stream_options),
    )


def running_usage(options: StreamOptions | ForwardedStreamOptions | None) -> bool:
    """Whether each chunk is to have the usage so far."""
    return options is not None and bool(options.include_usage) and bool(options.continuous_usage_stats)


class RunningUsage:
    """Tokens of a stream so far, over all its choices."""

    def __init__(self) -> None:
        self._prompt_tokens: int | None = None
        self._completion_tokens = 0

    def add(self, event: GenerationEvent) -> None:
        match event:
            case PromptTokens(token_ids=ids):
                self._prompt_tokens = (self._prompt_tokens or 0) + len(ids)
            case TextDelta(token_ids=ids) | ReasoningDelta(token_ids=ids):
                self._completion_tokens += len(ids)
            case UsageSoFar(prompt_tokens=prompt, completion_tokens=completion):
                self._prompt_tokens, self._completion_tokens = prompt, completion
            case _:
                pass

    def encoded(self) -> bytes:
        """As a chunk has it; null while the prompt's tokens are not known."""
        if self._prompt_tokens is None:
            return b"null"
        prompt, completion = self._prompt_tokens, self._completion_tokens
        return msgspec.json.encode({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion})
