"""Fetches the pages of search results, in parallel and within limits, and takes the text out of them."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Sequence
from email.message import Message as HeaderParser
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpcore
import httpx

import mm_gateway
from mm_gateway.errors import PageError
from mm_gateway.search.documents import Document, Reader, read_html, read_text
from mm_gateway.search.guarded_network import GuardedNetwork, GuardedTransport, Resolve, is_public, resolve
from mm_gateway.search.results import SearchResult
from mm_gateway.settings import SearchSettings

CONTENT_TYPES: dict[str, Reader] = {
    "text/html": read_html,
    "application/xhtml+xml": read_html,
    "text/plain": read_text,
    "text/markdown": read_text,
}
HEADERS = {
    "user-agent": f"Mozilla/5.0 (compatible; mm-gateway/{mm_gateway.__version__})",
    "accept": ", ".join(CONTENT_TYPES),
    "accept-encoding": "gzip",
}
_NETWORK_ERRORS = (
    *(httpx.HTTPError, httpx.InvalidURL, httpx.StreamError),
    *(httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, httpcore.UnsupportedProtocol, httpcore.PoolTimeout),
)


class PageFetcher:
    """Owns the connections to pages; one for the whole gateway.

    Args:
        settings: the limits. resolve: looks names up; is_allowed: whether an address may be connected to; both for tests.
    """

    def __init__(self, settings: SearchSettings, *, resolve: Resolve = resolve, is_allowed: Callable[[str], bool] = is_public) -> None:
        self._settings = settings
        self._resolve = resolve
        self._is_allowed = (lambda _: True) if settings.allow_private_addresses else is_allowed
        self._client: httpx.AsyncClient | None = None

    async def fetch_all(self, results: Sequence[SearchResult]) -> list[Document | PageError]:
        """The page of each result, or why there is none; in the same order. Cancelling it ends every fetch."""
        slots = asyncio.Semaphore(self._settings.parallel_fetches)

        async def one(result: SearchResult) -> Document | PageError:
            async with slots:
                try:
                    return await self.fetch(result.url)
                except PageError as error:
                    return error

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(result)) for result in results]
        return [task.result() for task in tasks]

    async def fetch(self, url: str) -> Document:
        """One page.

        Raises:
            PageError: it cannot be had within the limits, or not be read.
        """
        try:
            async with asyncio.timeout(self._settings.page_timeout_s):
                read, content, charset = await self._download(url)
        except TimeoutError as error:
            raise PageError(f"took longer than {self._settings.page_timeout_s:g} s") from error
        except httpx.TooManyRedirects as error:
            raise PageError(f"has more than {self._settings.max_redirects} redirects") from error
        except _NETWORK_ERRORS as error:
            raise PageError(f"cannot be fetched: {str(error)[:200] or type(error).__name__}") from error
        return await asyncio.to_thread(read, content, charset)

    async def close(self) -> None:
        """Idempotent."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _download(self, url: str) -> tuple[Reader, bytes, str | None]:
        async with self._http().stream("GET", url) as response:
            if response.status_code != 200:
                raise PageError(f"answered with status {response.status_code}")
            kind, charset = _content_type(response.headers.get("content-type", "text/html"))
            if kind not in CONTENT_TYPES:
                raise PageError(f"is of type {kind[:50]}, which is not read")
            content = bytearray()
            body = _Body(response.headers.get("content-encoding", ""), self._settings.max_page_bytes)
            async for piece in response.aiter_raw():
                content += body.decode(piece)
            return CONTENT_TYPES[kind], bytes(content), charset

    def _http(self) -> httpx.AsyncClient:
        if self._client is None:
            network = GuardedNetwork(self._resolve, self._is_allowed)
            self._client = httpx.AsyncClient(
                transport=GuardedTransport(network, max_connections=100),
                headers=HEADERS,
                timeout=self._settings.page_timeout_s,
                # What one site sets for one user's question must not show in another's.
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
                follow_redirects=True,
                max_redirects=self._settings.max_redirects,
                # A proxy from the environment would resolve names itself, past every check.
                trust_env=False,
            )
        return self._client


class _Body:
    """Undoes a content encoding piece by piece and never holds more than the limit, however much a few bytes unfold to."""

    def __init__(self, encoding: str, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._total = 0
        match encoding.strip().lower():
            case "" | "identity":
                self._inflate = None
            case "gzip" | "x-gzip":
                self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
            case other:
                raise PageError(f"is encoded with {other[:50]}, which was not asked for")

    def decode(self, piece: bytes) -> bytes:
        room = self._max_bytes - self._total + 1
        try:
            text = piece if self._inflate is None else self._inflate.decompress(piece, room)
        except zlib.error as error:
            raise PageError("has a broken encoding") from error
        self._total += len(text)
        if self._total > self._max_bytes:
            raise PageError(f"is larger than {self._max_bytes} bytes")
        return text


def _content_type(header: str) -> tuple[str, str | None]:
    parser = HeaderParser()
    parser["content-type"] = header
    return parser.get_content_type(), parser.get_content_charset()
