"""Anthropic's wire format of messages as msgspec structs: blocks, replies, models, errors; knows nothing of HTTP.

Source of the shapes: the response types of Anthropic's published Python client. Blocks that clients send may have fields beyond
those here: their clients add some with every release.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal", "model_context_window_exceeded"]


class TextBlock(msgspec.Struct, tag_field="type", tag="text", omit_defaults=True):
    text: str
    citations: list[Any] | None = None


class ToolUseBlock(msgspec.Struct, tag_field="type", tag="tool_use"):
    """input: an object."""

    id: str
    name: str
    input: dict[str, Any]


class ThinkingBlock(msgspec.Struct, tag_field="type", tag="thinking"):
    thinking: str
    signature: str = ""


class ServerToolUseBlock(msgspec.Struct, tag_field="type", tag="server_tool_use"):
    """A search that the gateway runs. input: `{"query"}`."""

    id: str
    name: str
    input: dict[str, Any]


class WebSearchResult(msgspec.Struct, tag_field="type", tag="web_search_result"):
    """encrypted_content: always empty, since results that come back are not read again."""

    url: str
    title: str
    encrypted_content: str = ""
    page_age: str | None = None


class WebSearchError(msgspec.Struct, tag_field="type", tag="web_search_tool_result_error"):
    error_code: Literal["unavailable"] = "unavailable"


class WebSearchResultBlock(msgspec.Struct, tag_field="type", tag="web_search_tool_result"):
    tool_use_id: str
    content: list[WebSearchResult] | WebSearchError


ReplyBlock = TextBlock | ToolUseBlock | ThinkingBlock | ServerToolUseBlock | WebSearchResultBlock


class WebSearchCitation(msgspec.Struct, tag_field="type", tag="web_search_result_location"):
    url: str
    title: str
    cited_text: str = ""
    encrypted_index: str = ""


class GivenSource(msgspec.Struct):
    """Of an image or a document: `base64`, `url`, `text`, `content` or `file`."""

    type: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    content: str | list[dict[str, Any]] | None = None


class GivenMedia(msgspec.Struct):
    """An image or a document."""

    source: GivenSource
    title: str | None = None
    context: str | None = None


class GivenSearchResult(msgspec.Struct):
    source: str
    title: str
    content: list[dict[str, Any]]


class GivenToolResult(msgspec.Struct):
    tool_use_id: str
    content: str | list[dict[str, Any]] | None = None
    is_error: bool | None = None


class GivenTool(msgspec.Struct):
    """input_schema: only tools without a type of Anthropic's have one."""

    name: str | None = None
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None
    input_examples: list[Any] | None = None
    defer_loading: bool | None = None
    allowed_callers: list[str] | None = None
    max_characters: int | None = None
    max_uses: Annotated[int, Meta(ge=1)] | None = None
    allowed_domains: list[str] | None = None
    blocked_domains: list[str] | None = None
    user_location: Any = None


class OutputDetails(msgspec.Struct):
    thinking_tokens: int = 0


class ServerToolUsage(msgspec.Struct):
    web_search_requests: int = 0
    web_fetch_requests: int = 0


class MessageUsage(msgspec.Struct):
    """The prompt has `input_tokens` and `cache_read_input_tokens` together; the latter were computed for an earlier one."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0
    output_tokens_details: OutputDetails = msgspec.field(default_factory=OutputDetails)
    server_tool_use: ServerToolUsage | None = None


class MessageReplyBody(msgspec.Struct, tag_field="type", tag="message"):
    """The reply of `POST /v1/messages`."""

    id: str
    model: str
    content: list[ReplyBlock] = []
    stop_reason: StopReason | None = None
    stop_sequence: str | None = None
    usage: MessageUsage = msgspec.field(default_factory=MessageUsage)
    role: Literal["assistant"] = "assistant"


class MessageTokens(msgspec.Struct):
    input_tokens: int


class MessageModel(msgspec.Struct, tag_field="type", tag="model"):
    """created_at: RFC 3339. max_input_tokens, max_tokens: of prompt and reply together; null: unknown."""

    id: str
    display_name: str
    created_at: str
    max_input_tokens: int | None = None
    max_tokens: int | None = None
    lifecycle: Literal["active"] = "active"


class MessageModelList(msgspec.Struct):
    data: list[MessageModel]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False


class MessageErrorDetails(msgspec.Struct):
    error_code: str


class MessageErrorBody(msgspec.Struct, omit_defaults=True):
    """details: a code, where the error has one."""

    type: str
    message: str
    details: MessageErrorDetails | None = None


class MessageError(msgspec.Struct, tag_field="type", tag="error"):
    error: MessageErrorBody
    request_id: str | None = None
