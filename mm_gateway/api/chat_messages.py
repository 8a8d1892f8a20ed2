"""From the messages of a chat body to a conversation: what is in them, and whether calls and their results fit each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mm_gateway.api.custom_tools import arguments_of
from mm_gateway.core import Message, Rendering, ToolCall
from mm_gateway.core.limits import MAX_CONVERSATION_TOOL_CALLS
from mm_gateway.errors import InvalidRequestError, UnsupportedParameterError
from mm_gateway.protocol import ChatCompletionRequest, ChatMessage, ContentPart, CustomCall, FunctionCall, TokenizeRequest, ToolCallEntry
from mm_gateway.protocol.decoding import check_depth

MEDIA = ("image_url", "input_audio", "file")
"""Types of parts that are no text, with what they hold under the same name."""


def read_messages(messages: Sequence[ChatMessage], *, media: bool = False) -> tuple[Message, ...]:
    """The conversation. media: messages may have parts that are no text.

    Raises:
        InvalidRequestError: content is missing, a result has no call before it, a call has no result after it.
        UnsupportedParameterError: something that is not served.
    """
    check_tool_calls(sum(len(message.tool_calls or ()) for message in messages), "messages")
    conversation = tuple(_message(f"messages[{index}]", message, media) for index, message in enumerate(messages))
    _check_results(conversation)
    return conversation


def read_rendering(body: ChatCompletionRequest | TokenizeRequest, conversation: Sequence[Message]) -> Rendering:
    """How the conversation is to become a prompt.

    Raises:
        InvalidRequestError: the last message is to be continued, and cannot be.
    """
    if body.continue_final_message:
        if body.add_generation_prompt:
            raise _not_continued("continue_final_message and add_generation_prompt exclude each other")
        if conversation[-1].tool_calls or conversation[-1].role == "tool":
            raise _not_continued("continue_final_message: the last message must be a text, not a call or its result")
    return Rendering(
        add_generation_prompt=body.add_generation_prompt is not False and not body.continue_final_message,
        continue_final_message=bool(body.continue_final_message),
        add_special_tokens=bool(body.add_special_tokens),
        documents=tuple(body.documents or ()),
        variables=body.chat_template_kwargs or {},
    )


def _not_continued(message: str) -> InvalidRequestError:
    return InvalidRequestError(message, param="continue_final_message")


def check_tool_calls(count: int, param: str) -> None:
    """Raises:
    InvalidRequestError: the messages of a conversation call more functions than one request may bring.
    """
    if count > MAX_CONVERSATION_TOOL_CALLS:
        raise InvalidRequestError(f"{param} must have at most {MAX_CONVERSATION_TOOL_CALLS} tool calls, got {count}", param=param)


def _message(at: str, message: ChatMessage, media: bool) -> Message:
    if message.role == "function":
        raise UnsupportedParameterError("Messages of role function are not supported by this server, use role tool", param=f"{at}.role")
    for name in ("function_call", "audio"):
        if getattr(message, name) is not None:
            raise UnsupportedParameterError(f"{name} is not supported by this server", param=f"{at}.{name}")
    if message.tool_calls and message.role != "assistant":
        raise InvalidRequestError("Only messages of role assistant can have tool_calls", param=f"{at}.tool_calls")
    if message.role == "tool" and message.tool_call_id is None:
        raise InvalidRequestError(f"You must provide the parameter: {at}.tool_call_id", param=f"{at}.tool_call_id")
    if message.tool_call_id is not None and message.role != "tool":
        raise InvalidRequestError("Only messages of role tool can have a tool_call_id", param=f"{at}.tool_call_id")
    reasoning = message.reasoning_content or message.reasoning
    if reasoning and message.role != "assistant":
        name = "reasoning_content" if message.reasoning_content else "reasoning"
        raise InvalidRequestError(f"Only messages of role assistant can have {name}", param=f"{at}.{name}")
    if message.content is None and not message.tool_calls and not reasoning:
        raise InvalidRequestError(f"{at}.content must be a string or a list of text parts", param=f"{at}.content")
    for position, call in enumerate(message.tool_calls or ()):
        check_depth(f"{at}.tool_calls[{position}].function.arguments", _call(f"{at}.tool_calls[{position}]", call).arguments)
    return Message(
        role=message.role,
        content=text_of(f"{at}.content", message.content, media),
        name=message.name,
        tool_calls=tuple(_call(at, call) for call in message.tool_calls or ()),
        tool_call_id=message.tool_call_id,
        reasoning=reasoning or None,
        parts=_parts(message.content),
    )


def _call(at: str, call: ToolCallEntry) -> ToolCall:
    if call.type == "custom" and isinstance(call.custom, CustomCall):
        return ToolCall(call.id, call.custom.name, arguments_of(call.custom.input))
    if call.type == "custom" or not isinstance(call.function, FunctionCall):
        raise InvalidRequestError(f"You must provide the parameter: {at}.{call.type}", param=f"{at}.{call.type}")
    return ToolCall(call.id, call.function.name, call.function.arguments)


def text_of(at: str, content: str | list[ContentPart] | None, media: bool) -> str:
    """Of a content. at: its path. media: it may have parts that are no text."""
    if content is None or isinstance(content, str):
        return content or ""
    texts: list[str] = []
    for position, part in enumerate(content):
        if media and part.type in MEDIA:
            if getattr(part, part.type) is None:
                raise InvalidRequestError(f"{at}[{position}].{part.type} is missing", param=f"{at}[{position}].{part.type}")
            continue
        if part.type != "text":
            raise UnsupportedParameterError(
                f"Content parts of type '{part.type[:50]}' are not supported by this server, only 'text'",
                param=f"{at}[{position}]",
                code="unsupported_value",
            )
        if part.text is None:
            raise InvalidRequestError(f"{at}[{position}].text is missing", param=f"{at}[{position}].text")
        texts.append(part.text)
    return "\n".join(texts)  # as vLLM and llama.cpp do: parts are paragraphs, not pieces of a word


def _parts(content: str | list[ContentPart] | None) -> tuple[Mapping[str, Any], ...]:
    """All parts, where they are not text alone."""
    if content is None or isinstance(content, str) or not any(part.type in MEDIA for part in content):
        return ()
    return tuple({"type": part.type, part.type: getattr(part, part.type)} for part in content)


def _check_results(conversation: Sequence[Message]) -> None:
    """OpenAI's rule: after calls come their results, each once, before anything else."""
    waiting: Counter[str] = Counter()  # in the order of the calls
    caller = 0
    for index, message in enumerate(conversation):
        if message.role == "tool":
            id = message.tool_call_id or ""
            if not waiting[id]:
                raise InvalidRequestError(
                    "Invalid parameter: messages with role 'tool' must be a response to a preceding message with 'tool_calls'.",
                    param=f"messages[{index}].tool_call_id",
                )
            waiting[id] -= 1
            if not waiting[id]:
                del waiting[id]
            continue
        if waiting:
            break
        waiting = Counter(call.id for call in message.tool_calls)
        caller = index
    if waiting:
        raise InvalidRequestError(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. "
            f"No response for: {', '.join(waiting)[:200]}",
            param=f"messages[{caller}].tool_calls",
        )
