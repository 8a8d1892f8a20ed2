"""Fetches pages, in parallel and within limits, and takes the text out of them."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import zlib
from collections.abc import AsyncIterator, Callable
from email.message import Message as HeaderParser
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpcore
import httpx

import mm_gateway
from mm_gateway.configuration.search_settings import SearchSettings
from mm_gateway.errors import PageError
from mm_gateway.search.documents import Document, Reader, read_html, read_text
from mm_gateway.search.guarded_network import GuardedNetwork, GuardedTransport, Resolve, is_public, resolve
from mm_gateway.search.reading import read_apart, start_reading
from mm_gateway.timeline import span
from mm_gateway.work_pools import DOCUMENTS

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
    """Makes the sessions in which pages are fetched; holds no connections.

    Args:
        settings: the limits. resolve: looks names up; is_allowed: whether an address may be connected to; both for tests.
    """

    def __init__(self, settings: SearchSettings, *, resolve: Resolve = resolve, is_allowed: Callable[[str], bool] = is_public) -> None:
        self._settings = settings
        self._network = GuardedNetwork(resolve, (lambda _: True) if settings.allow_private_addresses else is_allowed)
        self._tls: ssl.SSLContext | None = None

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[FetchSession]:
        """For the pages of one question."""
        if self._tls is None:
            self._tls = await DOCUMENTS.run(httpx.create_ssl_context)  # reads all certificates
        start_reading()  # while the first page comes
        client = httpx.AsyncClient(
            transport=GuardedTransport(self._network, self._tls),
            headers=HEADERS,
            timeout=self._settings.page_timeout_s,
            follow_redirects=True,
            max_redirects=self._settings.max_redirects,
            # What one site sets on a page must not show on another.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            # A proxy from the environment would resolve names itself, past every check.
            trust_env=False,
        )
        async with client:
            yield FetchSession(client, self._settings)


class FetchSession:
    """Fetches pages, so many at a time."""

    def __init__(self, client: httpx.AsyncClient, settings: SearchSettings) -> None:
        self._client = client
        self._settings = settings
        self._slots = asyncio.Semaphore(settings.parallel_fetches)

    async def fetch(self, url: str) -> Document:
        """One page; cancelling ends its connection, or the reading of it, at once.

        Raises:
            PageError: it cannot be had within the limits, or not be read.
        """
        async with self._slots:
            try:
                with span("fetch", host=httpx.URL(url).host):
                    async with asyncio.timeout(self._settings.page_timeout_s):
                        read, content, charset = await self._download(url)
                        return await read_apart(read, content, charset)
            except TimeoutError as error:
                raise PageError(f"took longer than {self._settings.page_timeout_s:g} s") from error
            except httpx.TooManyRedirects as error:
                raise PageError(f"has more than {self._settings.max_redirects} redirects") from error
            except _NETWORK_ERRORS as error:
                raise PageError(f"cannot be fetched: {str(error)[:200] or type(error).__name__}") from error

    async def _download(self, url: str) -> tuple[Reader, bytes, str | None]:
        async with self._client.stream("GET", url) as response:
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
