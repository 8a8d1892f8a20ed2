"""Log-probabilities in the two shapes that OpenAI gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar, cast

import msgspec

from mm_gateway.core import PromptTokens, TokenLogprob
from mm_gateway.protocol import ChatLogprob, ChatLogprobs, CompletionLogprobs, PromptLogprob, PromptLogprobs, TopLogprob

Shape = TypeVar("Shape")

LOWEST = -9999.0
"""JSON has no minus infinity; OpenAI writes this for a probability of zero."""


_encode = msgspec.json.Encoder().encode


def chat_logprobs(tokens: Sequence[TokenLogprob]) -> ChatLogprobs:
    """In the shape of chat."""
    return ChatLogprobs([_raw(_chat_logprob(entry)) for entry in tokens])


def _chat_logprob(entry: TokenLogprob) -> ChatLogprob:
    top = [TopLogprob(token, _finite(logprob) or 0.0, list(raw)) for token, raw, logprob in entry.top]
    return ChatLogprob(entry.token, _finite(entry.logprob) or 0.0, list(entry.bytes), top)


def completion_logprobs(tokens: Sequence[TokenLogprob], *, offset: int) -> CompletionLogprobs:
    """In the shape of completions. offset: characters of the text before the first of these tokens."""
    offsets: list[int] = []
    for entry in tokens:
        offsets.append(offset)
        offset += entry.characters
    return CompletionLogprobs(
        [_name(entry.token, entry.bytes) for entry in tokens],
        [_finite(entry.logprob) for entry in tokens],
        [_raw(_top(entry)) for entry in tokens],
        offsets,
    )


def prompt_logprobs(prompt: PromptTokens) -> PromptLogprobs:
    """In the shape that vLLM gives those of a prompt."""
    return [_raw(_prompt_logprob(id, entry)) for id, entry in zip(prompt.token_ids, prompt.logprobs, strict=True)]


def _prompt_logprob(token_id: int, entry: TokenLogprob) -> dict[str, PromptLogprob] | None:
    if entry.logprob is None:
        return None

    def told(raw: Sequence[int], logprob: float, rank: int | None) -> PromptLogprob:
        return PromptLogprob(max(logprob, LOWEST), rank, bytes(raw).decode(errors="replace"))

    found = {str(token_id): told(entry.bytes, entry.logprob, entry.rank)}
    for place, (id, (_, raw, logprob)) in enumerate(zip(entry.top_ids, entry.top, strict=True), 1):
        found.setdefault(str(id), told(raw, logprob, place))
    return found


def _top(entry: TokenLogprob) -> dict[str, float] | None:
    """The most probable tokens, and the token itself where it is none of them."""
    if entry.logprob is None:
        return None
    found = {_name(token, raw): max(logprob, LOWEST) for token, raw, logprob in entry.top}
    found.setdefault(_name(entry.token, entry.bytes), max(entry.logprob, LOWEST))
    return found


def _raw(value: Shape) -> Shape:
    """The value, encoded. A token at a time, because encoding all of them at once keeps the interpreter's lock, and the event loop waits
    for it on whichever thread that is.
    """
    return cast(Shape, msgspec.Raw(_encode(value)))


def _finite(logprob: float | None) -> float | None:
    return logprob if logprob is None else max(logprob, LOWEST)


def _name(token: str, raw: Sequence[int]) -> str:
    """A token that is no whole text is shown by its bytes, as OpenAI does, so that different ones stay different."""
    if "\ufffd" not in token:
        return token
    return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)
