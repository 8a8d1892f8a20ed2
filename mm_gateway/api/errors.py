"""The one table from exception to HTTP status and OpenAI's error envelope."""

from __future__ import annotations

import logging
import math

import msgspec
from litestar.exceptions import HTTPException
from litestar.response.base import ASGIResponse

from mm_gateway.errors import (
    AuthenticationError,
    ConfigurationError,
    EngineError,
    GatewayError,
    InvalidRequestError,
    ModelLoadError,
    ModelNotFoundError,
    ModelUnavailableError,
    NotStoredError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitError,
    RequestCancelledError,
    SearchError,
    ShuttingDownError,
    SlowReaderError,
    StageTimeoutError,
    StorageError,
    UpstreamError,
)
from mm_gateway.protocol import ErrorBody, ErrorReply

logger = logging.getLogger(__name__)

MAX_MESSAGE = 2000

# exception -> status, type, code; the first row whose class fits.
_TABLE: tuple[tuple[type[GatewayError], int, str, str | None], ...] = (
    (InvalidRequestError, 400, "invalid_request_error", None),
    (AuthenticationError, 401, "invalid_request_error", "invalid_api_key"),
    (PermissionDeniedError, 403, "invalid_request_error", "permission_denied"),
    (ModelNotFoundError, 404, "invalid_request_error", "model_not_found"),
    (NotStoredError, 404, "invalid_request_error", None),
    (QuotaExceededError, 429, "insufficient_quota", "insufficient_quota"),
    (RateLimitError, 429, "rate_limit_error", "rate_limit_exceeded"),
    (SlowReaderError, 408, "invalid_request_error", "slow_reader"),
    (ModelLoadError, 503, "server_error", "model_load_failed"),
    (ModelUnavailableError, 503, "server_error", "model_overloaded"),
    (StorageError, 503, "server_error", "storage_unavailable"),
    (StageTimeoutError, 504, "server_error", "stage_timeout"),
    (SearchError, 503, "server_error", "search_failed"),
    (ShuttingDownError, 503, "server_error", None),
    (RequestCancelledError, 503, "server_error", "request_cancelled"),
    (EngineError, 500, "server_error", None),
    (ConfigurationError, 500, "server_error", None),
)
_INTERNAL = (500, ErrorBody("The server had an error while processing your request", "server_error", None, None))


def error_code(error: BaseException) -> str:
    """What clients are told the error is: its code, or its type where it has none."""
    if isinstance(error, UpstreamError):
        return error.code or error.type
    if isinstance(error, HTTPException):
        return "invalid_request_error" if error.status_code < 500 else "server_error"
    own_code = error.code if isinstance(error, InvalidRequestError) else None
    return own_code or next((code or type_ for kind, _, type_, code in _TABLE if isinstance(error, kind)), "server_error")


class HttpError(msgspec.Struct, frozen=True):
    """An exception as HTTP says it. content: in place of OpenAI's envelope."""

    status: int
    body: ErrorBody
    headers: dict[str, str]
    content: bytes = b""

    def encode(self) -> bytes:
        return self.content or msgspec.json.encode(ErrorReply(self.body))


def http_error(error: BaseException) -> HttpError:
    """Status, envelope and headers of any exception; what is not a GatewayError is our fault, logged, and shows nothing."""
    if isinstance(error, UpstreamError):
        body = ErrorBody(_bounded(str(error)), error.type, error.param, error.code)
        return HttpError(error.status, body, _retry_after(error.retry_after_s))
    if isinstance(error, HTTPException):
        return _of_litestar(error)
    for kind, status, type_, code in _TABLE:
        if isinstance(error, kind):
            param = getattr(error, "param", None) if isinstance(error, InvalidRequestError | NotStoredError) else None
            if isinstance(error, ModelNotFoundError):
                param = "model"
            own_code = error.code if isinstance(error, InvalidRequestError) else None
            if isinstance(error, RateLimitError):
                type_ = error.type
            return HttpError(status, ErrorBody(_bounded(str(error)), type_, param, own_code or code), _headers(error))
    logger.error("unexpected error", exc_info=error)
    return HttpError(*_INTERNAL, {})


def error_response(found: HttpError) -> ASGIResponse:
    """The whole reply of an exception."""
    return ASGIResponse(body=found.encode(), status_code=found.status, headers=found.headers, media_type="application/json")


def _of_litestar(error: HTTPException) -> HttpError:
    messages = {
        404: "Unknown request URL. Please check the URL for typos",
        405: "Method not allowed for this URL",
        413: "The request body is too large",
    }
    if error.status_code >= 500:
        logger.error("unexpected error", exc_info=error)
        return HttpError(*_INTERNAL, {})
    message = messages.get(error.status_code, _bounded(error.detail))
    return HttpError(error.status_code, ErrorBody(message, "invalid_request_error", None, None), dict(error.headers or {}))


def _headers(error: GatewayError) -> dict[str, str]:
    if isinstance(error, RateLimitError):
        return {"x-should-retry": "false"} if error.retry_after_s is None else _retry_after(error.retry_after_s)
    if isinstance(error, ModelUnavailableError):
        # x-should-retry is what OpenAI's clients obey before their own rules.
        return _retry_after(error.retry_after_s or 1.0) if error.retryable else {"x-should-retry": "false"}
    if isinstance(error, StorageError):
        return _retry_after(error.retry_after_s)
    if isinstance(error, SearchError):
        return _retry_after(1.0) if error.retryable else {"x-should-retry": "false"}
    if isinstance(error, RequestCancelledError):
        return {"x-should-retry": "false"}
    return _retry_after(1.0) if isinstance(error, ShuttingDownError) else {}


def _retry_after(seconds: float | None) -> dict[str, str]:
    """In whole seconds for everybody, and exactly for OpenAI's clients, which read `retry-after-ms` first."""
    if seconds is None:
        return {}
    return {"retry-after": str(max(1, math.ceil(seconds))), "retry-after-ms": str(max(1, math.ceil(seconds * 1000)))}


def _bounded(message: str) -> str:
    return message if len(message) <= MAX_MESSAGE else message[:MAX_MESSAGE] + "…"
