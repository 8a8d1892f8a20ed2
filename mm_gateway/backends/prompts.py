"""What a reply tells of its prompt: an echo before the text, log-probabilities within bounds. For backends that read prompts themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from mm_gateway.core import ChatInput, GenerationConfig, GenerationEvent, Progress, PromptTokens, TextDelta
from mm_gateway.core.limits import MAX_LOGPROB_ENTRIES
from mm_gateway.errors import InvalidRequestError


def echo_of_chat(chat: ChatInput) -> Sequence[str] | None:
    """The text that the replies to a conversation begin with; None: none was asked for."""
    last = chat.messages[-1]
    return [last.content] if chat.echo and last.role == "assistant" else None


async def with_echo(events: AsyncIterator[GenerationEvent], texts: Sequence[str], n: int) -> AsyncIterator[GenerationEvent]:
    """The events, with the text of its prompt before those of each choice.

    Args:
        texts: one a prompt. n: choices of each prompt.
    """
    echoed = False
    async for event in events:
        if not echoed and not isinstance(event, Progress | PromptTokens):
            echoed = True
            for index in range(len(texts) * n):
                yield TextDelta(index, texts[index // n])
        yield event


def check_prompt_logprobs(config: GenerationConfig, tokens: int, *, echo: bool) -> None:
    """tokens: of all prompts. echo: they are part of the text, which is bounded elsewhere.

    Raises:
        InvalidRequestError: log-probabilities of the prompts are more than a request may have.
    """
    if config.prompt_logprobs is None or echo:
        return
    entries = tokens * (1 + config.prompt_logprobs)
    if entries > MAX_LOGPROB_ENTRIES:
        raise InvalidRequestError(
            f"prompt_logprobs {config.prompt_logprobs} of prompts of {tokens} tokens would be {entries} entries; "
            f"a request takes up to {MAX_LOGPROB_ENTRIES}",
            param="prompt_logprobs",
        )
