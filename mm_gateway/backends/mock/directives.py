"""The orders that a message may hold for the mock, `!mock tokens=50 error=429`, and the errors that it can be told to raise."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from msgspec import Meta

from mm_gateway.errors import (
    AuthenticationError,
    ContextLengthExceededError,
    EngineError,
    GatewayError,
    InvalidRequestError,
    ModelNotFoundError,
    ModelUnavailableError,
    PermissionDeniedError,
    RateLimitError,
    UpstreamError,
)

HANG = "hang"
"""The value of `error` that stands for no answer at all."""

_DIRECTIVES = re.compile(r"!mock((?:\s+\w+=[\w.-]+)+)")
_Seconds = Annotated[float, Meta(ge=0, le=3600)]
_Tokens = Annotated[int, Meta(ge=0, le=2**20)]


class Directives(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the mock is told to do; the meaning of each is in `backend.py`, whose users read it."""

    tokens: _Tokens | None = None
    delay: _Seconds | None = None
    load: _Seconds = 0.0
    error: str | None = None
    after: _Tokens = 0
    call: str | None = None
    think: _Tokens | None = None


def read_directives(text: str) -> Directives:
    """The last directives of a text.

    Raises:
        InvalidRequestError: one is unknown, or its value is out of range.
    """
    found = _DIRECTIVES.findall(text)
    if not found:
        return Directives()
    pairs = dict(pair.split("=", 1) for pair in found[-1].split())
    try:
        return msgspec.convert(pairs, Directives, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidRequestError(f"!mock: {error}", param="messages") from None


def failure(error: str, *, model: str, context_length: int) -> GatewayError:
    """The error that `!mock error=` stands for; where there is none of that name, the one that says so."""
    failures: dict[str, GatewayError] = {
        "400": InvalidRequestError("The mock was told to refuse this request", param="messages"),
        "401": AuthenticationError("The mock was told to refuse the key"),
        "403": PermissionDeniedError("The mock was told to deny permission"),
        "404": ModelNotFoundError(model),
        # The gateway itself never answers with these two; servers behind it may.
        "409": UpstreamError("The mock was told to be in conflict", status=409, type="invalid_request_error"),
        "422": UpstreamError("The mock was told that it cannot process this", status=422, type="invalid_request_error"),
        "429": RateLimitError("The mock was told to be busy", retry_after_s=1.0),
        "500": EngineError("The mock was told to fail"),
        "503": ModelUnavailableError("The mock was told to be unavailable", retryable=True, retry_after_s=1.0),
        "context": ContextLengthExceededError(context_length, context_length + 1),
    }
    if error not in failures:
        return InvalidRequestError(f"!mock error={error} is unknown; there are {', '.join(failures)} and {HANG}", param="messages")
    return failures[error]
