"""What the mock reads of a request: its prompts as texts and as tokens."""

from __future__ import annotations

from collections.abc import Sequence

from mm_gateway.backends.mock.choice import prompt_logprob
from mm_gateway.backends.mock.vectors import word_ids
from mm_gateway.backends.mock.words import words_of
from mm_gateway.core import ChatInput, CompletionInput, EmbeddingInput, GenerationConfig, GenerationRequest, Message, PromptTokens


def tokens_of(text: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    words = tuple(words_of(text))
    return words, word_ids(words)


def prompt_tokens(input: ChatInput | CompletionInput, config: GenerationConfig, prompts: Sequence[str]) -> list[PromptTokens]:
    """What the prompts are as tokens, where that is asked for."""
    scored = config.prompt_logprobs is not None
    if not config.return_token_ids and not (scored and not input.echo):
        return []
    found: list[PromptTokens] = []
    for index, prompt in enumerate(prompts):
        words, ids = tokens_of(prompt)
        scores = tuple(prompt_logprob(word, position, config) for position, word in enumerate(words)) if scored else ()
        found.append(PromptTokens(index, ids, scores))
    return found


def prompts_of(request: GenerationRequest) -> list[str]:
    match request.input:
        case ChatInput(messages):
            return [joined(messages)]
        case CompletionInput(prompts=prompts) | EmbeddingInput(inputs=prompts):
            return [prompt if isinstance(prompt, str) else " ".join(map(str, prompt)) for prompt in prompts]


def joined(messages: Sequence[Message]) -> str:
    return "\n".join(message.content for message in messages)


def last_text(request: GenerationRequest) -> str:
    """Where directives are looked for: an earlier turn's have been followed, and would have an agent call its tool for ever."""
    match request.input:
        case ChatInput(messages):
            # An agent may end a request with a system message of its own.
            return next((message for message in reversed(messages) if message.role not in ("system", "developer")), messages[-1]).content
        case CompletionInput(prompts=prompts) | EmbeddingInput(inputs=prompts):
            last = prompts[-1]
            return last if isinstance(last, str) else ""
