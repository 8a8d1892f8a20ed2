"""Items of an output while they grow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from mm_gateway.api.custom_tools import InputText
from mm_gateway.api.responses.call_items import Called, CallItem, call_item
from mm_gateway.api.responses.call_texts import Commands, Diff
from mm_gateway.api.responses.changes import Change, Opened, PieceAdded
from mm_gateway.protocol import ChatLogprob
from mm_gateway.protocol.response_calls import ApplyPatchCallItem, ShellCallItem
from mm_gateway.protocol.response_searches import FileCitationAnnotation, SearchItem
from mm_gateway.protocol.responses import (
    CompactionItem,
    ItemStatus,
    MessageItem,
    OutputText,
    ReasoningItem,
    ReasoningText,
    Refusal,
    UrlCitationAnnotation,
)


class MessageEntry:
    def __init__(self, index: int, id: str, start: int) -> None:
        self.index, self.id = index, id
        self.start = start  # characters of the choice's text before it
        self.status: ItemStatus = "in_progress"
        self.texts: list[str] = []
        self.logprobs: list[ChatLogprob] = []
        self.annotations: list[UrlCitationAnnotation | FileCitationAnnotation | Mapping[str, Any]] = []

    def item(self) -> MessageItem:
        return MessageItem(self.id, "assistant", [OutputText("".join(self.texts), self.annotations, self.logprobs)], self.status)


class RefusalEntry:
    """A message that is a refusal."""

    def __init__(self, index: int, id: str) -> None:
        self.index, self.id = index, id
        self.status: ItemStatus = "in_progress"
        self.texts: list[str] = []

    def item(self) -> MessageItem:
        return MessageItem(self.id, "assistant", [Refusal("".join(self.texts))], self.status)


class ReasoningEntry:
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


class CompactionEntry:
    """A summary, of which nobody but this installation reads more than that it is being written."""

    def __init__(self, index: int, id: str, seal: Callable[[str], str]) -> None:
        self.index, self.id = index, id
        self.status: ItemStatus = "in_progress"
        self.texts: list[str] = []
        self._seal = seal
        self._sealed = ""

    def item(self) -> CompactionItem:
        if not self._sealed and self.status != "in_progress":
            self._sealed = self._seal("".join(self.texts))
        return CompactionItem(self.id, self._sealed)


class CallEntry:
    """A call. told: it was told of; that of a patch waits until it says what is to be done with which file."""

    def __init__(self, index: int, id: str, call_id: str, called: Called) -> None:
        self.index, self.id = index, id
        self.call_id, self.called = call_id, called
        self.status: ItemStatus = "in_progress"
        self.arguments: list[str] = []
        self.told = False
        self._input = InputText()
        self._diff = Diff()
        self._commands = Commands(index)

    def open(self) -> list[Change]:
        """What is told of it when it begins."""
        return [] if self.called.kind == "apply_patch" else self._opened()

    def add(self, arguments: str) -> list[Change]:
        """What is told of a piece at once."""
        self.arguments.append(arguments)
        match self.called.kind:
            case "function":
                return self._piece(arguments)
            case "custom":
                return self._piece(self._input.feed(arguments))
            case "shell":
                return [*self._commands.feed(arguments)]
            case "apply_patch":
                text = self._diff.feed(arguments)
                return [*(self._opened() if self._diff.begun and not self.told else ()), *self._piece(text)]
            case "local_shell":
                return []  # whole, once it is complete

    def rest(self) -> list[Change]:
        """What is told at the end, beyond that."""
        match self.called.kind:
            case "custom":
                return self._piece(self._input.end())
            case "shell":
                item = self.item()
                assert isinstance(item, ShellCallItem)
                return [*self._commands.end(item.action["commands"])]
            case "apply_patch" if not self.told:
                item = self.item()
                assert isinstance(item, ApplyPatchCallItem)
                return [*self._opened(), *self._piece(item.operation.get("diff", ""))]
            case _:
                return []

    def item(self) -> CallItem:
        return call_item(self.called, self.id, self.call_id, "".join(self.arguments), self.status)

    def _opened(self) -> list[Change]:
        self.told = True
        item = self.item()
        if isinstance(item, ApplyPatchCallItem) and "diff" in item.operation:
            item = msgspec.structs.replace(item, operation={**item.operation, "diff": ""})
        return [Opened(self.index, msgspec.structs.replace(item, status="in_progress"), None)]

    def _piece(self, text: str) -> list[Change]:
        return [PieceAdded(self.index, self.id, text)] if text else []


class SearchEntry:
    def __init__(self, index: int, item: SearchItem) -> None:
        self.index, self._item = index, item
        self.status: ItemStatus = "in_progress"

    def take(self, item: SearchItem) -> None:
        self._item = item

    def item(self) -> SearchItem:
        return self._item


Entry = CompactionEntry | SearchEntry | MessageEntry | RefusalEntry | ReasoningEntry | CallEntry
