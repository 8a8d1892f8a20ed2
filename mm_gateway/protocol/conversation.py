"""Messages, and the tools that a model may call, as chat and /tokenize take them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from mm_gateway.core.limits import MAX_CONTENT_PARTS, MAX_DOCUMENTS, MAX_MESSAGES, MAX_TOOL_CALLS, MAX_TOOLS
from mm_gateway.protocol.fields import about, extension, no_effect, refused


class ContentPart(msgspec.Struct):
    """One part of a message's content."""

    type: Annotated[str, about("Only `text` is served, and of remote models `image_url`, `input_audio` and `file`.", examples=["text"])]
    text: str | None = None
    image_url: Annotated[dict[str, Any] | None, about("`url`, an address or a data URL, and `detail`. Only for remote models.")] = None
    input_audio: Annotated[dict[str, Any] | None, about("`data` and `format`. Only for remote models.")] = None
    file: Annotated[dict[str, Any] | None, about("`file_data`, a data URL, and `filename`; or `file_id`. Only for remote models.")] = None


class Prediction(msgspec.Struct, forbid_unknown_fields=True):
    """What most of the reply is known to be beforehand, as OpenAI's predicted outputs:
    https://platform.openai.com/docs/guides/predicted-outputs."""

    type: Literal["content"]
    content: str | Annotated[list[ContentPart], Meta(max_length=MAX_CONTENT_PARTS)]


class FunctionCall(msgspec.Struct, forbid_unknown_fields=True):
    """A function's name and its arguments, which are JSON as text."""

    name: str
    arguments: str


class CustomCall(msgspec.Struct, forbid_unknown_fields=True):
    """A custom tool's name and the text that it gets."""

    name: str
    input: str


class ToolCallEntry(msgspec.Struct, forbid_unknown_fields=True):
    """`function` or `custom`, as `type` says."""

    id: str
    function: FunctionCall | msgspec.UnsetType = msgspec.UNSET
    custom: CustomCall | msgspec.UnsetType = msgspec.UNSET
    type: Literal["function", "custom"] = "function"
    index: Annotated[int | msgspec.UnsetType | None, no_effect("Some clients send back what they put together from a stream.")] = (
        msgspec.UNSET
    )


class FunctionDefinition(msgspec.Struct, forbid_unknown_fields=True):
    name: Annotated[str, about("1 to 64 letters, digits, underscores or dashes.", examples=["get_time"])]
    description: str | None = None
    parameters: Annotated[dict[str, Any] | None, about("JSON schema of an object.")] = None
    strict: Annotated[
        bool | None,
        about(
            "Refuse a schema that arguments cannot be held to whole; otherwise parts of it are left out, named in `x-mm-gateway-ignored`."
        ),
    ] = None


class GrammarText(msgspec.Struct, forbid_unknown_fields=True):
    """syntax: `lark` in llguidance's dialect, or `regex`."""

    definition: str
    syntax: Literal["lark", "regex"]


class CustomDefinition(msgspec.Struct, forbid_unknown_fields=True):
    name: Annotated[str, about("1 to 64 letters, digits, underscores or dashes.", examples=["run_sql"])]
    description: str | None = None
    format: Annotated[
        dict[str, Any] | None,
        about('`{"type": "text"}`, the default, or `{"type": "grammar", "grammar": {"syntax", "definition"}}`, enforced token by token.'),
    ] = None


class ToolEntry(msgspec.Struct):
    type: Annotated[str, about("`function` and `custom` are served.", examples=["function"])]
    function: FunctionDefinition | None = None
    custom: Annotated[CustomDefinition | None, about("A tool whose call is a text.")] = None


class FunctionName(msgspec.Struct, forbid_unknown_fields=True):
    name: str


class AllowedTool(msgspec.Struct):
    type: str
    function: FunctionName | None = None
    custom: FunctionName | None = None
    name: str | None = None


class AllowedTools(msgspec.Struct, forbid_unknown_fields=True):
    mode: Literal["auto", "required"]
    tools: Annotated[list[AllowedTool], Meta(max_length=MAX_TOOLS)]


class ToolChoice(msgspec.Struct):
    """`{"type": "function", "function": {"name"}}`, the same of `custom`, or `allowed_tools`."""

    type: str
    function: FunctionName | None = None
    custom: FunctionName | None = None
    allowed_tools: AllowedTools | None = None


class ChatMessage(msgspec.Struct, forbid_unknown_fields=True):
    """One message of a conversation."""

    role: Annotated[
        Literal["system", "developer", "user", "assistant", "tool", "function"],
        about("`developer` is read as `system` where the model's template knows none; `function` is refused."),
    ]
    content: Annotated[
        str | Annotated[list[ContentPart], Meta(max_length=MAX_CONTENT_PARTS)] | None,
        about("A text, or text parts. Null only beside `tool_calls`."),
    ] = None
    name: Annotated[str | None, about("Of the author, where the model's template writes it.")] = None
    tool_calls: Annotated[
        Annotated[list[ToolCallEntry], Meta(max_length=MAX_TOOL_CALLS)] | None, about("Of an assistant: what it called.")
    ] = None
    tool_call_id: Annotated[str | None, about("Of a tool: the call that this is the result of.")] = None
    function_call: Annotated[Any, refused("Use `tool_calls`.")] = None
    refusal: str | None = None
    audio: Annotated[Any, refused()] = None
    annotations: list[Any] | None = None
    reasoning_content: Annotated[
        str | None, extension("Of an assistant: what it thought. The model's template decides which thoughts are read again.")
    ] = None
    reasoning: Annotated[str | None, extension("vLLM's name of `reasoning_content`.")] = None


Messages = Annotated[list[ChatMessage], Meta(max_length=MAX_MESSAGES)]


Tools = Annotated[Annotated[list[ToolEntry], Meta(max_length=MAX_TOOLS)] | None, about("What the model may call.")]
ToolChoiceField = Annotated[
    str | ToolChoice | None, about("`none`, `auto` (default), `required`, a function, or `allowed_tools`.", examples=["auto"])
]
ParallelToolCalls = Annotated[bool | None, about("Allow several calls in one reply. Default: true.")]

TemplateVariables = Annotated[
    dict[str, Any] | None,
    extension(
        "Further variables of the model's chat template, as `enable_thinking`. Those that it has no use for are named in "
        "`x-mm-gateway-ignored`.",
        examples=[{"enable_thinking": False}],
    ),
]
Documents = Annotated[
    Annotated[list[dict[str, str]], Meta(max_length=MAX_DOCUMENTS)] | None,
    extension("For models whose chat template knows documents; `title` and `text` of each, as a rule."),
]
AddGenerationPrompt = Annotated[bool | None, extension("Begin the assistant's turn. Default: true, with `continue_final_message` false.")]
ContinueFinalMessage = Annotated[bool | None, extension("Leave the last message open: the reply goes on with it.")]
ChatTemplateField = Annotated[str | None, refused("The model's own is used: set `chat_template` in its configuration.")]
