"""Searches within `/v1/responses`: which tools ask for them, and their calls as items."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from mm_gateway.backends.searching import FUNCTIONS, Searcher, SearchPlan
from mm_gateway.core import SearchCall, SearchKind, Tool
from mm_gateway.errors import UnsupportedParameterError
from mm_gateway.protocol.decoding import convert
from mm_gateway.protocol.response_searches import FileSearchCallItem, SearchItem, WebSearchCallItem

SOURCES = "web_search_call.action.sources"
RESULTS = "file_search_call.results"
KINDS: Mapping[str, SearchKind] = {
    "web_search": "web",
    "web_search_2025_08_26": "web",
    "web_search_preview": "web",
    "web_search_preview_2025_03_11": "web",
    "file_search": "file",
}
"""Types of tools that the gateway's own search serves."""
OF_SIZE: Mapping[str, int] = {"low": 3, "medium": 5, "high": 10}
"""`search_context_size` -> sources."""


class _WebSearch(msgspec.Struct, forbid_unknown_fields=True):
    search_context_size: Literal["low", "medium", "high"] | None = None
    filters: dict[str, list[str]] | None = None
    user_location: Any = None
    external_web_access: bool | None = None
    search_content_types: list[str] | None = None


class _FileSearch(msgspec.Struct, forbid_unknown_fields=True):
    vector_store_ids: list[str] = []
    max_num_results: Annotated[int, Meta(ge=1, le=50)] | None = None
    filters: Any = None
    ranking_options: Any = None


class AskedSearches:
    """What the tools of one body ask for.

    Args:
        searcher: what can be searched. ignored: gets the paths of what is left out. unknown: as for `decode`.
    """

    def __init__(self, searcher: Searcher, ignored: list[str], unknown: list[str] | None) -> None:
        self._searcher, self._ignored, self._unknown = searcher, ignored, unknown
        self._results: dict[SearchKind, int | None] = {}
        self._domains: tuple[str, ...] = ()

    @property
    def served(self) -> frozenset[str]:
        """Types of tools."""
        return frozenset(name for name, kind in KINDS.items() if self._searcher.has(kind))

    def read(self, at: str, kind: str, fields: Mapping[str, Any]) -> Tool:
        """The function that a tool at a path of the body is.

        Raises:
            InvalidRequestError: a field is wrong. UnsupportedParameterError: one that is not served.
        """
        if KINDS[kind] == "web":
            web = convert(dict(fields), _WebSearch, at, self._unknown)
            self._domains = tuple((web.filters or {}).get("allowed_domains", ()))
            others = [name for name in web.filters or () if name != "allowed_domains"]
            if others:
                raise _unserved(f"{at}.filters.{others[0]}")
            self._leave_out(at, web, ("user_location", "search_content_types"))
            self._results["web"] = OF_SIZE[web.search_context_size] if web.search_context_size is not None else None
        else:
            files = convert(dict(fields), _FileSearch, at, self._unknown)
            if files.filters:
                raise _unserved(f"{at}.filters")
            self._leave_out(at, files, ("vector_store_ids", "ranking_options"))
            self._results["file"] = files.max_num_results
        return FUNCTIONS[KINDS[kind]]

    def plan(self, most: int | None) -> SearchPlan | None:
        """most: searches in one reply; None: as usual."""
        if not self._results:
            return None
        return SearchPlan(self._results, self._domains) if most is None else SearchPlan(self._results, self._domains, most)

    def _leave_out(self, at: str, tool: msgspec.Struct, names: Collection[str]) -> None:
        self._ignored += [f"{at}.{name}" for name in names if getattr(tool, name)]


def search_item(id: str, call: SearchCall, include: Collection[str]) -> SearchItem:
    """include: of the body."""
    if call.kind == "web":
        action: dict[str, Any] = {"type": "search", "query": call.query, "queries": [call.query]}
        if SOURCES in include and call.status == "completed":
            action["sources"] = [{"type": "url", "url": source.url} for source in call.sources]
        return WebSearchCallItem(id, action, call.status)
    results: list[dict[str, Any]] | None = None
    if RESULTS in include and call.status == "completed":
        results = [{"file_id": source.url, "filename": source.title, "text": source.text, "attributes": {}} for source in call.sources]
    return FileSearchCallItem(id, [call.query], call.status, results)


def _unserved(at: str) -> UnsupportedParameterError:
    return UnsupportedParameterError(f"{at} is not supported by this server", param=at, code="unsupported_value")
