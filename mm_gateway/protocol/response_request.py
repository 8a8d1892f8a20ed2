"""Body of `/v1/responses`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from mm_gateway.core.limits import MAX_ITEMS, MAX_TOOLS, MaxTokens, TopLogprobs
from mm_gateway.protocol.conversation import AllowedTool, ParallelToolCalls, TemplateVariables
from mm_gateway.protocol.fields import Metadata, Verbosity, about, extension, no_effect, refused
from mm_gateway.protocol.generation import SamplingFields
from mm_gateway.protocol.reasoning import BudgetField, EffortField, TokenBudgetField

Includable = Literal[
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
]


class ResponseStreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    include_obfuscation: Annotated[
        bool | None, about("Pad deltas with random text, so that their sizes tell nothing. Default: false, unlike OpenAI's.")
    ] = None


class TextFormat(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: Annotated[bool | None, no_effect("Every schema is enforced.")] = None


class TextConfig(msgspec.Struct, forbid_unknown_fields=True):
    format: TextFormat | None = None
    verbosity: Verbosity = None


class ReasoningConfig(msgspec.Struct, forbid_unknown_fields=True):
    effort: EffortField = None
    summary: Annotated[
        Literal["none", "auto", "concise", "detailed"] | None,
        no_effect("Thoughts are told whole, as `content` of a reasoning item; there is nothing that sums them up."),
    ] = None
    generate_summary: Annotated[Literal["none", "auto", "concise", "detailed"] | None, no_effect("The older name of `summary`.")] = None
    context: Annotated[str | None, refused(off=("auto",))] = None
    mode: Annotated[str | None, refused(off=("standard",))] = None


class ResponseToolChoice(msgspec.Struct):
    """`{"type": "function" | "custom", "name"}`, `{"type": "local_shell" | "shell" | "apply_patch"}`, or `{"type": "allowed_tools", "mode",
    "tools"}`.
    """

    type: str
    name: str | None = None
    namespace: str | None = None
    mode: Literal["auto", "required"] | None = None
    tools: Annotated[list[AllowedTool], Meta(max_length=MAX_TOOLS)] | None = None


class ResponseRequest(SamplingFields, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /v1/responses`."""

    input: Annotated[
        str | Annotated[list[dict[str, Any]], Meta(max_length=MAX_ITEMS)] | None,
        about(
            "A text, or items: messages, calls of all kinds of tools and their outputs, references to stored items.",
            minLength=1,
            minItems=1,
        ),
    ] = None
    instructions: Annotated[str | None, about("A system message in front, for this response only.")] = None
    previous_response_id: Annotated[str | None, about("The stored response that this one continues.")] = None
    max_output_tokens: Annotated[MaxTokens | None, about("Most tokens to generate. Default: what is left of the context.")] = None
    top_logprobs: Annotated[TopLogprobs | None, about("Log-probabilities of the tokens, and of this many of the most probable ones.")] = (
        None
    )
    include: Annotated[list[Includable] | None, about("What else the reply is to hold.")] = None
    text: Annotated[TextConfig | None, about("What the output has to look like: `format`, enforced token by token.")] = None
    tools: Annotated[
        Annotated[list[dict[str, Any]], Meta(max_length=MAX_TOOLS)] | None,
        about(
            "What the model may call: types `function`, `custom`, `namespace`, `local_shell`, `shell`, `apply_patch`; and search: "
            "`web_search`, `file_search`."
        ),
    ] = None
    tool_choice: Annotated[
        str | ResponseToolChoice | None, about("`none`, `auto` (default), `required`, a function, or `allowed_tools`.", examples=["auto"])
    ] = None
    parallel_tool_calls: ParallelToolCalls = None
    truncation: Annotated[
        Literal["auto", "disabled"] | None,
        about("`auto` leaves out the oldest turns of what does not fit the context; `disabled`, the default, refuses it."),
    ] = None
    store: Annotated[bool | None, about("Keep the response, so that it can be continued. Default: true.")] = None
    metadata: Annotated[Metadata | None, about("Your own keys and values, kept with the response.")] = None
    stream: Annotated[bool | None, about("Send the reply as server-sent events while it is generated.")] = None
    stream_options: Annotated[ResponseStreamOptions | None, about("Only with `stream`.")] = None
    background: Annotated[
        bool | None,
        about("Answer at once, and run apart from the connection; retrieve the response by its id, cancel it, or stream it again."),
    ] = None
    workflow: Annotated[dict[str, Any] | None, extension("Parameters of a workflow; only for models that are workflows.")] = None
    reasoning: Annotated[ReasoningConfig | None, about("How much to think before the answer.")] = None
    thinking_budget: BudgetField = None
    thinking_token_budget: TokenBudgetField = None
    chat_template_kwargs: TemplateVariables = None

    # without effect on the reply
    service_tier: Annotated[str | None, no_effect("Priority.")] = None
    safety_identifier: Annotated[str | None, no_effect("Your name of the end user.")] = None
    prompt_cache_key: Annotated[str | None, no_effect("Prompts that begin alike share work anyway.")] = None
    client_metadata: Annotated[dict[str, Any] | None, no_effect("What Codex says of itself.")] = None
    prompt_cache_retention: Annotated[str | None, no_effect("Prompts that begin alike share work anyway.")] = None
    prompt_cache_options: Annotated[dict[str, Any] | None, no_effect("Prompts that begin alike share work anyway.")] = None
    max_tool_calls: Annotated[Annotated[int, Meta(ge=1)] | None, about("Most searches in one reply. Default: 5.")] = None

    # decoded so that they can be refused by name
    access_programs: Annotated[Any, refused()] = None
    background_options: Annotated[Any, refused()] = None
    context_management: Annotated[Any, refused()] = None
    conversation: Annotated[Any, refused()] = None
    image: Annotated[Any, refused()] = None
    moderation: Annotated[Any, refused()] = None
    prompt: Annotated[Any, refused()] = None
