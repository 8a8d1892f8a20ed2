"""The output of one response as it grows: from a Backend's events to items, and what each event changed, which is what streams tell.

A message is open until a call begins, a call until the next item begins; text after a call is a message of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from mm_gateway.api.replies.logprobs import chat_logprobs
from mm_gateway.api.responses.items import Kind
from mm_gateway.core import ChoiceFinished, FinishReason, GenerationEvent, TextDelta, TokenLogprob, ToolCallDelta, UrlCitation, Usage
from mm_gateway.protocol import ChatLogprob
from mm_gateway.protocol.responses import FunctionCallItem, ItemStatus, MessageItem, OutputItem, OutputText, UrlCitationAnnotation


class Opened(msgspec.Struct, frozen=True):
    """A new item; `index` is its place in the output, `item` as it is without content."""

    index: int
    item: OutputItem


class TextAdded(msgspec.Struct, frozen=True):
    index: int
    id: str
    text: str
    logprobs: tuple[TokenLogprob, ...]


class Annotated(msgspec.Struct, frozen=True):
    """`number` counts the annotations of the item."""

    index: int
    id: str
    number: int
    annotation: UrlCitationAnnotation


class ArgumentsAdded(msgspec.Struct, frozen=True):
    index: int
    id: str
    text: str


class Closed(msgspec.Struct, frozen=True):
    """An item that is complete."""

    index: int
    item: OutputItem


Change = Opened | TextAdded | Annotated | ArgumentsAdded | Closed


class _Message:
    def __init__(self, index: int, id: str, start: int) -> None:
        self.index, self.id = index, id
        self.start = start  # characters of the choice's text before it
        self.status: ItemStatus = "in_progress"
        self.texts: list[str] = []
        self.logprobs: list[ChatLogprob] = []
        self.annotations: list[UrlCitationAnnotation] = []

    def item(self) -> MessageItem:
        return MessageItem(self.id, "assistant", [OutputText("".join(self.texts), self.annotations, self.logprobs)], self.status)


class _Call:
    def __init__(self, index: int, id: str, call_id: str, name: str) -> None:
        self.index, self.id = index, id
        self.call_id, self.name = call_id, name
        self.status: ItemStatus = "in_progress"
        self.arguments: list[str] = []

    def item(self) -> FunctionCallItem:
        return FunctionCallItem(self.id, self.call_id, self.name, "".join(self.arguments), self.status)


class Output:
    """Items of one response.

    Args:
        new_id: makes an item's id. logprobs: whether log-probabilities are kept.
    """

    def __init__(self, new_id: Callable[[Kind], str], *, logprobs: bool) -> None:
        self.reason: FinishReason = "stop"
        self.usage: Usage | None = None
        self._new_id = new_id
        self._keep_logprobs = logprobs
        self._items: list[_Message | _Call] = []
        self._open: _Message | _Call | None = None
        self._calls: dict[int, _Call] = {}
        self._length = 0  # characters of the text so far
        # Of tokens without text as yet: part of the text that follows, or of a call, which shows none.
        self._unplaced: list[TokenLogprob] = []

    def items(self) -> list[OutputItem]:
        return [entry.item() for entry in self._items]

    def feed(self, event: GenerationEvent) -> Iterable[Change]:
        """Take an event in; what it changed."""
        match event:
            case TextDelta():
                return self._text(event)
            case ToolCallDelta():
                return self._call(event)
            case UrlCitation():
                return self._cite(event)
            case ChoiceFinished(finish_reason=reason):
                self.reason = reason
                return self._finish("incomplete" if reason in ("length", "content_filter") else "completed")
            case Usage():
                self.usage = event
            case _:
                pass
        return ()

    def _text(self, event: TextDelta) -> Iterable[Change]:
        if self._keep_logprobs:
            self._unplaced += event.logprobs
        if not event.text:
            return ()
        changes: list[Change] = []
        message = self._open
        if not isinstance(message, _Message):
            message = self._open_message(changes)
        changes.append(self._add(message, event.text))
        return changes

    def _add(self, message: _Message, text: str) -> TextAdded:
        logprobs, self._unplaced = tuple(self._unplaced), []
        message.texts.append(text)
        if logprobs:
            message.logprobs += chat_logprobs(logprobs).content or ()
        self._length += len(text)
        return TextAdded(message.index, message.id, text, logprobs)

    def _open_message(self, changes: list[Change]) -> _Message:
        self._close(changes, "completed")
        message = _Message(len(self._items), self._new_id("msg"), self._length)
        self._open = message
        self._items.append(message)
        changes.append(Opened(message.index, MessageItem(message.id, "assistant", [], "in_progress")))
        return message

    def _call(self, event: ToolCallDelta) -> Iterable[Change]:
        changes: list[Change] = []
        if event.id is not None:
            self._unplaced = []
            self._close(changes, "completed")
            call = _Call(len(self._items), self._new_id("fc"), event.id, event.name or "")
            self._open = self._calls[event.call] = call
            self._items.append(call)
            changes.append(Opened(call.index, call.item()))
        call = self._calls[event.call]
        if event.arguments:
            call.arguments.append(event.arguments)
            changes.append(ArgumentsAdded(call.index, call.id, event.arguments))
        return changes

    def _cite(self, event: UrlCitation) -> Iterable[Change]:
        messages = [entry for entry in self._items if isinstance(entry, _Message) and entry.start <= event.start_index]
        if not messages:
            return ()
        message = messages[-1]
        annotation = UrlCitationAnnotation(event.start_index - message.start, event.end_index - message.start, event.title, event.url)
        message.annotations.append(annotation)
        return (Annotated(message.index, message.id, len(message.annotations) - 1, annotation),)

    def _finish(self, status: ItemStatus) -> Iterable[Change]:
        changes: list[Change] = []
        if not self._items:
            self._open_message(changes)  # a model that says nothing says an empty text
        if isinstance(self._open, _Message) and self._unplaced:
            changes.append(self._add(self._open, ""))
        self._close(changes, status)
        return changes

    def _close(self, changes: list[Change], status: ItemStatus) -> None:
        if self._open is not None:
            self._open.status = status
            changes.append(Closed(self._open.index, self._open.item()))
            self._open = None
