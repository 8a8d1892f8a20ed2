"""From the items of `/v1/responses` to the messages that a backend is given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from mm_gateway.api.chat_messages import check_tool_calls
from mm_gateway.api.responses.call_items import CALL_ITEMS, CallItem, OutputOfCall, as_function, as_text
from mm_gateway.api.responses.sealed_texts import Unseal
from mm_gateway.core import Message, ToolCall
from mm_gateway.core.limits import MAX_ITEMS
from mm_gateway.errors import InvalidRequestError
from mm_gateway.protocol.response_calls import ApplyPatchCallItem, CustomCallItem, CustomCallOutputItem, LocalShellCallItem, ShellCallItem
from mm_gateway.protocol.response_searches import FileSearchCallItem, SearchItem, WebSearchCallItem
from mm_gateway.protocol.responses import (
    CompactionItem,
    FunctionCallItem,
    FunctionCallOutputItem,
    InputAudio,
    InputFile,
    InputImage,
    InputText,
    Item,
    Media,
    MessageItem,
    OutputText,
    Part,
    ReasoningItem,
    Refusal,
)

_MAX_SHOWN = 64
_ReadItem = MessageItem | CallItem | OutputOfCall | SearchItem | ReasoningItem
SUMMED_UP = "The conversation up to here was summed up. What it has come to:\n\n"
"""Before a summary, as the model reads it."""


class _Turn:
    """A message, the functions that it calls, and their results in the order in which they were given."""

    def __init__(self, message: Message) -> None:
        self.message = message
        self.calls: list[ToolCall] = []
        self.results: list[Message] = []

    def messages(self) -> Iterator[Message]:
        yield msgspec.structs.replace(self.message, tool_calls=tuple(self.calls)) if self.calls else self.message
        yield from self.results


def conversation(items: Sequence[Item], instructions: str | None, unseal: Unseal) -> tuple[Message, ...]:
    """The messages of all items: an assistant's text and the calls after it are one message, results follow their calls.

    Args:
        unseal: reads summaries.

    Raises:
        InvalidRequestError: a call without a result, a result without a call, an item twice, or too many of them.
    """
    if len(items) > MAX_ITEMS:
        raise InvalidRequestError(f"A conversation takes up to {MAX_ITEMS} items, got {len(items)} with its earlier turns", param="input")
    check_tool_calls(sum(isinstance(item, CALL_ITEMS) for item in items), "input")
    turns: list[_Turn] = [_Turn(Message("system", instructions))] if instructions else []
    waiting: dict[str, _Turn] = {}
    by_item: dict[str, str] = {}  # a result of local_shell names its call by either id
    seen: set[str] = set()
    before: Item | None = None
    thought: str | None = None
    for item in (_read_out(item, unseal) for item in items):
        if item.id in seen:
            raise InvalidRequestError(
                f"Duplicate item found with id {item.id}. Remove duplicate items from your input and try again.", param="input"
            )
        seen.add(item.id)
        match item:
            case MessageItem():
                used = thought if item.role == "assistant" else None
                turns.append(_Turn(Message(item.role, _texts(item.content), reasoning=used, parts=_media(item.content))))
                thought = None
            case ReasoningItem():
                text = "".join(part.text for part in item.content or ())
                thought = f"{thought}\n{text}" if thought and text else text or thought
                continue  # the calls after one without a text still belong to the message before it
            case (
                FunctionCallItem(call_id=call_id)
                | CustomCallItem(call_id=call_id)
                | LocalShellCallItem(call_id=call_id)
                | ShellCallItem(call_id=call_id)
                | ApplyPatchCallItem(call_id=call_id)
            ):
                if call_id in waiting:
                    raise InvalidRequestError(f"Duplicate function call with call_id {call_id[:_MAX_SHOWN]}.", param="input")
                calls = isinstance(before, CALL_ITEMS) or (isinstance(before, MessageItem) and before.role == "assistant")
                if not calls or thought:
                    turns.append(_Turn(Message("assistant", "", reasoning=thought)))
                    thought = None
                turns[-1].calls.append(ToolCall(call_id, *as_function(item)))
                waiting[call_id] = turns[-1]
                by_item[item.id] = call_id
            case WebSearchCallItem() | FileSearchCallItem():
                continue  # what was found is in the text after it
            case _:
                call_id = item.call_id if item.call_id in waiting else by_item.get(item.call_id, item.call_id)
                turn = waiting.pop(call_id, None)
                if turn is None:
                    raise InvalidRequestError(
                        f"No tool call found for function call output with call_id {call_id[:_MAX_SHOWN]}.", param="input"
                    )
                turn.results.append(_result(call_id, item))
        before = item
    if waiting:
        raise InvalidRequestError(f"No tool output found for function call {next(iter(waiting))[:_MAX_SHOWN]}.", param="input")
    return tuple(message for turn in turns for message in turn.messages())


def _read_out(item: Item, unseal: Unseal) -> _ReadItem:
    """A summary as the message that it is to the model."""
    if not isinstance(item, CompactionItem):
        return item
    return MessageItem(item.id, "user", [InputText(SUMMED_UP + unseal(item.encrypted_content, param="input", of="compaction"))])


def _result(call_id: str, item: OutputOfCall) -> Message:
    if not isinstance(item, FunctionCallOutputItem | CustomCallOutputItem):
        return Message("tool", as_text(item), tool_call_id=call_id)
    output: str | Sequence[InputText | Media] = item.output
    if isinstance(output, str):
        return Message("tool", output, tool_call_id=call_id)
    return Message("tool", _texts(output), tool_call_id=call_id, parts=_media(output))


def _texts(parts: Sequence[Part]) -> str:
    return "\n".join(_text(part) for part in parts if not isinstance(part, Media))


def _text(part: InputText | OutputText | Refusal) -> str:
    return part.refusal if isinstance(part, Refusal) else part.text


def _media(parts: Sequence[Part]) -> tuple[Mapping[str, Any], ...]:
    """The parts as chat has them, where they are not text alone."""
    return tuple(map(_chat_part, parts)) if any(isinstance(part, Media) for part in parts) else ()


def _chat_part(part: Part) -> Mapping[str, Any]:
    match part:
        case InputImage(image_url, detail):
            return {"type": "image_url", "image_url": {"url": image_url} | ({} if detail is None else {"detail": detail})}
        case InputFile():
            return {"type": "file", "file": {name: value for name, value in msgspec.structs.asdict(part).items() if value is not None}}
        case InputAudio(input_audio):
            return {"type": "input_audio", "input_audio": input_audio}
        case _:
            return {"type": "text", "text": _text(part)}


def carried(output: Sequence[Item]) -> list[Item]:
    """A response's output as the input of the next: without log-probabilities, which no model reads."""
    return [
        msgspec.structs.replace(
            item, content=[msgspec.structs.replace(part, logprobs=[]) if isinstance(part, OutputText) else part for part in item.content]
        )
        if isinstance(item, MessageItem)
        else item
        for item in output
    ]
