"""OpenAI's wire format of `/v1/responses` as msgspec structs: items, response object; knows nothing of HTTP.

Items are the entries of `input` and `output`. What a client sends may leave out ids and statuses and write content as plain
text; `api/responses/items.py` makes of it the items here, which are also what is stored and listed.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from mm_gateway.protocol.response_calls import ItemStatus, ToolCallItem, ToolOutputItem
from mm_gateway.protocol.response_searches import SearchItem

ResponseStatus = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]


class UrlCitationAnnotation(msgspec.Struct, tag_field="type", tag="url_citation"):
    """`start_index`, `end_index`: characters of the part's text, end exclusive."""

    start_index: int
    end_index: int
    title: str
    url: str


class InputText(msgspec.Struct, tag_field="type", tag="input_text", forbid_unknown_fields=True):
    text: str


class OutputText(msgspec.Struct, tag_field="type", tag="output_text", forbid_unknown_fields=True):
    """annotations: UrlCitationAnnotation, logprobs: ChatLogprob; of what a client sends back whatever they are."""

    text: str
    annotations: list[Any] = []
    logprobs: list[Any] = []


class Refusal(msgspec.Struct, tag_field="type", tag="refusal", forbid_unknown_fields=True):
    refusal: str


class InputImage(msgspec.Struct, tag_field="type", tag="input_image", forbid_unknown_fields=True):
    """image_url: an address, or a data URL."""

    image_url: str
    detail: str | None = None


class InputFile(msgspec.Struct, tag_field="type", tag="input_file", forbid_unknown_fields=True):
    """One of `file_id`, of the server that answers, `file_data`, a data URL, and `file_url`, an address."""

    file_id: str | None = None
    file_url: str | None = None
    filename: str | None = None
    file_data: str | None = None


class InputAudio(msgspec.Struct, tag_field="type", tag="input_audio", forbid_unknown_fields=True):
    """input_audio: `{"data": base64, "format"}`."""

    input_audio: dict[str, str]


Media = InputImage | InputFile | InputAudio
"""Only for models of other servers."""
Part = InputText | OutputText | Refusal | Media


class MessageItem(msgspec.Struct, tag_field="type", tag="message"):
    id: str
    role: Literal["user", "system", "developer", "assistant"]
    content: list[Part]
    status: ItemStatus = "completed"


class FunctionCallItem(msgspec.Struct, tag_field="type", tag="function_call"):
    """`arguments` is JSON as text; `call_id` is what the output names."""

    id: str
    call_id: str
    name: str
    arguments: str
    status: ItemStatus = "completed"
    namespace: str | msgspec.UnsetType = msgspec.UNSET


class FunctionCallOutputItem(msgspec.Struct, tag_field="type", tag="function_call_output"):
    id: str
    call_id: str
    output: str | list[InputText | Media]
    status: ItemStatus = "completed"


class ReasoningText(msgspec.Struct, tag_field="type", tag="reasoning_text"):
    text: str


class ReasoningItem(msgspec.Struct, tag_field="type", tag="reasoning"):
    """What a model thought before it answered. `encrypted_content`: the same, for clients that bring it back and store nothing here."""

    id: str
    summary: list[Any] = []
    content: list[ReasoningText] | None = None
    encrypted_content: str | None = None
    status: ItemStatus | None = None


class CompactionItem(msgspec.Struct, tag_field="type", tag="compaction"):
    """A conversation summed up. `encrypted_content`: the summary, which clients bring back and this installation alone reads."""

    id: str
    encrypted_content: str


OutputItem = MessageItem | FunctionCallItem | ToolCallItem | SearchItem | ReasoningItem | CompactionItem
Item = OutputItem | FunctionCallOutputItem | ToolOutputItem


class ResponseFailure(msgspec.Struct):
    code: Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]
    message: str


class IncompleteDetails(msgspec.Struct):
    reason: Literal["max_output_tokens", "content_filter"]


class InputTokensDetails(msgspec.Struct):
    cached_tokens: int = 0
    cache_write_tokens: int = 0


class OutputTokensDetails(msgspec.Struct):
    reasoning_tokens: int = 0


class ResponseUsage(msgspec.Struct):
    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class ReasoningReply(msgspec.Struct):
    effort: str | None = None
    summary: None = None


class ResponseObject(msgspec.Struct, kw_only=True):
    """Reply of `POST /v1/responses`, and what its events carry. `temperature`, `top_p` of None: the model's own."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: ResponseStatus = "in_progress"
    background: bool = False
    completed_at: int | None = None
    error: ResponseFailure | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    metadata: dict[str, str]
    model: str
    output: list[OutputItem] = []
    parallel_tool_calls: bool
    previous_response_id: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    reasoning: ReasoningReply = msgspec.field(default_factory=ReasoningReply)
    safety_identifier: str | None = None
    service_tier: str = "default"
    store: bool
    temperature: float | None = None
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int = 0
    top_p: float | None = None
    truncation: Literal["auto", "disabled"] = "disabled"
    usage: ResponseUsage | None = None
    user: str | None = None


class DeletedResponse(msgspec.Struct):
    id: str
    object: Literal["response"] = "response"
    deleted: bool = True


class CompactedResponse(msgspec.Struct, kw_only=True):
    """Reply of `POST /v1/responses/compact`. output: what users and developers said, then one compaction item."""

    id: str
    object: Literal["response.compaction"] = "response.compaction"
    created_at: int
    output: list[OutputItem]
    usage: ResponseUsage


class InputTokens(msgspec.Struct):
    """Reply of `POST /v1/responses/input_tokens`."""

    input_tokens: int
    object: Literal["response.input_tokens"] = "response.input_tokens"


class ItemList(msgspec.Struct):
    """One page of a response's input items."""

    data: list[Item]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: Literal["list"] = "list"


class StoredResponse(msgspec.Struct):
    """What is kept of a response. input: everything it was made from but its instructions, turns of earlier responses included.

    alive_at: Unix seconds at which it still ran; None: it has ended.
    """

    response: ResponseObject
    input: list[Item]
    alive_at: float | None = None
