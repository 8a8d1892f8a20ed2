"""Every error that the gateway raises on purpose; knows nothing of HTTP (`api/errors.py` maps each to a status).

GatewayError
 ├── ConfigurationError              a settings file or environment variable is wrong; names file, entry and key
 ├── InvalidRequestError             the caller must change the request; `param` names the field
 │    ├── UnsupportedParameterError  a field or value that this backend does not implement
 │    └── ContextLengthExceededError prompt plus requested tokens do not fit the model's context
 ├── AuthenticationError             key missing or wrong
 ├── PermissionDeniedError           the key does not open this, or nothing does
 ├── ModelNotFoundError              no model of that name is configured
 ├── NotStoredError                  no stored response, or item of one, has that id
 ├── RateLimitError                  a limit or a queue is full; `retry_after_s` says when to come back
 ├── SlowReaderError                 a client leaves too much of a reply unread
 ├── ModelUnavailableError           the model cannot serve now; `retryable` says whether trying again can help
 │    ├── ModelLoadError             loading failed: what failed and what to try
 │    │    └── DownloadError         files of the hub cannot be had: unknown, gated, no network, no room on the disk
 │    └── OutOfMemoryError           device memory ran out; carries the advice
 ├── ShuttingDownError               the gateway is closing
 ├── RequestCancelledError           the operator has ended the request
 ├── UpstreamError                   a remote OpenAI-compatible server answered with an error
 ├── StorageError                    what is stored cannot be read or written now; `retry_after_s`
 ├── StageTimeoutError               a stage of a workflow waited too long for its model or its work
 ├── SearchError                     where search-qa looks could not be asked; `retryable`
 ├── PageError                       a page or file cannot be fetched or read
 └── EngineError                     our fault: a forward pass failed, a NaN appeared
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OUT_OF_MEMORY_ADVICE = "Reduce max_cached_models, enable quantization, use a smaller model, or switch to the CPU"


class GatewayError(Exception):
    """Root of the tree. `str(error)` is written for the person who reads it: what failed and what to do."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors go from process to process with what they hold. Exception's own way calls the class with the message alone.
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[GatewayError], args: tuple[Any, ...], state: Mapping[str, Any]) -> GatewayError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class ConfigurationError(GatewayError):
    """A wrong key or value in the configuration; the message names file, entry, key and what is allowed."""


class InvalidRequestError(GatewayError):
    """The request cannot be served as it stands.

    Args:
        message: what is wrong and what is allowed.
        param: the field, as a path such as `messages[0].content`; None when no single field is at fault.
        code: OpenAI's machine-readable code, or None.
    """

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class UnsupportedParameterError(InvalidRequestError):
    """A field, or a value of it, that is not implemented; never silently ignored."""

    def __init__(self, message: str, *, param: str, code: str = "unsupported_parameter") -> None:
        super().__init__(message, param=param, code=code)


class ContextLengthExceededError(InvalidRequestError):
    """Prompt plus requested tokens exceed the context; worded as OpenAI words it, because clients match on it.

    Args:
        context_length: tokens that the model can hold.
        prompt_tokens: tokens in the prompt.
        requested_tokens: tokens asked for as output; None where the caller set no limit.
        param: the field that carried the prompt.
        at_least: the prompt was not counted to its end, it may have more tokens than that.
    """

    def __init__(
        self,
        context_length: int,
        prompt_tokens: int,
        requested_tokens: int | None = None,
        *,
        param: str = "messages",
        at_least: bool = False,
    ) -> None:
        self.context_length = context_length
        self.prompt_tokens = prompt_tokens
        least = "at least " if at_least else ""
        if requested_tokens is None:
            asked = f"your {param} resulted in {least}{prompt_tokens} tokens"
            advice = f"Please reduce the length of the {param}."
        else:
            total = prompt_tokens + requested_tokens
            asked = f"you requested {least}{total} tokens ({prompt_tokens} in the {param}, {requested_tokens} in the completion)"
            advice = f"Please reduce the length of the {param} or completion."
        super().__init__(
            f"This model's maximum context length is {context_length} tokens. However, {asked}. {advice}",
            param=param,
            code="context_length_exceeded",
        )


class AuthenticationError(GatewayError):
    """The API key is missing or wrong."""


class PermissionDeniedError(GatewayError):
    """What was asked for is not open to this key, or to anybody."""


class ModelNotFoundError(GatewayError):
    """No model of that name is configured.

    Args:
        model: the name that was asked for.
        available: names that would have worked; the message lists a few.
    """

    def __init__(self, model: str, available: tuple[str, ...] = ()) -> None:
        self.model = model
        shown = model if len(model) <= 200 else model[:200] + "…"
        message = f"The model `{shown}` does not exist"
        if available:
            listed = ", ".join(available[:20]) + (", …" if len(available) > 20 else "")
            message += f". Configured models: {listed}"
        super().__init__(message)


class NotStoredError(GatewayError):
    """Nothing is stored under an id, or no longer, or it belongs to another key. param: the field that named it, where one did."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class RateLimitError(GatewayError):
    """A rate limit or a queue bound was hit.

    Args:
        retry_after_s: seconds, > 0, after which to come back; None: never, the request itself is too large.
        type: the envelope's `type`: which of a key's limits it was, `requests` or `tokens`; else it was a queue.
    """

    def __init__(self, message: str, *, retry_after_s: float | None, type: str = "rate_limit_error") -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.type = type


class QuotaExceededError(RateLimitError):
    """A key's budget is used up; the message says which, and when it begins anew. Without `retry_after_s` none helps before."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message, retry_after_s=retry_after_s, type="insufficient_quota")


class SlowReaderError(GatewayError):
    """The client leaves so much of a reply unread that it was ended; the message says so."""


class ModelUnavailableError(GatewayError):
    """The model cannot serve this request now.

    Args:
        message: why, and what to try.
        retryable: False where trying again cannot help until something is changed.
        retry_after_s: seconds to wait before trying again, where known.
    """

    def __init__(self, message: str, *, retryable: bool, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.retry_after_s = retry_after_s


class ModelLoadError(ModelUnavailableError):
    """Loading failed. The message says what failed and what to try; retryable after an outage of network or disk."""

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message, retryable=retryable)


class DownloadError(ModelLoadError):
    """Files of the hub cannot be had: the repository is unknown or gated, there is no network, or no room on the disk.

    Args:
        missing: the hub has no such repository, revision or file, or does not show it to this user.
    """

    def __init__(self, message: str, *, retryable: bool = False, missing: bool = False) -> None:
        super().__init__(message, retryable=retryable)
        self.missing = missing


class OutOfMemoryError(ModelUnavailableError):
    """Device memory ran out in a load or a forward pass; the message carries the advice of the guide."""

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        super().__init__(message, retryable=retryable)


class ShuttingDownError(GatewayError):
    """The gateway is closing and takes no new work."""


class RequestCancelledError(GatewayError):
    """The operator has ended the request."""


class UpstreamError(GatewayError):
    """A remote server's error, passed on with its own status and envelope fields.

    Args:
        message: the upstream's message, or what went wrong on the way to it.
        status: HTTP status to answer with; 502 where upstream gave none (unreachable, broken reply).
        type: the envelope's `type`. param, code: likewise, None where upstream gave none.
        retry_after_s: upstream's Retry-After in seconds, where given.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 502,
        type: str = "server_error",
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.type = type
        self.param = param
        self.code = code
        self.retry_after_s = retry_after_s


class StorageError(GatewayError):
    """What is stored cannot be read or written now: another process holds it, or the disk is full or broken; the message says which.

    Args:
        retry_after_s: seconds, > 0, after which to come back.
    """

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StageTimeoutError(GatewayError):
    """What a stage of a workflow waited for did not come in time; the message says which stage, and for what."""


class SearchError(GatewayError):
    """A search provider failed. The message says which, and what to do; retryable: the same search may succeed later."""

    def __init__(self, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.retryable = retryable


class PageError(GatewayError):
    """One page or file cannot be fetched or read: unreachable, refused, too large, of no kind that is read, or without text."""


class EngineError(GatewayError):
    """The engine failed through no fault of the request: an exception in a forward pass, or a NaN."""
