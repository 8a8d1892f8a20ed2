"""Searches that a model asks for within a reply: run here, told as events, read by the model, which then goes on.

The model knows them as functions. What is found is numbered, and the numbers that it writes become citations.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Any
from urllib.parse import urlsplit

import msgspec

from mm_gateway.backends.tool_calls import new_call_id
from mm_gateway.configuration.search_settings import SearchSettings
from mm_gateway.configuration.settings import StorageSettings
from mm_gateway.core import (
    ChatInput,
    ChoiceFinished,
    FileCitation,
    GenerationEvent,
    GenerationRequest,
    Message,
    SearchCall,
    SearchKind,
    SearchSource,
    TextDelta,
    Tool,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from mm_gateway.errors import PageError, SearchError
from mm_gateway.search.citations import CitationReader
from mm_gateway.search.fetching import FetchSession, PageFetcher
from mm_gateway.search.fitting import Source, fit
from mm_gateway.search.local import LocalProvider
from mm_gateway.search.providers import INDEX_FILE, build_provider
from mm_gateway.search.results import SearchProvider, SearchResult, search_with_retries
from mm_gateway.text import estimate_tokens, language_of

MAX_SEARCHES = 5
"""In one reply, where the request does not say."""
_QUERY = {
    "type": "object",
    "properties": {"query": {"type": "string", "description": "What to look for."}},
    "required": ["query"],
    "additionalProperties": False,
}
_CITE = "The results are numbered: after each fact from them write its number in brackets, like [1]."
FUNCTIONS: dict[SearchKind, Tool] = {
    "web": Tool("web_search", f"Search the web. {_CITE}", _QUERY),
    "file": Tool("file_search", f"Search the user's files. {_CITE}", _QUERY),
}
_KINDS: dict[str, SearchKind] = {tool.name: kind for kind, tool in FUNCTIONS.items()}
Generate = Callable[[GenerationRequest], AsyncIterator[GenerationEvent]]


class SearchPlan(msgspec.Struct, frozen=True):
    """What of searches a request may have.

    Attributes:
        results: of each kind that it may have, how many sources at most; None: as is configured. domains: of the web, where others are
            left out, with those below them; empty: all. blocked: of the web, which are left out, likewise. most: searches in one reply.
    """

    results: dict[SearchKind, int | None]
    domains: tuple[str, ...] = ()
    most: int = MAX_SEARCHES
    blocked: tuple[str, ...] = ()


class Searcher:
    """What can be searched, as the settings say. Nothing is opened before the first search."""

    def __init__(self, settings: SearchSettings, storage: StorageSettings) -> None:
        self._settings = settings
        self._index = storage.path(INDEX_FILE)
        self._providers: dict[SearchKind, SearchProvider] = {"file": LocalProvider(self._index, settings.index_url)}
        if settings.provider != "local":
            self._providers["web"] = build_provider(settings, storage)
        self._fetcher = PageFetcher(settings)

    def has(self, kind: SearchKind) -> bool:
        """The web, where a provider of it is configured; files, where some are indexed."""
        return kind in self._providers and (kind == "web" or self._index.is_file())

    async def search(self, kind: SearchKind, query: str, plan: SearchPlan) -> list[SearchResult]:
        """With their texts, cut to what matters.

        Raises:
            SearchError: nobody can be asked.
        """
        settings = self._settings
        most = plan.results.get(kind) or settings.max_results
        found = await search_with_retries(self._providers[kind], query, most, language_of(query))
        if kind == "web" and plan.domains:
            found = [result for result in found if _within(result.url, plan.domains)]
        if kind == "web" and plan.blocked:
            found = [result for result in found if not _within(result.url, plan.blocked)]
        if any(result.text is None for result in found):
            async with self._fetcher.session() as session:
                found = list(await asyncio.gather(*(_with_text(session, result) for result in found)))
        sources = [Source(result.title, result.text or result.snippet) for result in found]
        room = most * settings.max_source_tokens
        texts = await fit(query, sources, _count, room_tokens=room, max_source_tokens=settings.max_source_tokens)
        return [msgspec.structs.replace(result, text=text) for result, text in zip(found, texts, strict=False)]

    async def close(self) -> None:
        for provider in self._providers.values():
            await provider.close()


async def with_searches(
    generate: Generate, request: GenerationRequest, searcher: Searcher, plan: SearchPlan
) -> AsyncGenerator[GenerationEvent]:
    """A reply of one choice, for which the model may search. Calls of other functions end it, as they do without searches."""
    reply = _Reply(generate, request, searcher, plan)
    while not reply.ended:
        async with aclosing(reply.turn()) as events:
            async for event in events:
                yield event


class _Turn:
    """What a turn has said so far.

    Attributes:
        asked: searches, with their calls' ids and arguments; searching: the same by call. others: calls of other functions -> their
            numbers without the searches.
    """

    def __init__(self) -> None:
        self.text: list[str] = []
        self.asked: list[tuple[SearchKind, str, list[str]]] = []
        self.searching: dict[int, list[str]] = {}
        self.others: dict[int, int] = {}
        self.finished: ChoiceFinished | None = None


class _Reply:
    def __init__(self, generate: Generate, request: GenerationRequest, searcher: Searcher, plan: SearchPlan) -> None:
        self._generate, self._request = generate, request
        self._searcher, self._plan = searcher, plan
        self._sources: list[SearchResult] = []
        self._files: set[str] = set()
        self._citations = CitationReader(0, self._sources)
        self._searches = 0
        self._usage = Usage(0, 0)
        self.ended = False

    async def turn(self) -> AsyncGenerator[GenerationEvent]:
        """The model's next turn, and the searches that it ends with."""
        turn = _Turn()
        async with aclosing(self._generate(self._request)) as events:  # type: ignore[type-var]
            async for event in events:
                for told in self._take(event, turn):
                    yield told
        results: list[Message] = []
        calls: list[ToolCall] = []
        cut = turn.finished is not None and turn.finished.finish_reason == "length"
        for kind, id, pieces in turn.asked if not cut else ():  # what is cut says no longer what to look for, and nobody would read it
            async for told in self._search(kind, _query_of("".join(pieces)), results, id):
                yield told
            calls.append(ToolCall(id, FUNCTIONS[kind].name, "".join(pieces)))
        finished = turn.finished
        if calls and not turn.others and finished is not None:
            self._go_on(Message("assistant", "".join(turn.text), tool_calls=tuple(calls)), results)
            return
        self.ended = True
        if finished is not None:
            alone = finished.finish_reason == "tool_calls" and not turn.others
            yield msgspec.structs.replace(finished, finish_reason="stop") if alone else finished
        yield self._usage

    def _take(self, event: GenerationEvent, turn: _Turn) -> Iterator[GenerationEvent]:
        """What is told of one event at once."""
        match event:
            case TextDelta(text=piece):
                turn.text.append(piece)
                yield event
                yield from self._cited(piece)
            case ToolCallDelta(id=str(id), name=str(name), call=call) if name in _KINDS:
                turn.searching[call] = [event.arguments]
                turn.asked.append((_KINDS[name], id, turn.searching[call]))
            case ToolCallDelta(call=call) if call in turn.searching:
                turn.searching[call].append(event.arguments)
            case ToolCallDelta(call=call):
                number = turn.others.setdefault(call, len(turn.others))
                yield msgspec.structs.replace(event, call=number)
            case ChoiceFinished():
                turn.finished = event
            case Usage():
                self._usage = _sum(self._usage, event)
            case _:
                yield event

    async def _search(self, kind: SearchKind, query: str, results: list[Message], call_id: str) -> AsyncIterator[SearchCall]:
        id = new_call_id()
        yield SearchCall(id, kind, query, "searching")
        self._searches += 1
        try:
            found = await self._searcher.search(kind, query, self._plan)
        except SearchError as error:
            results.append(Message("tool", f"The search failed: {error}", tool_call_id=call_id))
            yield SearchCall(id, kind, query, "failed")
            return
        first = len(self._sources) + 1
        self._sources += found
        self._files |= {result.url for result in found} if kind == "file" else set()
        texts = [f"[{number}] {result.title} ({result.url})\n{result.text}" for number, result in enumerate(found, first)]
        results.append(Message("tool", "\n\n".join(texts) or "Nothing was found.", tool_call_id=call_id))
        sources = tuple(SearchSource(result.title, result.url, result.text or "") for result in found)
        yield SearchCall(id, kind, query, "completed", sources)

    def _go_on(self, called: Message, results: Sequence[Message]) -> None:
        input = self._request.input
        assert isinstance(input, ChatInput) and input.tools is not None
        use = msgspec.structs.replace(input.tools, required=False, only=None)
        if self._searches >= self._plan.most:
            left = [(place, tool) for place, tool in enumerate(use.tools) if tool.name not in _KINDS]
            places = tuple(use.places[place] if use.places else place for place, _ in left)
            use = msgspec.structs.replace(use, tools=tuple(tool for _, tool in left), places=places)
        messages = (*input.messages, called, *results)
        self._request = msgspec.structs.replace(
            self._request, input=msgspec.structs.replace(input, messages=messages, tools=use if use.tools else None)
        )

    def _cited(self, piece: str) -> list[GenerationEvent]:
        found: list[GenerationEvent] = []
        for citation in self._citations.read(piece):
            if citation.url in self._files:
                found.append(FileCitation(0, citation.start_index, citation.title, citation.url))
            else:
                found.append(citation)
        return found


async def _with_text(session: FetchSession, result: SearchResult) -> SearchResult:
    """Without one where its page cannot be had: its snippet has to serve."""
    if result.text is not None:
        return result
    try:
        page = await session.fetch(result.url)
    except PageError:
        return result
    text = "\n\n".join(part for section in page.sections for part in (section.heading, section.text) if part)
    return msgspec.structs.replace(result, title=result.title or page.title, text=text)


async def _count(texts: Sequence[str]) -> list[int]:
    return [estimate_tokens(text) for text in texts]


def _query_of(arguments: str) -> str:
    try:
        found: Any = msgspec.json.decode(arguments)
        return str(found["query"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return arguments


def _within(url: str, domains: Sequence[str]) -> bool:
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    return any(host == domain or host.endswith(f".{domain}") for domain in domains)


def _sum(before: Usage, usage: Usage) -> Usage:
    return msgspec.structs.replace(
        usage,
        prompt_tokens=before.prompt_tokens + usage.prompt_tokens,
        completion_tokens=before.completion_tokens + usage.completion_tokens,
        cached_tokens=before.cached_tokens + usage.cached_tokens,
        reasoning_tokens=before.reasoning_tokens + usage.reasoning_tokens,
    )
