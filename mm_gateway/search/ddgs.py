"""The provider `ddgs`: several web search engines through the package of that name (extra `search`)."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mm_gateway.errors import SearchError
from mm_gateway.search.results import Language, SearchResult, snippet_of, title_of
from mm_gateway.work_pools import WEB_SEARCH

REGIONS: dict[Language, str] = {"en": "us-en", "zh": "cn-zh"}

Text = Callable[[str, str, int], Sequence[Mapping[str, Any]]]
"""(query, region, max_results) -> rows with title, href and body, as `ddgs.DDGS.text` gives them."""


class DdgsProvider:
    """A blocking library, so each search runs in a thread.

    Args:
        timeout_s: for each engine that is asked. text: does the search; None: the package.
    """

    def __init__(self, timeout_s: float, text: Text | None = None) -> None:
        self._timeout_s = timeout_s
        self._text = text

    async def search(self, query: str, max_results: int, language: Language) -> list[SearchResult]:
        if self._text is None:
            self._text = await WEB_SEARCH.run(_package_text, self._timeout_s)
        try:
            # The package has a time limit for each of the engines that it asks in turn, but none for the whole.
            async with asyncio.timeout(3 * self._timeout_s):
                rows = await WEB_SEARCH.run(self._text, query, REGIONS[language], max_results)
        except TimeoutError as error:
            raise SearchError(f"Web search did not answer within {3 * self._timeout_s:.0f} s", retryable=True) from error
        except Exception as error:
            if type(error).__module__.partition(".")[0] != "ddgs":
                raise
            if "No results found" in str(error):
                return []
            raise SearchError(_said(error), retryable=True) from error
        return [
            SearchResult(title_of(str(row.get("title") or row["href"])), str(row["href"]), snippet_of(str(row.get("body") or "")))
            for row in rows[:max_results]
            if row.get("href")
        ]

    async def close(self) -> None:
        """There is nothing to close."""


def _said(error: Exception) -> str:
    match type(error).__name__:
        case "RatelimitException":
            what = "Web search is rate limited; try again later, or use searxng with a server of yours"
        case "TimeoutException":
            what = "Web search did not answer in time"
        case _:
            what = "Web search failed; is there a network?"
    return f"{what} ({str(error)[:200]})"


def _package_text(timeout_s: float) -> Text:
    try:
        package = importlib.import_module("ddgs")
    except ImportError as error:
        raise SearchError(
            "search.provider ddgs needs a package that is not installed: pip install 'mm-gateway[search]'", retryable=False
        ) from error

    def text(query: str, region: str, max_results: int) -> Sequence[Mapping[str, Any]]:
        return package.DDGS(timeout=max(1, round(timeout_s))).text(query, region=region, max_results=max_results)

    return text
