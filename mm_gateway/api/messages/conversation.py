"""From the turns and blocks of `/v1/messages` to the messages that a backend is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from mm_gateway.api.chat_messages import check_tool_calls
from mm_gateway.api.messages.signature import Signer
from mm_gateway.core import Message, ToolCall
from mm_gateway.errors import InvalidRequestError, UnsupportedParameterError
from mm_gateway.protocol.decoding import convert
from mm_gateway.protocol.message_request import MessageParam
from mm_gateway.protocol.messages import GivenMedia, GivenSearchResult, GivenSource, GivenToolResult, TextBlock, ThinkingBlock, ToolUseBlock

BILLING = "x-anthropic-billing-header:"
"""What Claude Code begins a block of its system message with that is for Anthropic's accounts; it differs from request to request."""
_OF_SERVER_TOOLS = ("server_tool_use", "mcp_tool_use", "mcp_tool_result", "compaction", "fallback")
Part = Mapping[str, Any]


def read_system(system: str | Sequence[Mapping[str, Any]] | None, ignored: list[str]) -> tuple[Message, ...]:
    """The message in front; none where there is no text.

    Args:
        ignored: gets the paths of what is left out.

    Raises:
        InvalidRequestError, UnsupportedParameterError: a block is no text.
    """
    if system is None or isinstance(system, str):
        return (Message("system", system),) if system else ()
    texts: list[str] = []
    for index, block in enumerate(system):
        text = _text_of(f"system[{index}]", block)
        if text.startswith(BILLING):
            ignored.append(f"system[{index}]")
        else:
            texts.append(text)
    return (Message("system", "\n".join(texts)),) if texts else ()


def read_messages(turns: Sequence[MessageParam], ignored: list[str], signer: Signer, *, media: bool) -> tuple[Message, ...]:
    """The conversation: results of tools follow their calls, and turns of one role that follow each other are one.

    Args:
        ignored: gets the paths of what is left out. media: the model may take more than text.

    Raises:
        InvalidRequestError: a block is wrong, a call has no result, or a result no call.
        UnsupportedParameterError: a block is of a kind that is not served.
    """
    reader = _Reader(ignored, signer, media)
    for index, turn in enumerate(turns):
        reader.turn(f"messages[{index}]", turn)
    reader.check_answered()
    messages = tuple(reader.messages)
    if not messages:
        raise InvalidRequestError("messages must hold at least one message", param="messages", code="empty_array")
    check_tool_calls(sum(len(message.tool_calls) for message in messages), "messages")
    return messages


class _Reader:
    """Collects messages."""

    def __init__(self, ignored: list[str], signer: Signer, media: bool) -> None:
        self.messages: list[Message] = []
        self._ignored = ignored
        self._signer = signer
        self._media = media
        self._waiting: dict[str, str] = {}  # id of a call without a result as yet -> its path

    def turn(self, at: str, turn: MessageParam) -> None:
        content = [{"type": "text", "text": turn.content}] if isinstance(turn.content, str) else turn.content
        blocks = [(f"{at}.content[{index}]", block) for index, block in enumerate(content)]
        if turn.role != "user":
            self.check_answered()
        if turn.role == "assistant":
            self._add(self._assistant(blocks))
        elif turn.role == "system":
            self.messages.append(Message("system", "\n".join(_text_of(path, block) for path, block in blocks)))
        else:
            self._user(blocks)

    def check_answered(self) -> None:
        """Raises:
        InvalidRequestError: a call has no result in the turn after it.
        """
        if self._waiting:
            ids, at = ", ".join(self._waiting)[:200], next(iter(self._waiting.values()))
            text = f"`tool_use` ids were found without `tool_result` blocks immediately after: {ids}"
            raise InvalidRequestError(f"{text}. Each `tool_use` block must have a `tool_result` block in the next message", param=at)

    def _add(self, message: Message) -> None:
        before = self.messages[-1] if self.messages else None
        if before is None or before.role != message.role or before.tool_calls:
            self.messages.append(message)
            return
        joined = ("" if message.role == "assistant" else "\n").join(filter(None, (before.content, message.content)))
        thoughts = "\n".join(filter(None, (before.reasoning, message.reasoning))) or None
        parts = (*_parts(before), *_parts(message)) if before.parts or message.parts else ()
        self.messages[-1] = msgspec.structs.replace(before, content=joined, reasoning=thoughts, tool_calls=message.tool_calls, parts=parts)

    def _assistant(self, blocks: Sequence[tuple[str, Mapping[str, Any]]]) -> Message:
        texts: list[str] = []
        thoughts: list[str] = []
        calls: list[ToolCall] = []
        for at, block in blocks:
            kind = _kind(at, block)
            if kind == "text":
                texts.append(_text_of(at, block))
            elif kind == "tool_use":
                call = convert(dict(block), ToolUseBlock, at)
                if call.id in self._waiting:
                    raise InvalidRequestError(f"{at}.id: `tool_use` ids must be unique, got {call.id[:64]} twice", param=f"{at}.id")
                self._waiting[call.id] = at
                calls.append(ToolCall(call.id, call.name, msgspec.json.encode(call.input).decode()))
            elif kind == "thinking":
                if (thought := self._thought(at, block)) is not None:
                    thoughts.append(thought)
            elif kind == "redacted_thinking" or kind in _OF_SERVER_TOOLS or kind.endswith("_tool_result"):
                self._ignored.append(at)
            else:
                raise _unserved(kind, at, "an assistant's turn")
        return Message("assistant", "".join(texts), reasoning="\n".join(thoughts) or None, tool_calls=tuple(calls))

    def _thought(self, at: str, block: Mapping[str, Any]) -> str | None:
        """What was thought; whoever signed it, since a conversation may have begun at another server."""
        given = convert(dict(block), ThinkingBlock, at)
        thought = given.thinking or self._signer.hidden_thought(given.signature)
        if not thought:
            self._ignored.append(at)
        return thought or None

    def _user(self, blocks: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        parts: list[Part] = []
        for at, block in blocks:
            if _kind(at, block) == "tool_result":
                result = convert(dict(block), GivenToolResult, at)
                if self._waiting.pop(result.tool_use_id, None) is None:
                    raise InvalidRequestError(
                        f"unexpected `tool_use_id` found in `tool_result` blocks: {result.tool_use_id[:64]}. Each `tool_result` block must "
                        "have a corresponding `tool_use` block in the previous message",
                        param=f"{at}.tool_use_id",
                    )
                found = self._result_parts(at, result)
                text = _joined(found)
                # There is no other way to say so in a chat.
                text = f"Error: {text}" if result.is_error else text
                self.messages.append(Message("tool", text, tool_call_id=result.tool_use_id))
                parts += [part for part in found if part["type"] != "text"]  # chat has pictures in users' turns alone
            else:
                parts.append(self._part(at, block))
        self.check_answered()
        if parts:
            media = any(part["type"] != "text" for part in parts)
            self._add(Message("user", _joined(parts), parts=tuple(parts) if media else ()))

    def _result_parts(self, at: str, result: GivenToolResult) -> list[Part]:
        if result.content is None or isinstance(result.content, str):
            return [_text(result.content or "")]
        return [self._part(f"{at}.content[{index}]", block) for index, block in enumerate(result.content)]

    def _part(self, at: str, block: Mapping[str, Any]) -> Part:
        match kind := _kind(at, block):
            case "text":
                return _text(_text_of(at, block))
            case "search_result":
                found = convert(dict(block), GivenSearchResult, at)
                texts = [_text_of(f"{at}.content[{index}]", entry) for index, entry in enumerate(found.content)]
                return _text(_document("\n".join(texts), title=found.title, source=found.source))
            case "document":
                return self._read_document(at, convert(dict(block), GivenMedia, at))
            case "image" if self._media:
                return _image(f"{at}.source", convert(dict(block), GivenMedia, at).source)
            case "image":
                raise UnsupportedParameterError(
                    f"{at}: this model cannot read images, only text", param=f"{at}.type", code="unsupported_value"
                )
            case "tool_reference":
                return _text(str(block.get("tool_name", "")))
            case _:
                raise _unserved(kind, at, "a user's turn")

    def _read_document(self, at: str, given: GivenMedia) -> Part:
        source = given.source
        match source.type:
            case "text":
                text = source.data or ""
            case "content":
                content = source.content or ""
                blocks = [] if isinstance(content, str) else content
                texts = [_text_of(f"{at}.source.content[{index}]", block) for index, block in enumerate(blocks)]
                text = content if isinstance(content, str) else "\n".join(texts)
            case "base64" if self._media:
                data = f"data:{source.media_type or 'application/pdf'};base64,{source.data or ''}"
                return {"type": "file", "file": {"filename": given.title or "document.pdf", "file_data": data}}
            case "url" if self._media and source.url is not None:
                return {"type": "file", "file": {"file_url": source.url} | ({"filename": given.title} if given.title else {})}
            case kind:
                raise UnsupportedParameterError(
                    f"{at}: documents are served from sources of type 'text' and 'content', not '{kind[:50]}'",
                    param=f"{at}.source.type",
                    code="unsupported_value",
                )
        return _text(_document(text, title=given.title, context=given.context))


def _kind(at: str, block: Mapping[str, Any]) -> str:
    kind = block.get("type")
    if not isinstance(kind, str):
        raise InvalidRequestError(f"You must provide the parameter: {at}.type", param=f"{at}.type")
    return kind


def _text_of(at: str, block: Mapping[str, Any]) -> str:
    if (kind := _kind(at, block)) != "text":
        raise _unserved(kind, at, "this place")
    return convert(dict(block), TextBlock, at).text


def _unserved(kind: str, at: str, where: str) -> UnsupportedParameterError:
    return UnsupportedParameterError(
        f"{at}: blocks of type '{kind[:50]}' are not served in {where}", param=f"{at}.type", code="unsupported_value"
    )


def _text(text: str) -> Part:
    return {"type": "text", "text": text}


def _joined(parts: Sequence[Part]) -> str:
    return "\n".join(part["text"] for part in parts if part["type"] == "text")


def _parts(message: Message) -> Sequence[Part]:
    return message.parts or (_text(message.content),)


def _image(at: str, source: GivenSource) -> Part:
    if source.type == "base64" and source.data is not None:
        return {"type": "image_url", "image_url": {"url": f"data:{source.media_type or 'image/png'};base64,{source.data}"}}
    if source.type == "url" and source.url is not None:
        return {"type": "image_url", "image_url": {"url": source.url}}
    raise UnsupportedParameterError(
        f"{at}: images come as 'base64' or 'url', not as '{source.type[:50]}'", param=f"{at}.type", code="unsupported_value"
    )


def _document(text: str, **about: str | None) -> str:
    """A document as models of text read it."""
    attributes = "".join(f' {name}="{value}"' for name, value in about.items() if value)
    return f"<document{attributes}>\n{text}\n</document>"
