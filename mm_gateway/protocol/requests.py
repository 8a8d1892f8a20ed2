"""Bodies of requests."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class ContentPart(msgspec.Struct):
    """One part of a message's content; only `text` parts are served."""

    type: str
    text: str | None = None


class FunctionCall(msgspec.Struct, forbid_unknown_fields=True):
    """`arguments` is JSON as text."""

    name: str
    arguments: str


class FunctionToolCall(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    function: FunctionCall
    type: Literal["function"] = "function"
    index: int | msgspec.UnsetType | None = msgspec.UNSET
    """Some clients send back what they put together from a stream."""


class FunctionDefinition(msgspec.Struct, forbid_unknown_fields=True):
    """`parameters`: JSON schema of an object. `strict` changes nothing: arguments always follow the schema."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionTool(msgspec.Struct):
    """Only `function` tools are served."""

    type: str
    function: FunctionDefinition | None = None


class FunctionName(msgspec.Struct, forbid_unknown_fields=True):
    name: str


class AllowedTool(msgspec.Struct):
    type: str
    function: FunctionName | None = None
    name: str | None = None


class AllowedTools(msgspec.Struct, forbid_unknown_fields=True):
    mode: Literal["auto", "required"]
    tools: list[AllowedTool]


class ToolChoice(msgspec.Struct):
    """`{"type": "function", "function": {"name"}}`, or `allowed_tools`."""

    type: str
    function: FunctionName | None = None
    allowed_tools: AllowedTools | None = None


class ChatMessage(msgspec.Struct, forbid_unknown_fields=True):
    """One message of a chat request."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[FunctionToolCall] | None = None
    tool_call_id: str | None = None
    function_call: Any = None
    refusal: str | None = None
    audio: Any = None
    annotations: list[Any] | None = None
    reasoning_content: str | None = None


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class JsonSchemaFormat(msgspec.Struct, forbid_unknown_fields=True):
    """`schema` of None means any JSON object. `strict` changes nothing: every schema is enforced."""

    name: str
    schema: dict[str, Any] | bool | None = None
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None


class SamplingFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How to continue, the same at every endpoint that generates text."""

    temperature: float | None = None
    top_p: float | None = None
    stop: str | list[str] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    seed: int | None = None
    user: str | None = None

    # extensions that peers share
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    ignore_eos: bool | None = None
    keep_alive: float | str | None = None


class _SharedFields(SamplingFields, kw_only=True, forbid_unknown_fields=True):
    """What chat and completion requests have in common."""

    model: str
    max_tokens: int | None = None
    n: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    # extensions that peers share
    guided_json: dict[str, Any] | bool | str | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None


class ChatCompletionRequest(_SharedFields, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /v1/chat/completions`."""

    messages: list[ChatMessage]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None

    # without effect on the reply, as OpenAI documents them
    metadata: dict[str, str] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None

    response_format: ResponseFormat | None = None
    workflow: dict[str, Any] | None = None
    """Extension: parameters of a workflow."""
    tools: list[FunctionTool] | None = None
    tool_choice: str | ToolChoice | None = None
    parallel_tool_calls: bool | None = None

    # decoded so that they can be refused by name
    functions: list[Any] | None = None
    function_call: Any = None
    modalities: list[str] | None = None
    audio: Any = None
    prediction: Any = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    web_search_options: Any = None


class CompletionRequest(_SharedFields, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /v1/completions`."""

    prompt: str | list[str | int | list[int]] | None = None
    """A text, texts, token ids, or lists of token ids; not mixed."""
    best_of: int | None = None
    echo: bool | None = None
    logprobs: int | None = None
    suffix: str | None = None


class EmbeddingRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /v1/embeddings`."""

    model: str
    input: str | list[str | int | list[int]]
    """A text, texts, token ids, or lists of token ids; not mixed, none empty, at most 2048."""
    encoding_format: Literal["float", "base64"] | None = None
    """base64: of little-endian float32."""
    dimensions: int | None = None
    """Only for models that were trained for it."""
    user: str | None = None
    keep_alive: float | str | None = None
    """Ours."""


class TokenizeRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /tokenize`, as vLLM has it: either `prompt` or `messages`."""

    model: str
    prompt: str | None = None
    messages: list[ChatMessage] | None = None
    add_special_tokens: bool | None = None
    """With `prompt`: what the tokenizer puts in front (BOS); default true. The chat template writes its own."""
    return_token_strs: bool | None = None
    add_generation_prompt: bool | None = None
    """With `messages`: the beginning of the assistant's turn; default true."""
    continue_final_message: bool | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: str | ToolChoice | None = None
    parallel_tool_calls: bool | None = None


class DetokenizeRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /detokenize`."""

    model: str
    tokens: list[int]
