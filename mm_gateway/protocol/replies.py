"""Bodies of replies, and chunks of streams."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from mm_gateway.protocol.conversation import ToolCallEntry

# `gc=False`: a reply may have a million of these two, and they hold no cycles for Python's collector to find.


class TopLogprob(msgspec.Struct, gc=False):
    token: str
    logprob: float
    bytes: list[int] | None


class ChatLogprob(msgspec.Struct, gc=False):
    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[TopLogprob]


class ChatLogprobs(msgspec.Struct):
    content: list[ChatLogprob] | None = None
    refusal: None = None


class CompletionLogprobs(msgspec.Struct):
    """Parallel arrays, one entry a token; text_offset counts characters from the start of the text."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class PromptTokensDetails(msgspec.Struct):
    cached_tokens: int = 0
    audio_tokens: int = 0


class CompletionTokensDetails(msgspec.Struct):
    reasoning_tokens: int = 0
    audio_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class StageUsageReply(msgspec.Struct):
    stage: str
    prompt_tokens: int
    completion_tokens: int


class UsageReply(msgspec.Struct):
    """`workflow` is ours: what each stage of a workflow took of it."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    prompt_tokens_details: PromptTokensDetails | None = msgspec.field(default_factory=PromptTokensDetails)
    completion_tokens_details: CompletionTokensDetails | None = msgspec.field(default_factory=CompletionTokensDetails)
    workflow: list[StageUsageReply] | msgspec.UnsetType = msgspec.UNSET


class UrlCitationReply(msgspec.Struct):
    """Indices count characters of the content, end exclusive."""

    start_index: int
    end_index: int
    title: str
    url: str


class Annotation(msgspec.Struct):
    url_citation: UrlCitationReply
    type: Literal["url_citation"] = "url_citation"


class AssistantMessage(msgspec.Struct):
    content: str | None
    role: Literal["assistant"] = "assistant"
    refusal: None = None
    annotations: list[Annotation] | msgspec.UnsetType = msgspec.UNSET
    tool_calls: list[ToolCallEntry] | msgspec.UnsetType = msgspec.UNSET
    reasoning_content: str | msgspec.UnsetType = msgspec.UNSET
    """Extension: what the model thought before it answered. `reasoning` is the same under vLLM's name."""
    reasoning: str | msgspec.UnsetType = msgspec.UNSET


class PromptLogprob(msgspec.Struct, gc=False):
    """rank: 1 for the most probable token."""

    logprob: float
    rank: int | None
    decoded_token: str


PromptLogprobs = list[dict[str, PromptLogprob] | None]
"""vLLM's: for each token of the prompt, its id and those of the most probable ones; null for the first."""


class ChatChoice(msgspec.Struct):
    """stop_reason: the stop string or token of the request that ended it, as vLLM tells it. token_ids: with `return_token_ids`, all that
    were sampled.
    """

    index: int
    message: AssistantMessage
    finish_reason: str
    logprobs: ChatLogprobs | None = None
    stop_reason: str | int | None = None
    token_ids: list[int] | msgspec.UnsetType = msgspec.UNSET


class ChatCompletion(msgspec.Struct):
    """Reply of `POST /v1/chat/completions` without `stream`."""

    id: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: UsageReply
    system_fingerprint: str
    workflow: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    """Extension, in replies of workflows: `model`, `degraded`, `steps`, and what the workflow tells."""
    prompt_logprobs: PromptLogprobs | msgspec.UnsetType = msgspec.UNSET
    prompt_token_ids: tuple[int, ...] | msgspec.UnsetType = msgspec.UNSET
    object: Literal["chat.completion"] = "chat.completion"


class ChunkToolCall(msgspec.Struct):
    """A piece of a call: `id`, `type` and the name come with the first; pieces of one `index` belong together."""

    index: int
    function: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    custom: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    id: str | msgspec.UnsetType = msgspec.UNSET
    type: Literal["function", "custom"] | msgspec.UnsetType = msgspec.UNSET


class ChunkDelta(msgspec.Struct):
    role: Literal["assistant"] | msgspec.UnsetType = msgspec.UNSET
    content: str | msgspec.UnsetType | None = msgspec.UNSET
    refusal: msgspec.UnsetType | None = msgspec.UNSET
    tool_calls: list[ChunkToolCall] | msgspec.UnsetType = msgspec.UNSET
    reasoning_content: str | msgspec.UnsetType = msgspec.UNSET
    reasoning: str | msgspec.UnsetType = msgspec.UNSET


class ChunkChoice(msgspec.Struct):
    index: int
    delta: ChunkDelta
    finish_reason: str | None
    logprobs: ChatLogprobs | None
    token_ids: list[int] | msgspec.UnsetType = msgspec.UNSET


class ChatCompletionChunk(msgspec.Struct):
    """One event of `POST /v1/chat/completions` with `stream`; only described by this, written by hand."""

    id: str
    created: int
    model: str
    choices: list[ChunkChoice]
    system_fingerprint: str
    object: Literal["chat.completion.chunk"]
    usage: UsageReply | msgspec.UnsetType | None = msgspec.UNSET
    prompt_token_ids: list[int] | msgspec.UnsetType = msgspec.UNSET
    """With `return_token_ids`, in the first."""


class CompletionChoice(msgspec.Struct):
    """stop_reason, token_ids: as of ChatChoice."""

    index: int
    text: str
    finish_reason: str | None
    logprobs: CompletionLogprobs | None = None
    stop_reason: str | int | None = None
    token_ids: list[int] | msgspec.UnsetType = msgspec.UNSET
    prompt_token_ids: tuple[int, ...] | msgspec.UnsetType = msgspec.UNSET
    prompt_logprobs: PromptLogprobs | msgspec.UnsetType = msgspec.UNSET


class Completion(msgspec.Struct):
    """Reply of `POST /v1/completions` without `stream`."""

    id: str
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: UsageReply
    system_fingerprint: str
    object: Literal["text_completion"] = "text_completion"


class CompletionChunk(msgspec.Struct):
    """One event of `POST /v1/completions` with `stream`; only described by this, written by hand."""

    id: str
    created: int
    model: str
    choices: list[CompletionChoice]
    system_fingerprint: str
    object: Literal["text_completion"]
    usage: UsageReply | msgspec.UnsetType | None = msgspec.UNSET


class EmbeddingUsage(msgspec.Struct):
    prompt_tokens: int
    total_tokens: int


class EmbeddingItem(msgspec.Struct):
    """`embedding`: numbers, or base64 of little-endian float32."""

    index: int
    embedding: list[float] | str
    object: Literal["embedding"] = "embedding"


class EmbeddingList(msgspec.Struct):
    """Reply of `POST /v1/embeddings`."""

    data: list[EmbeddingItem]
    model: str
    usage: EmbeddingUsage
    object: Literal["list"] = "list"


class TokenizeReply(msgspec.Struct):
    """Reply of `POST /tokenize`. token_strs: as the vocabulary spells them, where asked for."""

    count: int
    max_model_len: int | None
    tokens: tuple[int, ...]
    token_strs: tuple[str, ...] | None = None


class DetokenizeReply(msgspec.Struct):
    """Reply of `POST /detokenize`."""

    prompt: str


class ErrorBody(msgspec.Struct):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(msgspec.Struct):
    """The envelope of every error."""

    error: ErrorBody


class ModelCard(msgspec.Struct):
    """One entry of `GET /v1/models`; `root` (of an alias its entry) and `max_model_len` are vLLM's, the fields from `backend` on ours."""

    id: str
    created: int
    owned_by: str
    root: str
    max_model_len: int | None
    backend: str
    state: str
    context_length: int | None
    aliases: tuple[str, ...]
    details: dict[str, Any]
    object: Literal["model"] = "model"


class ModelList(msgspec.Struct):
    data: list[ModelCard]
    object: Literal["list"] = "list"
