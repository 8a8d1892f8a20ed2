"""The way to one upstream server: posts, bounds what comes back, and types every failure; knows nothing of what is asked."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import Any, Literal, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from mm_gateway.backends.upstream.hops import Hop
from mm_gateway.backends.upstream.protocol import WireError
from mm_gateway.backends.upstream.rate_limits import allowance_in
from mm_gateway.backends.upstream.reported_errors import error_in_text
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.core import Allowance
from mm_gateway.errors import ConfigurationError, UpstreamError
from mm_gateway.timeline import span
from mm_gateway.work_pools import BODIES

CONNECT_TIMEOUT_S = 10.0
MAX_ERROR_BYTES = 64 * 2**10
MAX_REPLY_BYTES = 256 * 2**20
"""Of a reply that is no stream: 2048 embeddings of 4096 numbers as text take 170 MB."""
LARGE_BYTES = 256 * 2**10
"""A body from this size on is encoded or decoded off the event loop, where it would keep others waiting."""

KEEP_ALIVE_S = 4.0
"""Below the five seconds of uvicorn and Node, so that no request meets a connection that its server is closing."""
KEY_REFUSED = (401, 403)

T = TypeVar("T")


class _Card(msgspec.Struct):
    """What a gateway like this one tells of a model."""

    state: Literal["cold", "loading", "ready", "busy", "evicting", "failed"]


class Connection:
    """Connections to one server, kept and shared. The key is read from the environment at each request.

    Args:
        name: of the model, as clients know it. config: its entry of `models.yaml`.
        headers: what goes with a key, or with None where there is none. Default: `bearer`.

    Attributes:
        allowance: what the server said last of its limit of requests; None: nothing.
        state: of the model, as its server told last; "ready" where it does not tell.
    """

    def __init__(self, name: str, config: ModelConfig, headers: Callable[[str | None], dict[str, str]] | None = None) -> None:
        self._key_headers = headers or bearer
        self._name = name
        self._config = config
        self._hop = Hop()
        self._client: httpx.AsyncClient | None = None
        self._has_health = self._tells_state = True
        self.state = "ready"
        self.allowance: Allowance | None = None

    @property
    def base(self) -> str:
        """Its address up to /v1, without a slash at the end."""
        return (self._config.base_url or "").rstrip("/")

    @asynccontextmanager
    async def post(self, url: str, body: dict[str, Any]) -> AsyncIterator[httpx.Response]:
        """The reply to a request, of status 200, its body not read yet.

        Raises:
            UpstreamError: the server refuses, cannot be reached, breaks off, or is silent for `timeout_s`; the request came this way
                before (508).
            ConfigurationError: its key is not set.
        """
        if self._hop.was_taken():
            raise self._circle()
        headers = self._headers() | self._hop.header() | {"content-type": "application/json"}
        content = await off_loop(sum(map(_size, body.values())), msgspec.json.encode, body)
        try:
            with span("upstream", model=self._name, url=url) as asked:
                async with self._http().stream("POST", url, content=content, headers=headers | asked.headers()) as response:
                    asked.attributes["status"] = response.status_code
                    self.allowance = allowance_in(response.headers, time.monotonic()) or self.allowance
                    if response.status_code != 200:
                        raise await self._refused(response)
                    # Whatever it was: it is in memory now, or loads.
                    self.state = "ready"
                    yield response
        except httpx.TimeoutException as error:
            raise self._late(type(error).__name__) from error
        except httpx.TransportError as error:
            raise self.failure(f"cannot be reached or broke off: {error or type(error).__name__}. Is it running?") from error

    async def ask(self, url: str, body: dict[str, Any], read: Callable[[bytes], T]) -> T:
        """What `read` makes of a whole reply.

        Raises:
            UpstreamError: as `post`; the reply exceeds MAX_REPLY_BYTES or takes longer than `timeout_s` altogether; `read` raised a
                MsgspecError or ValueError. ConfigurationError: as `post`.
        """
        try:
            # Bytes that come one by one keep the client's own time limit from ever ending.
            async with asyncio.timeout(self._config.timeout_s), self.post(url, body) as response:
                reply = await _at_most(MAX_REPLY_BYTES, response)
        except TimeoutError as error:
            raise self._late("whole reply") from error
        if len(reply) > MAX_REPLY_BYTES:
            raise self.failure(f"sent a reply of more than {MAX_REPLY_BYTES >> 20} MiB. Ask for less at a time")
        try:
            return await off_loop(len(reply), read, reply)
        except (msgspec.MsgspecError, ValueError) as error:
            raise self.failure(f"sent a broken reply: {str(error)[:200]}") from error

    async def probe(self, timeout_s: float) -> None:
        """Whether the server serves: by its /health, as vLLM, SGLang, llama.cpp and this gateway have it, else by its list of models.

        Raises:
            UpstreamError: it says that it does not, refuses the key, cannot be reached, or says nothing in time.
            ConfigurationError: its key is not set.
        """
        if self._has_health:
            # Servers elsewhere answer addresses that they do not have in ways of their own, so that only these two count.
            status = await self._status(self.base.removesuffix("/v1") + "/health", timeout_s)
            if status == 200:
                await self._look_at_state(timeout_s)
                return
            if status in (500, 502, 503):
                raise self.failure(f"says by /health that it does not serve ({status})")
            self._has_health = False
        status = await self._status(f"{self.base}/models", timeout_s)
        if status in KEY_REFUSED:
            raise self._key_refused(status)
        if status >= 500:
            raise self.failure(f"does not list its models ({status})")

    async def _look_at_state(self, timeout_s: float) -> None:
        """Of the model, where the server is one that tells it, as this gateway does; one that does not is not asked again. Nothing of
        it speaks against the server's health."""
        if not self._tells_state:
            return
        try:
            async with self._get(f"{self.base}/models/{quote(self._config.model_name)}", timeout_s) as response:
                self.state = msgspec.json.decode(await _at_most(MAX_ERROR_BYTES, response), type=_Card).state
        except UpstreamError:
            pass  # it said nothing now, and may the next time
        except (msgspec.MsgspecError, UnicodeDecodeError):
            self.state, self._tells_state = "ready", False

    async def close(self) -> None:
        """Close all connections; idempotent."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def failure(self, what: str) -> UpstreamError:
        """The server did something wrong."""
        return UpstreamError(f"{self._at()} {what}")

    def reported(self, error: WireError) -> UpstreamError:
        """An error that the server tells of, with the status that its `code` may be."""
        known = isinstance(error.code, int) and 400 <= error.code < 600 and error.code not in KEY_REFUSED
        return UpstreamError(
            f"{self._at()}: {(error.message or 'unknown error')[:1000]}",
            status=int(error.code) if known and error.code is not None else 502,
            type=error.type or "server_error",
            param=error.param,
            code=None if error.code is None else str(error.code),
        )

    def _http(self) -> httpx.AsyncClient:
        if self._client is None:
            timeout = httpx.Timeout(self._config.timeout_s, connect=CONNECT_TIMEOUT_S, pool=None)
            # Every request may be a long stream, so none may wait for a connection of another.
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=KEEP_ALIVE_S)
            self._client = httpx.AsyncClient(timeout=timeout, limits=limits, follow_redirects=False)
        return self._client

    def _headers(self) -> dict[str, str]:
        name = self._config.api_key_env
        if name is None:
            return self._key_headers(None)
        key = os.environ.get(name)
        if not key:
            raise ConfigurationError(f"model {self._name}: api_key_env names {name}, but that environment variable is not set")
        return self._key_headers(key)

    def _at(self) -> str:
        return f"The upstream server of {self._name} ({self._config.base_url})"

    def _circle(self) -> UpstreamError:
        what = "was asked for this request before, which came back from there: the entries or groups of these gateways name each other"
        return UpstreamError(f"{self._at()} {what}", status=508, code="loop_detected")

    def _late(self, what: str) -> UpstreamError:
        return UpstreamError(f"{self._at()} did not answer in time ({what}). Try again, or raise timeout_s", status=504)

    async def _status(self, url: str, timeout_s: float) -> int:
        async with self._get(url, timeout_s) as response:
            return response.status_code

    @asynccontextmanager
    async def _get(self, url: str, timeout_s: float) -> AsyncIterator[httpx.Response]:
        try:
            async with asyncio.timeout(timeout_s), self._http().stream("GET", url, headers=self._headers()) as response:
                yield response
        except (TimeoutError, httpx.TimeoutException) as error:
            raise self._late(f"{url}, {timeout_s:g} s") from error
        except httpx.TransportError as error:
            raise self.failure(f"cannot be reached or broke off: {error or type(error).__name__}. Is it running?") from error

    def _key_refused(self, status: int) -> UpstreamError:
        """Not the client's key is wrong but ours, so it must not look like a 401 of the gateway."""
        return UpstreamError(f"{self._at()} refused the gateway's key ({status}). Check {self._config.api_key_env or 'api_key_env'}")

    async def _refused(self, response: httpx.Response) -> UpstreamError:
        try:
            async with asyncio.timeout(self._config.timeout_s):
                body = await _at_most(MAX_ERROR_BYTES, response)
        except TimeoutError:
            body = b""
        status = response.status_code
        if status in KEY_REFUSED:
            return self._key_refused(status)
        error = self.reported(error_in_text(body, status))
        # Redirects and successes that are none are the upstream's mistake.
        error.status = status if status >= 400 else 502
        if status < 500 and error.type == "server_error":
            error.type = "rate_limit_error" if status == 429 else "invalid_request_error"
        error.retry_after_s = _seconds(response.headers.get("retry-after", ""))
        return error


def bearer(key: str | None) -> dict[str, str]:
    """How most servers take a key."""
    return {} if key is None else {"authorization": f"Bearer {key}"}


async def off_loop(size_bytes: int, function: Callable[[Any], T], argument: Any) -> T:
    """The function's result; large work does not hold up the event loop."""
    return await BODIES.run(function, argument) if size_bytes >= LARGE_BYTES else function(argument)


async def _at_most(limit_bytes: int, response: httpx.Response) -> bytes:
    """The body, or a beginning of it that is longer than the limit."""
    # One buffer that grows: joining piece by piece copies the whole with each of them.
    body = bytearray()
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > limit_bytes:
            break
    return bytes(body)


def _seconds(retry_after: str) -> float | None:
    """A Retry-After in its two forms, seconds and a date; None where it is neither."""
    if retry_after.replace(".", "", 1).isdecimal():
        return float(retry_after)
    try:
        return max(1.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None


def _size(value: Any) -> int:
    """Bytes as JSON, roughly: enough to tell a large body from a small one."""
    match value:
        case str():
            return len(value)
        case msgspec.Raw():
            return len(memoryview(value))
        case list():
            return sum(_size(entry) + 8 for entry in value)
        case dict():
            return sum(len(str(key)) + _size(entry) + 8 for key, entry in value.items())
        case _:
            return 8
