"""The output of one response as it grows: from a Backend's events to items, and what each event changed, which is what streams tell.

An item is open until the next one begins; text after a call is a message of its own, and a refusal or a reasoning an item of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from mm_gateway.api.replies.logprobs import chat_logprobs
from mm_gateway.api.responses.call_items import Called, CallKind
from mm_gateway.api.responses.changes import Annotated, Change, Closed, Opened, PieceAdded, Searched, SummingUp, TextAdded
from mm_gateway.api.responses.entries import CallEntry, CompactionEntry, Entry, MessageEntry, ReasoningEntry, RefusalEntry, SearchEntry
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
from mm_gateway.errors import EngineError, GatewayError
from mm_gateway.protocol.response_searches import FileCitationAnnotation
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

_ID_KINDS: Mapping[CallKind, Kind] = {"function": "fc", "custom": "ctc", "local_shell": "lsh", "shell": "sh", "apply_patch": "apc"}


class Output:
    """Items of one response.

    Args:
        new_id: makes an item's id. called: what each function is to the client, by the name that the model knows; others are functions.
        include: what else of searches is told, as the request has it.
        logprobs: whether log-probabilities are kept.
        encrypt: what a reasoning item also holds its text as, for clients that bring it back; None: only the text.
        summary: the reply is one, and a compaction item holds it as this makes of it; None: it is an answer.
    """

    def __init__(
        self,
        new_id: Callable[[Kind], str],
        *,
        called: Mapping[str, Called],
        include: Collection[str],
        logprobs: bool,
        encrypt: Callable[[str], str] | None = None,
        summary: Callable[[str], str] | None = None,
    ) -> None:
        self._encrypt = encrypt
        self._summary = summary
        self._called = called
        self._include = include
        self._searches: dict[str, SearchEntry] = {}
        self.reason: FinishReason = "stop"
        self.usage: Usage | None = None
        self.service_tier: str | None = None
        self._new_id = new_id
        self._keep_logprobs = logprobs
        self._items: list[Entry] = []
        self._open: Entry | None = None
        self._calls: dict[int, CallEntry] = {}
        self._length = 0  # characters of the text so far
        # Of tokens without text as yet: part of the text that follows, or of a call, which shows none.
        self._unplaced: list[TokenLogprob] = []

    @property
    def failure(self) -> GatewayError | None:
        """Why what came is no reply."""
        if self._summary is None or any(isinstance(entry, CompactionEntry) for entry in self._items):
            return None
        return EngineError("The model was asked to sum up the conversation and wrote nothing. Try again, or with another model")

    def items(self) -> list[OutputItem]:
        return [entry.item() for entry in self._items]

    def feed(self, event: GenerationEvent) -> Iterable[Change]:
        """Take an event in; what it changed."""
        match event:
            case TextDelta() if self._summary is not None:
                return self._sum_up(event.text, self._summary)
            case ReasoningDelta() | ToolCallDelta() | MessageFields() if self._summary is not None:
                return ()
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
        if not isinstance(message, MessageEntry):
            message = self._open_message(changes)
        changes.append(self._add(message, event.text))
        return changes

    def _sum_up(self, text: str, seal: Callable[[str], str]) -> Iterable[Change]:
        entry = self._open
        if isinstance(entry, CompactionEntry):
            entry.texts.append(text)
            return ()
        if not text.strip():
            return ()
        entry = self._open = CompactionEntry(len(self._items), self._new_id("cmp"), seal)
        entry.texts.append(text)
        self._items.append(entry)
        return (SummingUp(entry.index, entry.item()),)

    def _add(self, message: MessageEntry, text: str) -> TextAdded:
        logprobs, self._unplaced = tuple(self._unplaced), []
        message.texts.append(text)
        if logprobs:
            message.logprobs += chat_logprobs(logprobs).content or ()
        self._length += len(text)
        return TextAdded(message.index, message.id, text, logprobs)

    def _open_message(self, changes: list[Change]) -> MessageEntry:
        self._close(changes, "completed")
        message = MessageEntry(len(self._items), self._new_id("msg"), self._length)
        self._open = message
        self._items.append(message)
        changes.append(Opened(message.index, MessageItem(message.id, "assistant", [], "in_progress"), OutputText("")))
        return message

    def _think(self, text: str) -> Iterable[Change]:
        changes: list[Change] = []
        if not isinstance(self._open, ReasoningEntry):
            self._close(changes, "completed")
            thought = ReasoningEntry(len(self._items), self._new_id("rs"), self._encrypt)
            self._begin(thought, changes, ReasoningItem(thought.id, status="in_progress"), ReasoningText(""))
        changes.append(self._add_piece(text))
        return changes

    def _fields(self, fields: Mapping[str, Any]) -> Iterable[Change]:
        """What the Responses API has items for."""
        changes: list[Change] = []
        refusal = fields.get("refusal")
        if isinstance(refusal, str) and refusal:
            if not isinstance(self._open, RefusalEntry):
                self._close(changes, "completed")
                refused = RefusalEntry(len(self._items), self._new_id("msg"))
                self._begin(refused, changes, MessageItem(refused.id, "assistant", [], "in_progress"), Refusal(""))
            changes.append(self._add_piece(refusal))
        for annotation in fields.get("annotations") or ():
            if isinstance(self._open, MessageEntry):
                self._open.annotations.append(annotation)
                changes.append(Annotated(self._open.index, self._open.id, len(self._open.annotations) - 1, annotation))
        return changes

    def _begin(self, entry: RefusalEntry | ReasoningEntry, changes: list[Change], item: OutputItem, part: Refusal | ReasoningText) -> None:
        self._open = entry
        self._items.append(entry)
        changes.append(Opened(entry.index, item, part))

    def _add_piece(self, text: str) -> PieceAdded:
        entry = self._open
        assert isinstance(entry, RefusalEntry | ReasoningEntry)
        entry.texts.append(text)
        return PieceAdded(entry.index, entry.id, text)

    def _call(self, event: ToolCallDelta) -> Iterable[Change]:
        changes: list[Change] = []
        if event.id is not None:
            self._unplaced = []
            self._close(changes, "completed")
            called = self._called.get(event.name or "") or Called("function", event.name or "")
            call = CallEntry(len(self._items), self._new_id(_ID_KINDS[called.kind]), event.id, called)
            self._open = self._calls[event.call] = call
            self._items.append(call)
            changes += call.open()
        call = self._calls[event.call]
        return [*changes, *call.add(event.arguments)] if event.arguments else changes

    def _search(self, event: SearchCall) -> Iterable[Change]:
        changes: list[Change] = []
        entry = self._searches.get(event.id)
        if entry is None:
            self._close(changes, "completed")
            item = search_item(self._new_id("ws" if event.kind == "web" else "fs"), event, self._include)
            entry = self._searches[event.id] = SearchEntry(len(self._items), item)
            self._items.append(entry)
            changes.append(Searched(entry.index, item))
        if event.status != "searching":
            entry.take(search_item(entry.item().id, event, self._include))
            changes.append(Closed(entry.index, entry.item()))
        return changes

    def _cite(self, event: UrlCitation | FileCitation) -> Iterable[Change]:
        place = event.start_index if isinstance(event, UrlCitation) else event.place
        messages = [entry for entry in self._items if isinstance(entry, MessageEntry) and entry.start <= place]
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
        if not self._items and self._summary is None:
            self._open_message(changes)  # a model that says nothing says an empty text
        if isinstance(self._open, MessageEntry) and self._unplaced:
            changes.append(self._add(self._open, ""))
        self._close(changes, status)
        return changes

    def _close(self, changes: list[Change], status: ItemStatus) -> None:
        if self._open is not None:
            self._open.status = status
            if isinstance(self._open, CallEntry):
                changes += self._open.rest()
            changes.append(Closed(self._open.index, self._open.item()))
            self._open = None
