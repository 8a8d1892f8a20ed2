"""What a search finds, and the protocol of everything that can be searched; knows no provider."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec

from mm_gateway.errors import SearchError
from mm_gateway.text import Language
from mm_gateway.timeline import span

TRIES = 3
BACK_OFF_S = 0.5
MAX_SNIPPET = 300
MAX_TITLE = 200


class SearchResult(msgspec.Struct, frozen=True):
    """One source.

    Attributes:
        snippet: a few sentences of it, at most 300 characters. text: what it says on the matter, where the provider has it; else its
            page is to be fetched.
    """

    title: str
    url: str
    snippet: str
    text: str | None = None


class SearchProvider(Protocol):
    """Something that can be searched."""

    async def search(self, query: str, max_results: int, language: Language) -> list[SearchResult]:
        """The best results first; [] where nothing was found.

        Raises:
            SearchError: it cannot be asked.
        """
        ...

    async def close(self) -> None:
        """Release what it holds; idempotent."""
        ...


async def search_with_retries(
    provider: SearchProvider,
    query: str,
    max_results: int,
    language: Language,
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> list[SearchResult]:
    """As the provider's own `search`, tried up to three times where that can help.

    Args:
        sleep: how to wait between tries; for tests.
    """
    for attempt in range(1, TRIES):
        try:
            with span("search"):
                return await provider.search(query, max_results, language)
        except SearchError as error:
            if not error.retryable:
                raise
        # Jitter, so that those who failed together do not come back together.
        await sleep(BACK_OFF_S * 2 ** (attempt - 1) * random.uniform(0.75, 1.25))
    with span("search"):
        return await provider.search(query, max_results, language)


def title_of(text: str) -> str:
    """A title on one line, so that it cannot look like another source."""
    return " ".join(text.split())[:MAX_TITLE]


def snippet_of(text: str, words: Sequence[str] = ()) -> str:
    """A part of a text on one line, cut between words: its beginning, or where the first of the `words` (case folded) stands."""
    line = " ".join(text.split())
    places = [place for word in words if (place := line.lower().find(word)) >= 0]
    if len(line) > MAX_SNIPPET and places and min(places) > MAX_SNIPPET // 2:
        # From the beginning of the sentence, if that is near.
        near = line[max(0, min(places) - MAX_SNIPPET // 3) : min(places)]
        start = min(places) - len(near) + max(near.rfind(end) + 1 for end in (". ", "。", " "))
        line = "…" + line[start:].lstrip()
    if len(line) <= MAX_SNIPPET:
        return line
    cut = line[: MAX_SNIPPET - 1]
    # Chinese has no spaces to cut at.
    return (cut.rpartition(" ")[0] if " " in cut[MAX_SNIPPET // 2 :] else cut) + "…"
