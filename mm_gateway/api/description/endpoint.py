"""What the OpenAPI description says of an endpoint, and the tags, headers and errors that endpoints share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
from litestar.handlers import HTTPRouteHandler

TAGS = {
    "Responses": "Conversations that the gateway keeps.",
    "Messages": "Conversations, as Anthropic's API has them.",
    "Text": "Conversations and texts, continued.",
    "Embeddings": "Texts as vectors.",
    "Tokens": "How a model reads text.",
    "Models": "What is served.",
    "Operation": "For those who run the gateway.",
}

HEADERS: dict[str, Any] = {
    "x-request-id": {"description": "Names the request in the log.", "schema": {"type": "string", "pattern": "^req_[0-9a-f]{32}$"}},
    "request-id": {
        "description": "The same, as Anthropic's clients read it.",
        "schema": {"type": "string", "pattern": "^req_[0-9a-f]{32}$"},
    },
    "openai-processing-ms": {"description": "Milliseconds until the reply began.", "schema": {"type": "integer", "minimum": 0}},
    "retry-after": {"description": "Seconds after which to try again.", "schema": {"type": "integer", "minimum": 1}},
    "retry-after-ms": {"description": "The same in milliseconds.", "schema": {"type": "integer", "minimum": 1}},
    "x-should-retry": {"description": "false: trying again cannot help.", "schema": {"type": "string", "enum": ["true", "false"]}},
}
HEADERS["x-mm-gateway-ignored"] = {
    "description": "Paths of what of the body was left out, as far as known when the reply began.",
    "schema": {"type": "string"},
}
for _what in ("requests", "tokens"):
    HEADERS.update(
        {
            f"x-ratelimit-limit-{_what}": {"description": f"{_what.title()} per minute, where limited.", "schema": {"type": "integer"}},
            f"x-ratelimit-remaining-{_what}": {"description": f"{_what.title()} left now.", "schema": {"type": "integer", "minimum": 0}},
            f"x-ratelimit-reset-{_what}": {"description": "Until all are there again, e.g. `1m12s`.", "schema": {"type": "string"}},
        }
    )

# name -> status, description, headers
ERRORS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "BadRequest": (
        "400",
        "The request is wrong; `param` names the field. Codes: `context_length_exceeded`, `unsupported_parameter`, `unsupported_value`, …",
        (),
    ),
    "Unauthorized": ("401", "API key missing or wrong (`invalid_api_key`)", ()),
    "Forbidden": ("403", "Not open to this key, or to anybody (`permission_denied`)", ()),
    "NotFound": ("404", "Unknown model (`model_not_found`) or path", ()),
    "MethodNotAllowed": ("405", "The path is served, but not by this method", ()),
    "TooLarge": ("413", "The body is larger than `server.max_body_bytes`", ()),
    "NotJson": ("415", "The body is not sent as application/json", ()),
    "TooMany": (
        "429",
        "A limit or a queue is full (`rate_limit_exceeded`), or a budget used up (`insufficient_quota`)",
        ("retry-after", "retry-after-ms", "x-should-retry"),
    ),
    "Internal": ("500", "The gateway's fault; the message shows nothing of its inside", ()),
    "Upstream": ("502", "The server behind a remote model cannot be reached, or broke off", ()),
    "Unavailable": (
        "503",
        "The model cannot serve now (`model_overloaded`) or be loaded (`model_load_failed`), or the gateway is shutting down",
        ("retry-after", "retry-after-ms", "x-should-retry"),
    ),
    "UpstreamTimeout": ("504", "The server behind a remote model did not answer in time", ()),
    "Passed": ("default", "An error of the server behind a remote model, passed on with its status", ()),
}
GET_ERRORS = ("BadRequest", "Unauthorized", "MethodNotAllowed", "TooMany", "Internal")
STORED_ERRORS = (*GET_ERRORS, "NotFound")
POST_ERRORS = ("BadRequest", "Unauthorized", "NotFound", "MethodNotAllowed", "TooLarge", "NotJson", "TooMany", "Internal")
ADMIN_ERRORS = ("BadRequest", "Unauthorized", "Forbidden", "MethodNotAllowed", "Internal")
MODEL_ERRORS = (*POST_ERRORS, "Upstream", "Unavailable", "UpstreamTimeout", "Passed")


@dataclass(frozen=True)
class Endpoint:
    """A handler and what is said of it.

    Attributes:
        handler: of one path and, HEAD apart, one method. tag: where it is listed.
        body, reply: structs of what comes and goes; None: nothing. text: instead of a reply, what its plain text is.
        event: of one event, where it can stream.
        events: instead, what its events are, where they are of many kinds.
        examples: bodies by name, each accepted by the mock. answer: a reply. stream: a stream.
        errors: names in ERRORS. other_replies: status -> struct, of replies that are no errors. security: which key opens it.
        parameters: more about path parameters, by name. query: parameters of the query, by name.
    """

    handler: HTTPRouteHandler
    tag: str
    reply: type[msgspec.Struct] | None = None
    body: type[msgspec.Struct] | None = None
    event: type[msgspec.Struct] | None = None
    events: str | None = None
    examples: Mapping[str, Any] = field(default_factory=dict[str, Any])
    answer: Any = None
    text: str | None = None
    stream: str | None = None
    errors: tuple[str, ...] = GET_ERRORS
    other_replies: Mapping[str, type[msgspec.Struct]] = field(default_factory=dict[str, type[msgspec.Struct]])
    security: Literal["", "client", "admin", "metrics"] = "client"
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    query: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def method(self) -> str:
        return next(method for method in sorted(map(str, self.handler.http_methods)) if method != "HEAD")

    @property
    def path(self) -> str:
        """With the names of its parameters in braces."""
        (path,) = self.handler.paths
        return re.sub(r"\{(\w+):\w+\}", r"{\1}", path)
