"""Providers that ask others: SearXNG over its JSON API on a real socket, the package ddgs, and trying again."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from ddgs.exceptions import DDGSException, RatelimitException, TimeoutException

from mm_gateway.configuration.search_settings import SearchSettings
from mm_gateway.configuration.settings import StorageSettings
from mm_gateway.errors import SearchError
from mm_gateway.search.ddgs import DdgsProvider
from mm_gateway.search.fetching import PageFetcher
from mm_gateway.search.local import LocalProvider
from mm_gateway.search.providers import build_provider
from mm_gateway.search.results import SearchResult, search_with_retries
from mm_gateway.search.searxng import SearxngProvider
from mm_gateway.storage.record_store import RecordStore
from mm_gateway.storage.shared_store import SharedStore
from tests.support.web_site import article, dripping, endless, redirect, reply, searxng, silent, web_site

ROWS: list[dict[str, object]] = [
    {"url": "https://a.example/", "title": "A", "content": "About  a.\nMore " + "words " * 100, "engine": "x", "score": 2.0},
    {"url": "https://b.example/", "title": "", "content": None},
    {"url": "https://a.example/", "title": "A again", "content": ""},
    {"url": "magnet:?x", "title": "no page"},
    {"url": "https://c.example/", "title": "C"},
]


async def ask(url: str | None, timeout_s: float = 30, max_results: int = 2) -> list[SearchResult]:
    provider = SearxngProvider(url, timeout_s)
    try:
        return await provider.search("深度 & learning?", max_results, "zh")
    finally:
        await provider.close()


async def test_searxng_gives_title_address_and_snippet_once_each() -> None:
    async with web_site({"/search": searxng(ROWS)}) as site:
        first, second = await ask(site.address)
        assert await ask(f"{site.address}/search/") == [first, second]
        assert [result.url for result in await ask(site.address, max_results=20)] == [f"https://{name}.example/" for name in "abc"]
    assert (first.title, first.url, first.text) == ("A", "https://a.example/", None)
    assert first.snippet.startswith("About a. More words")
    assert len(first.snippet) <= 300
    assert second == SearchResult("https://b.example/", "https://b.example/", "")
    asked = parse_qs(urlsplit(site.requests[0][0]).query)
    assert (asked["q"], asked["language"]) == (["深度 & learning?"], ["zh-CN"])


@pytest.mark.parametrize(
    ("page", "says", "retryable"),
    [
        (reply(b"", status="403 Forbidden"), "search.formats", False),
        (reply(b"", status="429 Too Many Requests"), "limiter", True),
        (reply(b"", status="502 Bad Gateway"), "502", True),
        (reply(b"", status="404 Not Found"), "404", False),
        (reply(b"<html>Welcome!"), "no SearXNG server", False),
        (reply(b'{"results": 3}'), "no SearXNG server", False),
        (reply(b'{"results": [{"url": 1}]}'), "no SearXNG server", False),
        (redirect("/search"), "cannot be reached", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{", "cannot be reached", True),
    ],
)
async def test_errors_of_searxng_say_what_to_do_and_whether_to_try_again(page, says: str, retryable: bool) -> None:
    async with web_site({"/search": page}) as site:
        with pytest.raises(SearchError, match=says) as caught:
            await ask(site.address)
    assert caught.value.retryable is retryable


@pytest.mark.parametrize("page", [silent, dripping])
async def test_searxng_that_takes_too_long_may_be_asked_again(page) -> None:
    async with web_site({"/search": page}) as site:
        with pytest.raises(SearchError, match=r"within 0\.3 s") as caught:
            await ask(site.address, timeout_s=0.3)
    assert caught.value.retryable


async def test_an_answer_of_searxng_that_does_not_end_is_cut_off() -> None:
    async with web_site({"/search": endless}) as site:
        with pytest.raises(SearchError, match="larger than"):
            await ask(site.address)


async def test_searxng_that_is_not_there_or_not_configured() -> None:
    with pytest.raises(SearchError, match="cannot be reached"):
        await ask("http://127.0.0.1:9")
    with pytest.raises(SearchError, match="searxng_url is not set"):
        await ask(None)


async def test_ddgs_results_become_ours_and_the_language_picks_the_region() -> None:
    asked: list[tuple[str, str, int]] = []

    def text(query: str, region: str, max_results: int) -> Sequence[Mapping[str, Any]]:
        asked.append((query, region, max_results))
        return [{"title": "A", "href": "https://a.example", "body": "about a"}, {"title": "no address", "href": "", "body": ""}]

    assert await DdgsProvider(1.0, text).search("x", 3, "zh") == [SearchResult("A", "https://a.example", "about a")]
    assert asked == [("x", "cn-zh", 3)]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (RatelimitException("202"), "rate limited"),
        (TimeoutException("timed out"), "in time"),
        (DDGSException("DNSError: no such host"), "is there a network"),
    ],
)
async def test_errors_of_ddgs_are_typed(error: Exception, says: str) -> None:
    def text(query: str, region: str, max_results: int) -> Sequence[Mapping[str, Any]]:
        raise error

    with pytest.raises(SearchError, match=says) as caught:
        await DdgsProvider(1.0, text).search("x", 3, "en")
    assert caught.value.retryable


async def test_ddgs_that_finds_nothing_is_no_error() -> None:
    def text(query: str, region: str, max_results: int) -> Sequence[Mapping[str, Any]]:
        raise DDGSException("No results found.")

    assert await DdgsProvider(1.0, text).search("x", 3, "en") == []


async def test_the_real_package_without_a_network_is_a_search_error(monkeypatch: pytest.MonkeyPatch) -> None:
    # Through a proxy that is not there, so that the test needs no network and asks nobody.
    monkeypatch.setenv("DDGS_PROXY", "http://127.0.0.1:9")
    with pytest.raises(SearchError) as caught:
        await DdgsProvider(1.0).search("x", 1, "en")
    assert caught.value.retryable


async def test_ddgs_that_is_not_installed_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ddgs", None)  # as Python marks a module that cannot be imported
    with pytest.raises(SearchError, match=r"pip install 'mm-gateway\[search\]'") as caught:
        await DdgsProvider(1.0).search("x", 1, "en")
    assert not caught.value.retryable


class Failing:
    """Fails as often as it is told to, then finds one thing."""

    def __init__(self, failures: int, *, retryable: bool) -> None:
        self.failures = failures
        self.retryable = retryable
        self.tries = 0

    async def search(self, query: str, max_results: int, language: str) -> list[SearchResult]:
        self.tries += 1
        if self.tries <= self.failures:
            raise SearchError("down", retryable=self.retryable)
        return [SearchResult("A", "https://a.example", "")]

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(("failures", "retryable", "tries"), [(0, True, 1), (2, True, 3), (3, True, 3), (1, False, 1)])
async def test_a_search_is_tried_three_times_with_growing_pauses_where_that_can_help(failures: int, retryable: bool, tries: int) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0)

    provider = Failing(failures, retryable=retryable)
    if failures in (0, 2):
        assert await search_with_retries(provider, "x", 1, "en", sleep=sleep)
    else:
        with pytest.raises(SearchError, match="down"):
            await search_with_retries(provider, "x", 1, "en", sleep=sleep)
    assert provider.tries == tries
    assert len(pauses) == tries - 1
    assert pauses == sorted(pauses)


def test_the_settings_pick_the_provider(tmp_path: Path) -> None:
    storage = StorageSettings(folder=str(tmp_path))
    assert isinstance(build_provider(SearchSettings(), storage), LocalProvider)
    assert isinstance(build_provider(SearchSettings(provider="ddgs"), storage), DdgsProvider)
    assert isinstance(build_provider(SearchSettings(provider="searxng"), storage), SearxngProvider)
    assert not list(tmp_path.iterdir())


async def test_searches_that_hang_keep_neither_pages_nor_storage_waiting(tmp_path: Path) -> None:
    release = threading.Event()

    def hanging(query: str, region: str, max_results: int) -> list[dict[str, str]]:
        release.wait(60)
        return []

    provider = DdgsProvider(20.0, hanging)
    searches = [asyncio.create_task(provider.search("x", 1, "en")) for _ in range(40)]
    store = SharedStore(lambda: RecordStore(tmp_path / "store.sqlite", "x", max_records=1))
    settings = SearchSettings(allow_private_addresses=True)
    try:
        async with asyncio.timeout(20), web_site({"/": reply(article("Title", "A text of some length. " * 10))}) as site:
            async with PageFetcher(settings).session() as session:
                assert (await session.fetch(site.address.replace("127.0.0.1", "localhost"))).title == "Title"
            await store.run(lambda records: records.put("a", b"1"))
    finally:
        release.set()
        await asyncio.gather(*searches)
