"""Errors in Anthropic's envelope."""

from __future__ import annotations

import msgspec

from mm_gateway.api.connection import HTTPConnection
from mm_gateway.api.errors import HttpError
from mm_gateway.errors import ContextLengthExceededError
from mm_gateway.protocol.messages import MessageError, MessageErrorBody, MessageErrorDetails

OVERLOADED = 529
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    OVERLOADED: "overloaded_error",
}


def speaks_anthropic(connection: HTTPConnection) -> bool:
    """Whether the client is one of Anthropic's API: it says so by a header, or asks for what only that API has."""
    return "anthropic-version" in connection.headers or connection.url.path.startswith("/v1/messages")


def message_error(found: HttpError, request_id: str | None) -> HttpError:
    """The same in Anthropic's words. It has no field for the parameter, so that the message names it."""
    status = found.status
    if status == 503 and found.headers.get("x-should-retry") != "false":
        status = OVERLOADED
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    param, message = found.body.param, found.body.message
    text = message if param is None or param in message else f"{param}: {message}"
    details = None if found.body.code is None else MessageErrorDetails(found.body.code)
    content = msgspec.json.encode(MessageError(MessageErrorBody(kind, text, details), request_id))
    return HttpError(status, found.body, found.headers, content)


def too_long(error: ContextLengthExceededError) -> str:
    """As Anthropic words it: its clients shorten their conversation when they read that."""
    return f"prompt is too long: {error.prompt_tokens} tokens > {error.context_length} maximum"
