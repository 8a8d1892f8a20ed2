"""What an error of a member means: for the member's health, for its limits, and whether another member is to be asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from mm_gateway.errors import (
    ConfigurationError,
    ContextLengthExceededError,
    EngineError,
    GatewayError,
    ModelNotFoundError,
    ModelUnavailableError,
    RateLimitError,
    UnsupportedParameterError,
    UpstreamError,
)

Kind = Literal["failed", "busy", "unfit", "too small", "refused"]
"""The member is in trouble | it has enough requests | it does not do what is asked, others may | its context is too small | the request
is wrong, or cannot be helped, wherever it goes."""

_BUSY = (429, 529)
_UNFIT = (404, 405, 415, 501, 508)
"""Of a server that has no such endpoint, or would ask the group again (508), which says nothing of its health: a client may ask for
anything."""


class Verdict(msgspec.Struct, frozen=True):
    kind: Kind
    retry_after_s: float | None = None
    """Seconds after which the member wants to be asked again; None: it does not say."""


def verdict_of(error: BaseException) -> Verdict:
    match error:
        case ContextLengthExceededError():
            return Verdict("too small")
        case UnsupportedParameterError():
            return Verdict("unfit")
        case RateLimitError(retry_after_s=None):
            return Verdict("refused")  # the request itself is too large
        case RateLimitError():
            return Verdict("busy", error.retry_after_s)
        case ModelUnavailableError():
            return Verdict("failed", error.retry_after_s)
        case EngineError() | ConfigurationError() | ModelNotFoundError():
            return Verdict("failed")
        case UpstreamError():
            return _of_upstream(error)
        case _:
            return Verdict("refused")


def _of_upstream(error: UpstreamError) -> Verdict:
    if error.status in _BUSY:
        return Verdict("busy", error.retry_after_s)
    if error.status >= 500 and error.status not in _UNFIT:
        return Verdict("failed", error.retry_after_s)
    if error.status == 408:
        return Verdict("failed")
    if error.status == 404 and (error.param == "model" or error.code == "model_not_found"):
        return Verdict("failed")
    if error.status in _UNFIT:
        return Verdict("unfit")
    return Verdict("too small" if says_too_long(error) else "refused")


def says_too_long(error: UpstreamError) -> bool:
    """In the words of OpenAI and vLLM, or of Anthropic."""
    return error.code == "context_length_exceeded" or any(
        words in str(error) for words in ("maximum context length", "prompt is too long", "exceeds the available context size")
    )


def nobody(group: str, reasons: Mapping[str, str], *, busy: bool, retry_after_s: float) -> GatewayError:
    """No member answers.

    Args:
        reasons: member -> why not. busy: only because they have enough requests. retry_after_s: > 0, when one may be there again.
    """
    told = "; ".join(f"{member}: {_short(reason)}" for member, reason in reasons.items())
    if busy:
        text = f"All members of {group} have as many requests as they take ({told}). Try again later"
        return RateLimitError(text, retry_after_s=retry_after_s)
    text = f"No member of {group} can answer now ({told}). Try again later"
    return ModelUnavailableError(text, retryable=True, retry_after_s=retry_after_s)


def _short(reason: str) -> str:
    return reason if len(reason) <= 300 else reason[:300] + "…"
