"""The output of one response as it grows: from a Backend's events to items, and what each event changed, which is what streams tell.

An item is open until the next one begins; text after a call is a message of its own, and a refusal or a reasoning an item of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import msgspec

from mm_gateway.api.custom_tools import InputText
from mm_gateway.api.replies.logprobs import chat_logprobs
from mm_gateway.api.responses.call_items import Called, CallItem, CallKind, call_item
from mm_gateway.api.responses.items import Kind
from mm_gateway.api.responses.searches import search_item
from mm_gateway.core import (
    ChoiceFinished,
    FileCitation,
    FinishReason,
    GenerationEvent,
    MessageFields,
    ReasoningDelta,
    ReplyFields,
    SearchCall,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    UrlCitation,
    Usage,
)
from mm_gateway.protocol import ChatLogprob
from mm_gateway.protocol.response_searches import FileCitationAnnotation, SearchItem
from mm_gateway.protocol.responses import (
    ItemStatus,
    MessageItem,
    OutputItem,
    OutputText,
    ReasoningItem,
    ReasoningText,
    Refusal,
    UrlCitationAnnotation,
)


class Opened(msgspec.Struct, frozen=True):
    """A new item; `index` is its place in the output, `item` as it is without content, `part` the first one of it, as yet empty."""

    index: int
    item: OutputItem
    part: OutputText | Refusal | ReasoningText | None


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
    annotation: UrlCitationAnnotation | FileCitationAnnotation | Mapping[str, Any]


class PieceAdded(msgspec.Struct, frozen=True):
    """Of a call's arguments, a custom call's text, a refusal, or a reasoning."""

    index: int
    id: str
    text: str


class Closed(msgspec.Struct, frozen=True):
    """An item that is complete."""

    index: int
    item: OutputItem


class Searched(msgspec.Struct, frozen=True):
    """A search that begins."""

    index: int
    item: SearchItem


Change = Searched | Opened | TextAdded | Annotated | PieceAdded | Closed


class _Message:
    def __init__(self, index: int, id: str, start: int) -> None:
        self.index, self.id = index, id
        self.start = start  # characters of the choice's text before it
        self.status: ItemStatus = "in_progress"
        self.texts: list[str] = []
        self.logprobs: list[ChatLogprob] = []
        self.annotations: list[UrlCitationAnnotation | FileCitationAnnotation | Mapping[str, Any]] = []

    def item(self) -> MessageItem:
        return MessageItem(self.id, "assistant", [OutputText("".join(self.texts), self.annotations, self.logprobs)], self.status)


class _Refusal:
    """A message that is a refusal."""

    def __init__(self, index: int, id: str) -> None:
        self.index, self.id = index, id
        self.status: ItemStatus = "in_progress"
        self.texts: list[str] = []

    def item(self) -> MessageItem:
        return MessageItem(self.id, "assistant", [Refusal("".join(self.texts))], self.status)


class _Reasoning:
    def __init__(self, index: int, id: str, encrypt: Callable[[str], str] | None) -> None:
        self.index, self.id = index, id
        self.status: ItemStatus = "in_progress"
        self.texts: list[str] = []
        self._encrypt = encrypt
        self._encrypted: str | None = None

    def item(self) -> ReasoningItem:
        text = "".join(self.texts)
        if self._encrypted is None and self._encrypt is not None and self.status != "in_progress":
            self._encrypted = self._encrypt(text)
        return ReasoningItem(self.id, content=[ReasoningText(text)], encrypted_content=self._encrypted, status=self.status)


class _Call:
    def __init__(self, index: int, id: str, call_id: str, called: Called) -> None:
        self.index, self.id = index, id
        self.call_id, self.called = call_id, called
        self.status: ItemStatus = "in_progress"
        self.arguments: list[str] = []
        self._input = InputText()

    def add(self, arguments: str) -> str:
        """What is told of a piece at once."""
        self.arguments.append(arguments)
        match self.called.kind:
            case "function":
                return arguments
            case "custom":
                return self._input.feed(arguments)
            case _:
                return ""  # whole, once it is complete

    def rest(self) -> str:
        """What is told at the end, beyond that."""
        return self._input.end() if self.called.kind == "custom" else ""

    def item(self) -> CallItem:
        return call_item(self.called, self.id, self.call_id, "".join(self.arguments), self.status)


class _Search:
    def __init__(self, index: int, item: SearchItem) -> None:
        self.index, self._item = index, item
        self.status: ItemStatus = "in_progress"

    def take(self, item: SearchItem) -> None:
        self._item = item

    def item(self) -> SearchItem:
        return self._item


_ID_KINDS: Mapping[CallKind, Kind] = {"function": "fc", "custom": "ctc", "local_shell": "lsh", "shell": "sh", "apply_patch": "apc"}
_Entry = _Search | _Message | _Refusal | _Reasoning | _Call


class Output:
    """Items of one response.

    Args:
        new_id: makes an item's id. called: what each function is to the client, by the name that the model knows; others are functions.
        include: what else of searches is told, as the request has it.
        logprobs: whether log-probabilities are kept.
        encrypt: what a reasoning item also holds its text as, for clients that bring it back; None: only the text.
    """

    def __init__(
        self,
        new_id: Callable[[Kind], str],
        *,
        called: Mapping[str, Called],
        include: Collection[str],
        logprobs: bool,
        encrypt: Callable[[str], str] | None = None,
    ) -> None:
        self._encrypt = encrypt
        self._called = called
        self._include = include
        self._searches: dict[str, _Search] = {}
        self.reason: FinishReason = "stop"
        self.usage: Usage | None = None
        self.service_tier: str | None = None
        self._new_id = new_id
        self._keep_logprobs = logprobs
        self._items: list[_Entry] = []
        self._open: _Entry | None = None
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
            case ReasoningDelta(text=text):
                return self._think(text) if text else ()
            case ToolCallDelta():
                return self._call(event)
            case UrlCitation() | FileCitation():
                return self._cite(event)
            case SearchCall():
                return self._search(event)
            case MessageFields(fields=fields):
                return self._fields(fields)
            case ReplyFields(fields={"service_tier": str(tier)}):
                self.service_tier = tier
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
        changes.append(Opened(message.index, MessageItem(message.id, "assistant", [], "in_progress"), OutputText("")))
        return message

    def _think(self, text: str) -> Iterable[Change]:
        changes: list[Change] = []
        if not isinstance(self._open, _Reasoning):
            self._close(changes, "completed")
            thought = _Reasoning(len(self._items), self._new_id("rs"), self._encrypt)
            self._begin(thought, changes, ReasoningItem(thought.id, status="in_progress"), ReasoningText(""))
        changes.append(self._add_piece(text))
        return changes

    def _fields(self, fields: Mapping[str, Any]) -> Iterable[Change]:
        """What the Responses API has items for."""
        changes: list[Change] = []
        refusal = fields.get("refusal")
        if isinstance(refusal, str) and refusal:
            if not isinstance(self._open, _Refusal):
                self._close(changes, "completed")
                refused = _Refusal(len(self._items), self._new_id("msg"))
                self._begin(refused, changes, MessageItem(refused.id, "assistant", [], "in_progress"), Refusal(""))
            changes.append(self._add_piece(refusal))
        for annotation in fields.get("annotations") or ():
            if isinstance(self._open, _Message):
                self._open.annotations.append(annotation)
                changes.append(Annotated(self._open.index, self._open.id, len(self._open.annotations) - 1, annotation))
        return changes

    def _begin(self, entry: _Refusal | _Reasoning, changes: list[Change], item: OutputItem, part: Refusal | ReasoningText) -> None:
        self._open = entry
        self._items.append(entry)
        changes.append(Opened(entry.index, item, part))

    def _add_piece(self, text: str) -> PieceAdded:
        entry = self._open
        assert isinstance(entry, _Refusal | _Reasoning)
        entry.texts.append(text)
        return PieceAdded(entry.index, entry.id, text)

    def _call(self, event: ToolCallDelta) -> Iterable[Change]:
        changes: list[Change] = []
        if event.id is not None:
            self._unplaced = []
            self._close(changes, "completed")
            called = self._called.get(event.name or "") or Called("function", event.name or "")
            call = _Call(len(self._items), self._new_id(_ID_KINDS[called.kind]), event.id, called)
            self._open = self._calls[event.call] = call
            self._items.append(call)
            changes.append(Opened(call.index, call.item(), None))
        call = self._calls[event.call]
        if event.arguments and (piece := call.add(event.arguments)):
            changes.append(PieceAdded(call.index, call.id, piece))
        return changes

    def _search(self, event: SearchCall) -> Iterable[Change]:
        changes: list[Change] = []
        entry = self._searches.get(event.id)
        if entry is None:
            self._close(changes, "completed")
            item = search_item(self._new_id("ws" if event.kind == "web" else "fs"), event, self._include)
            entry = self._searches[event.id] = _Search(len(self._items), item)
            self._items.append(entry)
            changes.append(Searched(entry.index, item))
        if event.status != "searching":
            entry.take(search_item(entry.item().id, event, self._include))
            changes.append(Closed(entry.index, entry.item()))
        return changes

    def _cite(self, event: UrlCitation | FileCitation) -> Iterable[Change]:
        place = event.start_index if isinstance(event, UrlCitation) else event.place
        messages = [entry for entry in self._items if isinstance(entry, _Message) and entry.start <= place]
        if not messages:
            return ()
        message = messages[-1]
        if isinstance(event, FileCitation):
            annotation = FileCitationAnnotation(event.file_id, event.filename, place - message.start)
        else:
            annotation = UrlCitationAnnotation(place - message.start, event.end_index - message.start, event.title, event.url)
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
            if isinstance(self._open, _Call) and (rest := self._open.rest()):
                changes.append(PieceAdded(self._open.index, self._open.id, rest))
            self._open.status = status
            changes.append(Closed(self._open.index, self._open.item()))
            self._open = None
