"""Log-probabilities in the two shapes that OpenAI gives them."""

from __future__ import annotations

from collections.abc import Sequence

from mm_gateway.core import TokenLogprob
from mm_gateway.protocol import ChatLogprob, ChatLogprobs, CompletionLogprobs, TopLogprob

LOWEST = -9999.0
"""JSON has no minus infinity; OpenAI writes this for a probability of zero."""


def chat_logprobs(tokens: Sequence[TokenLogprob]) -> ChatLogprobs:
    return ChatLogprobs(
        [
            ChatLogprob(
                entry.token,
                _finite(entry.logprob) or 0.0,
                list(entry.bytes),
                [TopLogprob(token, _finite(logprob) or 0.0, list(raw)) for token, raw, logprob in entry.top],
            )
            for entry in tokens
        ]
    )


def completion_logprobs(tokens: Sequence[TokenLogprob], *, offset: int, top: bool) -> CompletionLogprobs:
    """offset: characters of the text before the first of these tokens."""
    offsets: list[int] = []
    for entry in tokens:
        offsets.append(offset)
        offset += len(entry.token)
    tops: list[dict[str, float] | None] = [
        {_name(token, raw): _finite(logprob) or 0.0 for token, raw, logprob in entry.top} if entry.logprob is not None else None
        for entry in tokens
    ]
    return CompletionLogprobs(
        [_name(entry.token, entry.bytes) for entry in tokens], [_finite(entry.logprob) for entry in tokens], tops if top else None, offsets
    )


def _finite(logprob: float | None) -> float | None:
    return logprob if logprob is None else max(logprob, LOWEST)


def _name(token: str, raw: Sequence[int]) -> str:
    """A token that is no whole text is shown by its bytes, as OpenAI does, so that different ones stay different."""
    if "\ufffd" not in token:
        return token
    return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)
