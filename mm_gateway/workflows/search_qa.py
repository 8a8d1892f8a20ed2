"""search-qa: search, fetch, summarize, answer; every fact in the answer carries the number of its source."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import TYPE_CHECKING, Annotated, Self
from urllib.parse import urlsplit

from msgspec import Meta
from msgspec.structs import replace

from mm_gateway.configuration.model_config import ModelType
from mm_gateway.configuration.search_settings import SearchSettings
from mm_gateway.configuration.settings import Settings, StorageSettings
from mm_gateway.core import ChoiceFinished, GenerationEvent, TextDelta
from mm_gateway.errors import ContextLengthExceededError, PageError
from mm_gateway.search.citations import CitationReader
from mm_gateway.search.fetching import FetchSession, PageFetcher
from mm_gateway.search.fitting import Source, fit
from mm_gateway.search.providers import build_provider
from mm_gateway.search.results import SearchProvider, SearchResult, search_with_retries
from mm_gateway.text import language_of
from mm_gateway.workflows.parameters import Parameters
from mm_gateway.workflows.prompts import Language, Passage, answer_messages
from mm_gateway.workflows.run import Run
from mm_gateway.workflows.workflow import Workflow

if TYPE_CHECKING:
    from mm_gateway.runtime.inference_engine import InferenceEngine

MAX_ANSWER_TOKENS = 512
TEMPERATURE = 0.7
TOP_P = 0.9
UNKNOWN_CONTEXT = 4096
"""Tokens that a model is taken to hold where nobody knows."""
CONTROL_TOKENS = 64
"""Room for what a chat template writes around two messages."""
MIN_ROOM_TOKENS = 64
"""A source that gets fewer says nothing."""
MAX_REASON = 500
"""Characters of why a step did less than it is for."""

NOTHING_FOUND: dict[Language, str] = {
    "en": "Nothing was found for this question, so it cannot be answered from sources.",
    "zh": "没有找到与这个问题有关的内容，因此无法根据来源回答。",
}


class SearchQAParameters(Parameters, frozen=True, kw_only=True):
    query: str
    max_results: Annotated[int, Meta(ge=1, le=20, description="Sources at most; default: search.max_results")] | None = None
    include_sources: Annotated[bool, Meta(description="Tell which sources there were")] = True
    language: Annotated[Language | None, Meta(description="Of the answer; default: the question's")] = None


class SearchQAWorkflow(Workflow[SearchQAParameters]):
    """Args: provider: where it looks; None: as `settings` say. settings, storage: None: the defaults, which work offline."""

    name = "search-qa"
    description = "Searches, reads what it finds, and answers with numbered sources"
    subject = "query"
    serves = frozenset({"logprobs", "ends"})
    parameters = SearchQAParameters

    def __init__(
        self,
        inference_engine: InferenceEngine | None = None,
        *,
        use_real_models: bool = False,
        language: str | None = None,
        model_type: ModelType | None = None,
        provider: SearchProvider | None = None,
        settings: SearchSettings | None = None,
        storage: StorageSettings | None = None,
    ) -> None:
        super().__init__(inference_engine, use_real_models=use_real_models, language=language, model_type=model_type)
        self._settings = settings or SearchSettings()
        self._provider = provider or build_provider(self._settings, storage or StorageSettings())
        self._fetcher = PageFetcher(self._settings)

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls(settings=settings.search, storage=settings.storage)

    async def close(self) -> None:
        await self._provider.close()

    async def stages(self, run: Run, parameters: SearchQAParameters) -> AsyncIterator[GenerationEvent]:
        question = _Question(run, parameters, self._settings, self._provider, self._fetcher)
        for stage in (question.search, question.fetch, question.summarize, question.answer):
            async with contextlib.aclosing(stage()) as events:
                async for event in events:
                    yield event
            if not question.results:
                for event in question.nothing_found():
                    yield event
                return


class _Question:
    """One request on its way through the stages.

    Attributes:
        results: what was found; after `fetch` with their text, after `summarize` those that are numbered sources.
    """

    def __init__(
        self, run: Run, parameters: SearchQAParameters, settings: SearchSettings, provider: SearchProvider, fetcher: PageFetcher
    ) -> None:
        self._run = run
        self._query = parameters.query
        self._language: Language = parameters.language or language_of(parameters.query)
        self._max_results = parameters.max_results or settings.max_results
        self._include_sources = parameters.include_sources
        self._settings = settings
        self._provider = provider
        self._fetcher = fetcher
        self.results: list[SearchResult] = []
        self._passages: list[Passage] = []
        self._answer_tokens = MAX_ANSWER_TOKENS
        run.metadata |= {"query": self._query, "language": self._language}

    async def search(self) -> AsyncGenerator[GenerationEvent]:
        run = self._run
        yield run.begin("search", f"searching for {self._query[:100]}")
        self.results = await run.start(search_with_retries(self._provider, self._query, self._max_results, self._language))
        yield run.end(output_count=len(self.results), degraded=None if self.results else "nothing was found")

    async def fetch(self) -> AsyncGenerator[GenerationEvent]:
        """Leaves out what cannot be had; where that is all of it, snippets have to serve as text."""
        run, found = self._run, self.results
        yield run.begin("fetch", f"reading {len(found)} sources", input_count=len(found))
        pages = [result for result in found if result.text is None]
        outcomes: dict[str, SearchResult | PageError] = {}
        if pages:
            async with self._fetcher.session() as session:
                tasks = {page.url: run.start(_with_text(session, page)) for page in pages}
                for done, task in enumerate(asyncio.as_completed(tasks.values()), 1):
                    await task
                    yield run.progress(f"{done} of {len(pages)} pages read", done / len(pages))
                outcomes = {url: task.result() for url, task in tasks.items()}
        read = [outcomes.get(result.url, result) for result in found]
        self.results = [outcome for outcome in read if isinstance(outcome, SearchResult)]
        failures = [f"{_host(result)} {error}" for result, error in zip(found, read, strict=True) if isinstance(error, PageError)]
        degraded = f"{len(failures)} of {len(found)} pages are left out: {'; '.join(failures)}" if failures else None
        if not self.results:
            self.results = [replace(result, text=result.snippet) for result in found if result.snippet]
            degraded = f"no page could be read, so that snippets have to serve: {'; '.join(failures)}"
        yield run.end(output_count=len(self.results), degraded=degraded and degraded[:MAX_REASON])

    async def summarize(self) -> AsyncGenerator[GenerationEvent]:
        """Cuts the sources to what matters and fits; those that are left are the first ones."""
        run, found = self._run, self.results
        yield run.begin("summarize", f"choosing passages of {len(found)} sources", input_count=len(found))
        prompt = await run.count_tokens([message.content for message in answer_messages(self._query, [], self._language)])
        context = run.context_length or UNKNOWN_CONTEXT
        self._answer_tokens = run.request.config.max_new_tokens or min(MAX_ANSWER_TOKENS, context // 2)
        taken = sum(prompt) + CONTROL_TOKENS
        room = context - taken - self._answer_tokens
        if room < MIN_ROOM_TOKENS:
            raise ContextLengthExceededError(context, taken + MIN_ROOM_TOKENS, self._answer_tokens)

        sources = [Source(result.title, result.text or "") for result in found]
        texts = await fit(self._query, sources, run.count_tokens, room_tokens=room, max_source_tokens=self._settings.max_source_tokens)
        self._passages = [Passage(result.title, text) for result, text in zip(found, texts, strict=False)]
        self.results = found[: len(texts)]
        missing = len(found) - len(texts)
        degraded = f"{missing} of {len(found)} sources do not fit the context of the model" if missing else None
        yield run.end(output_count=len(texts), degraded=degraded)

    async def answer(self) -> AsyncGenerator[GenerationEvent]:
        run, sources = self._run, self.results
        self._tell_sources()
        yield run.begin("answer", input_count=len(sources))
        config = run.config(max_new_tokens=self._answer_tokens, temperature=TEMPERATURE, top_p=TOP_P)
        readers = [CitationReader(index, sources) for index in range(config.n)]
        async for event in run.ask(answer_messages(self._query, self._passages, self._language), config):
            yield event
            if isinstance(event, TextDelta):
                for citation in readers[event.index].read(event.text):
                    yield citation
        yield run.end()

    def nothing_found(self) -> Iterator[GenerationEvent]:
        """The answer without a source; the model is not asked, because it would make one up."""
        self._tell_sources()
        for index in range(self._run.request.config.n):
            yield TextDelta(index, NOTHING_FOUND[self._language])
            yield ChoiceFinished(index, "stop")

    def _tell_sources(self) -> None:
        if self._include_sources:
            told = [{"title": source.title, "url": source.url, "snippet": source.snippet} for source in self.results]
            self._run.metadata["sources"] = told


def _host(result: SearchResult) -> str:
    try:
        return urlsplit(result.url).hostname or result.url[:50]
    except ValueError:
        return result.url[:50]


async def _with_text(session: FetchSession, result: SearchResult) -> SearchResult | PageError:
    try:
        page = await session.fetch(result.url)
    except PageError as error:
        return error
    text = "\n\n".join(filter(None, (part for section in page.sections for part in (section.heading, section.text))))
    return replace(result, title=result.title or page.title, text=text)
