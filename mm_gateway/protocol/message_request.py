"""Bodies of `/v1/messages` and `/v1/messages/count_tokens`, as Anthropic's API has them.

Source of the fields: the parameter types of Anthropic's published Python client, those of its beta endpoints included.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from mm_gateway.core.limits import (
    MAX_CONTENT_PARTS,
    MAX_MESSAGES,
    MAX_STOP_STRINGS,
    MAX_TOOLS,
    MaxTokens,
    Seed,
    StopString,
    Temperature,
    TopK,
    TopP,
)
from mm_gateway.protocol.conversation import TemplateVariables
from mm_gateway.protocol.fields import AddressedBody, KeepAlive, Speculation, about, extension, no_effect, refused

Blocks = Annotated[list[dict[str, Any]], Meta(max_length=MAX_CONTENT_PARTS)]


class MessageParam(msgspec.Struct):
    """One turn, or a part of one: turns of one role that follow each other are one."""

    role: Annotated[Literal["user", "assistant", "system"], about("`system` stands where it stands in the conversation.")]
    content: Annotated[
        str | Blocks,
        about(
            "A text, or blocks: `text`, `tool_use`, `tool_result`, `thinking`, `document` and `search_result` as text; `image` for models "
            "that take it."
        ),
    ]


class MessageToolChoice(msgspec.Struct):
    type: Annotated[Literal["auto", "any", "tool", "none"], about("`any`: some tool has to be used; `tool`: the one of that `name`.")]
    name: str | None = None
    disable_parallel_tool_use: Annotated[bool | None, about("At most one tool in a reply.")] = None


class ThinkingConfig(msgspec.Struct):
    type: Annotated[
        Literal["adaptive", "enabled", "disabled", "between_tools"],
        about("`enabled`: with a budget; `adaptive` and `between_tools`: as the model does; `disabled`: not at all."),
    ]
    budget_tokens: Annotated[Annotated[int, Meta(ge=0)] | None, about("Tokens of thought; it is closed when it has had so many.")] = None
    display: Annotated[
        Literal["summarized", "omitted"] | None,
        about("`omitted`: thinking blocks come without their text, which is in their signature. Otherwise with all of it."),
    ] = None


class OutputFormat(msgspec.Struct):
    type: Literal["json_schema"]
    schema: Annotated[dict[str, Any], about("JSON schema that the text follows.")]


class OutputConfig(msgspec.Struct):
    effort: Annotated[Literal["low", "medium", "high", "xhigh", "max"] | None, about("How much to think; `max` is `xhigh`.")] = None
    format: OutputFormat | None = None
    task_budget: Annotated[Any, no_effect("Left out, and named in `x-mm-gateway-ignored`.")] = None


class MessageMetadata(msgspec.Struct):
    user_id: Annotated[str | None, no_effect("Your name of the end user.")] = None


class CountTokensRequest(AddressedBody, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /v1/messages/count_tokens`."""

    messages: Annotated[Annotated[list[MessageParam], Meta(max_length=MAX_MESSAGES)], about("The conversation.", minItems=1)]
    system: Annotated[str | Blocks | None, about("A system message in front: a text, or text blocks.")] = None
    tools: Annotated[
        Annotated[list[dict[str, Any]], Meta(max_length=MAX_TOOLS)] | None,
        about(
            "Tools with `name`, `description` and `input_schema`; those of Anthropic's that clients run: bash, text_editor, memory; and "
            "`web_search`."
        ),
    ] = None
    tool_choice: Annotated[MessageToolChoice | None, about("Default: `auto`.")] = None
    thinking: Annotated[ThinkingConfig | None, about("How the model is to think. Default: as it does.")] = None
    output_config: Annotated[OutputConfig | None, about("`format`: a schema, enforced token by token; `effort`: of thought.")] = None
    output_format: Annotated[OutputFormat | None, about("The older name of `output_config.format`.")] = None
    chat_template_kwargs: TemplateVariables = None

    # without effect on the reply, or left out and named
    betas: Annotated[list[str] | None, no_effect("Anthropic's features in preview; sent as a header.")] = None
    billing_policy: Annotated[Any, no_effect("Nothing is billed.")] = None
    cache_control: Annotated[Any, no_effect("Prompts that begin alike share work; `usage.cache_read_input_tokens` says how much.")] = None
    compaction: Annotated[Any, no_effect("Left out, and named in `x-mm-gateway-ignored`.")] = None
    context_management: Annotated[
        Any, no_effect("The chat template decides which thoughts are read again; other edits are named in `x-mm-gateway-ignored`.")
    ] = None
    speed: Annotated[str | None, no_effect("As fast as can be.")] = None
    user_profile_id: Annotated[str | None, no_effect("Sent as a header.")] = None
    workspace_id: Annotated[str | None, no_effect("Sent as a header.")] = None

    # decoded so that they can be refused by name
    mcp_servers: Annotated[Any, refused("Let the client call them.", off=([],))] = None


class MessageRequest(CountTokensRequest, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /v1/messages`."""

    max_tokens: Annotated[
        MaxTokens | None, about("Most tokens to generate, thoughts included; what the context leaves where that is less.")
    ] = None
    stop_sequences: Annotated[
        Annotated[list[StopString], Meta(max_length=MAX_STOP_STRINGS)] | None,
        about("Texts that end the reply and are not part of it; `stop_sequence` says which one did."),
    ] = None
    temperature: Annotated[Temperature | None, about("0 is greedy. Default: the model's own, else 1.")] = None
    top_p: Annotated[TopP | None, about("Sample among the fewest tokens whose probabilities reach it.")] = None
    top_k: Annotated[TopK | None, about("Sample among the k most probable tokens; 0 or -1: all.")] = None
    stream: Annotated[bool | None, about("Send the reply as server-sent events while it is generated.")] = None
    metadata: Annotated[MessageMetadata | None, about("Who asks.")] = None

    seed: Annotated[Seed | None, extension("The same seed, prompt and parameters give the same text.")] = None
    keep_alive: KeepAlive = None
    speculation: Speculation = None
    workflow: Annotated[dict[str, Any] | None, extension("Parameters of a workflow; only for models that are workflows.")] = None

    # without effect on the reply
    diagnostics: Annotated[Any, no_effect("Nothing is told of misses of the cache.")] = None
    fallback_credit_token: Annotated[Any, no_effect("Nothing is billed.")] = None
    fallbacks: Annotated[Any, no_effect("The model that was asked for answers.")] = None
    inference_geo: Annotated[str | None, no_effect("Where it runs.")] = None
    service_tier: Annotated[str | None, no_effect("Priority.")] = None

    # decoded so that they can be refused by name
    container: Annotated[Any, refused()] = None
    thread: Annotated[Any, refused("Send the whole conversation.")] = None
