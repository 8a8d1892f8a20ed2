"""The blocks of one reply as they grow: from a Backend's events to blocks, and what each event changed, which is what streams tell.

A block is open until the next one begins; text after a call, and a thought after a text, are blocks of their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jiter
import msgspec

from mm_gateway.api.messages.signature import Signer
from mm_gateway.backends.searching import FUNCTIONS
from mm_gateway.core import (
    ChoiceFinished,
    FinishReason,
    GenerationEvent,
    MessageFields,
    ReasoningDelta,
    SearchCall,
    TextDelta,
    ToolCallDelta,
    UrlCitation,
    Usage,
)
from mm_gateway.errors import UpstreamError
from mm_gateway.protocol.messages import (
    ReplyBlock,
    ServerToolUseBlock,
    TextBlock,
    ThinkingBlock,
    ToolUseBlock,
    WebSearchCitation,
    WebSearchError,
    WebSearchResult,
    WebSearchResultBlock,
)


class Opened(msgspec.Struct, frozen=True):
    """A new block, as yet empty; `index` is its place in the reply."""

    index: int
    block: ReplyBlock


class TextAdded(msgspec.Struct, frozen=True):
    index: int
    text: str


class ThoughtAdded(msgspec.Struct, frozen=True):
    index: int
    text: str


class InputAdded(msgspec.Struct, frozen=True):
    """A piece of the JSON of a tool's input."""

    index: int
    json: str


class Cited(msgspec.Struct, frozen=True):
    index: int
    citation: WebSearchCitation


class Closed(msgspec.Struct, frozen=True):
    """A block that is complete. signature: of a thought."""

    index: int
    signature: str | None = None


_CITED_CHARACTERS = 150
"""Of a source, that a citation shows at most."""
Change = Opened | TextAdded | ThoughtAdded | InputAdded | Cited | Closed


class _Text:
    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.citations: list[WebSearchCitation] = []

    def block(self) -> TextBlock:
        return TextBlock("".join(self.pieces), self.citations or None)


class _Thought:
    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.signature = ""
        self.shown = True

    def block(self) -> ThinkingBlock:
        return ThinkingBlock("".join(self.pieces) if self.shown else "", self.signature)


class _Call:
    def __init__(self, index: int, id: str, name: str) -> None:
        self.index, self.id, self.name = index, id, name
        self.pieces: list[str] = []

    def block(self, *, cut: bool) -> ToolUseBlock:
        """cut: the reply ended before the input did; what there is of it is what clients make of the stream, too.

        Raises:
            UpstreamError: the input is no JSON object, which only another server's can be.
        """
        text = "".join(self.pieces)
        try:
            found: Any = jiter.from_json(text.encode() or b"{}", partial_mode="on" if cut else False)
        except ValueError as error:
            raise UpstreamError(f"The model called {self.name} with an input that is no JSON: {error}") from error
        if not isinstance(found, dict):
            raise UpstreamError(f"The model called {self.name} with an input that is no JSON object")
        return ToolUseBlock(self.id, self.name, found)  # pyright: ignore[reportUnknownArgumentType]


class _Search:
    """A search that the gateway runs, and what it found; each is whole at once."""

    def __init__(self, block: ServerToolUseBlock | WebSearchResultBlock) -> None:
        self._block = block

    def block(self) -> ServerToolUseBlock | WebSearchResultBlock:
        return self._block


_Entry = _Text | _Thought | _Call | _Search


class Blocks:
    """Blocks of one reply.

    Args:
        signer: of thoughts. shows_thoughts: False: thinking blocks are without their text.
    """

    def __init__(self, signer: Signer, *, shows_thoughts: bool = True) -> None:
        self.reason: FinishReason = "stop"
        self.stop: str | None = None
        self.usage = Usage(0, 0)
        self.refused = False
        self._signer = signer
        self._shows_thoughts = shows_thoughts
        self._blocks: list[_Entry] = []
        self._open: _Entry | None = None
        self._calls: dict[int, _Call] = {}
        self.searches = 0
        self._sources: dict[str, str] = {}  # texts by address

    @property
    def called(self) -> bool:
        return bool(self._calls)

    def blocks(self) -> list[ReplyBlock]:
        cut = self.reason != "stop" and self.reason != "tool_calls"
        last = self._blocks[-1] if self._blocks else None
        return [block.block(cut=cut and block is last) if isinstance(block, _Call) else block.block() for block in self._blocks]

    def feed(self, event: GenerationEvent) -> Iterable[Change]:
        """Take an event in; what it changed."""
        changes: list[Change] = []
        match event:
            case TextDelta(text=text) if text:
                self._add_text(text, changes)
            case ReasoningDelta(text=text) if text:
                self._add_thought(text, changes)
            case ToolCallDelta():
                self._add_call(event, changes)
            case UrlCitation() if isinstance(self._open, _Text):
                citation = WebSearchCitation(event.url, event.title, self._sources.get(event.url, "")[:_CITED_CHARACTERS])
                self._open.citations.append(citation)
                changes.append(Cited(len(self._blocks) - 1, citation))
            case SearchCall():
                self._search(event, changes)
            case MessageFields(fields={"refusal": str(refusal)}) if refusal:
                self.refused = True
                self._add_text(refusal, changes)
            case ChoiceFinished(finish_reason=reason, stop=stop):
                self.reason, self.stop = reason, stop
                self._close(changes)
            case Usage():
                self.usage = event
            case _:
                pass
        return changes

    def _add_text(self, text: str, changes: list[Change]) -> None:
        if not isinstance(self._open, _Text):
            self._begin(_Text(), TextBlock(""), changes)
        assert isinstance(self._open, _Text)
        self._open.pieces.append(text)
        changes.append(TextAdded(len(self._blocks) - 1, text))

    def _add_thought(self, text: str, changes: list[Change]) -> None:
        if not isinstance(self._open, _Thought):
            self._begin(_Thought(), ThinkingBlock(""), changes)
        assert isinstance(self._open, _Thought)
        self._open.shown = self._shows_thoughts
        self._open.pieces.append(text)
        if self._shows_thoughts:
            changes.append(ThoughtAdded(len(self._blocks) - 1, text))

    def _add_call(self, event: ToolCallDelta, changes: list[Change]) -> None:
        if event.id is not None:
            call = self._calls[event.call] = _Call(len(self._blocks), event.id, event.name or "")
            self._begin(call, ToolUseBlock(call.id, call.name, {}), changes)
        call = self._calls[event.call]
        if event.arguments:
            call.pieces.append(event.arguments)
            changes.append(InputAdded(call.index, event.arguments))

    def _search(self, event: SearchCall, changes: list[Change]) -> None:
        id = f"srvtoolu_{event.id.removeprefix('call_')}"
        if event.status == "searching":
            self.searches += 1
            use = ServerToolUseBlock(id, FUNCTIONS[event.kind].name, {"query": event.query})
            self._begin(_Search(use), ServerToolUseBlock(id, use.name, {}), changes)
            changes.append(InputAdded(len(self._blocks) - 1, msgspec.json.encode(use.input).decode()))
        else:
            self._sources |= {source.url: source.text for source in event.sources}
            found = [WebSearchResult(source.url, source.title) for source in event.sources]
            result = WebSearchResultBlock(id, found if event.status == "completed" else WebSearchError())
            self._begin(_Search(result), result, changes)
        self._close(changes)

    def _begin(self, block: _Entry, shown: ReplyBlock, changes: list[Change]) -> None:
        self._close(changes)
        self._open = block
        self._blocks.append(block)
        changes.append(Opened(len(self._blocks) - 1, shown))

    def _close(self, changes: list[Change]) -> None:
        block, self._open = self._open, None
        if block is None:
            return
        signature = None
        if isinstance(block, _Thought):
            signature = block.signature = self._signer.sign("".join(block.pieces), hidden=not self._shows_thoughts)
        changes.append(Closed(len(self._blocks) - 1, signature))
