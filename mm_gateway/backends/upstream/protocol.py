"""What is understood of what comes back from an upstream server: every field optional, because servers differ. The rest is passed on."""

from __future__ import annotations

from typing import Any

import msgspec


class Function(msgspec.Struct):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class ToolCall(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: Function | None = None


class Citation(msgspec.Struct):
    start_index: int = 0
    end_index: int = 0
    title: str = ""
    url: str = ""


class Annotation(msgspec.Struct):
    url_citation: Citation | None = None


class Delta(msgspec.Struct):
    """What is understood of a delta or a message; its other fields are passed on as they are."""

    content: str | list[dict[str, Any]] | None = None
    """As a list: parts, of which those of type `text` are the text."""
    reasoning_content: Any = None
    reasoning: Any = None
    """Either is a piece of a thought where it is a text."""
    annotations: list[Annotation] | None = None
    tool_calls: list[dict[str, Any]] | None = None
    """Each a ToolCall; what else it has is passed on, too."""


class TopLogprob(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int] | None = None


class ChatLogprob(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int] | None = None
    top_logprobs: list[TopLogprob] | None = None


class Logprobs(msgspec.Struct):
    """Chat has `content`, completions have the arrays."""

    content: list[ChatLogprob] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None


class Choice(msgspec.Struct):
    index: int | None = None
    delta: dict[str, Any] | None = None
    message: dict[str, Any] | None = None
    """In place of `delta`: some send a reply whole."""
    text: str | None = None
    finish_reason: str | None = None
    logprobs: Logprobs | None = None


class PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class CompletionDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None


class WireError(msgspec.Struct):
    message: str | None = None
    type: str | None = None
    param: str | None = None
    code: str | int | None = None


class Chunk(msgspec.Struct):
    """One `data:` line of an upstream's stream."""

    choices: list[dict[str, Any]] | None = None
    usage: Usage | None = None
    error: Any = None
    """Of any shape, see `reported_errors`."""
