"""The provider `searxng`: a SearXNG server, asked over its JSON API."""

from __future__ import annotations

import asyncio
import ssl

import httpx
import msgspec

from mm_gateway.errors import SearchError
from mm_gateway.search.results import Language, SearchResult, snippet_of, title_of
from mm_gateway.work_pools import DOCUMENTS

LANGUAGES: dict[Language, str] = {"en": "en", "zh": "zh-CN"}
MAX_REPLY_BYTES = 2 * 2**20
_RETRYABLE = (408, 425, 429, 500, 502, 503, 504)


class _Row(msgspec.Struct):
    url: str = ""
    title: str = ""
    content: str | None = None


class _Reply(msgspec.Struct):
    results: list[_Row]


class SearxngProvider:
    """The server is the operator's choice, so it may well be on a private address.

    Args:
        url: its address, without `/search`. timeout_s: for a whole answer.
    """

    def __init__(self, url: str | None, timeout_s: float) -> None:
        self._url = (url or "").rstrip("/").removesuffix("/search")
        self._timeout_s = timeout_s
        self._tls: ssl.SSLContext | None = None

    async def search(self, query: str, max_results: int, language: Language) -> list[SearchResult]:
        if not self._url:
            raise SearchError("search.provider is searxng, but search.searxng_url is not set", retryable=False)
        parameters = {"q": query, "format": "json", "language": LANGUAGES[language], "safesearch": "1"}
        try:
            # httpx's own limit is for each read, and a server may drip.
            async with (
                asyncio.timeout(self._timeout_s),
                await self._http() as client,
                client.stream("GET", f"{self._url}/search", params=parameters) as response,
            ):
                if response.status_code != 200:
                    raise _refused(response.status_code)
                body = await _read(response)
            rows = msgspec.json.decode(body, type=_Reply).results
        except (httpx.TimeoutException, TimeoutError) as error:
            raise SearchError(f"The SearXNG server did not answer within {self._timeout_s:g} s", retryable=True) from error
        except httpx.HTTPError as error:
            why = str(error) or type(error).__name__
            raise SearchError(f"The SearXNG server cannot be reached ({why}). Is it running?", retryable=True) from error
        except (msgspec.MsgspecError, UnicodeDecodeError, httpx.InvalidURL) as error:
            raise SearchError("At search.searxng_url is no SearXNG server. Is the address right?", retryable=False) from error
        found: dict[str, _Row] = {}
        for row in rows:
            if row.url.startswith(("http://", "https://")):
                found.setdefault(row.url, row)
        return [
            SearchResult(title_of(row.title or row.url), row.url, snippet_of(row.content or "")) for row in [*found.values()][:max_results]
        ]

    async def close(self) -> None:
        """Nothing is kept between searches."""

    async def _http(self) -> httpx.AsyncClient:
        """A client for one search: kept connections would belong to the event loop that made them."""
        if self._tls is None:
            self._tls = await DOCUMENTS.run(httpx.create_ssl_context)  # reads all certificates
        # Without proxies from the environment: the server is usually near.
        return httpx.AsyncClient(verify=self._tls, timeout=self._timeout_s, follow_redirects=True, max_redirects=3, trust_env=False)


async def _read(response: httpx.Response) -> bytes:
    body = bytearray()
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > MAX_REPLY_BYTES:
            raise SearchError(f"The SearXNG server's answer is larger than {MAX_REPLY_BYTES} bytes", retryable=False)
    return bytes(body)


def _refused(status: int) -> SearchError:
    if status == 403:
        return SearchError(
            "The SearXNG server does not give JSON (403). Add `json` to `search.formats` in its settings.yml", retryable=False
        )
    hint = "; its limiter is on" if status == 429 else ""
    return SearchError(f"The SearXNG server answered with status {status}{hint}", retryable=status in _RETRYABLE)
