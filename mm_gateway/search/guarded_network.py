"""HTTP connections to public addresses only: what a name resolves to is checked, and the connection goes to that very address.

So neither a page, nor a redirect, nor a name server that answers differently the second time can make the gateway reach into its own
network (SSRF, DNS rebinding).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from types import TracebackType
from typing import Any

import httpcore
import httpx

from mm_gateway.errors import PageError
from mm_gateway.work_pools import NAMES

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""(host, port) -> addresses in the order to be tried. OSError: there are none."""

# Addresses that carry an IPv4 address to which a gateway on the way would pass the packets on.
_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet's, also as the IPv4 address that it may carry."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if (carried := ip.ipv4_mapped or ip.sixtofour) is not None:
            return is_public(str(carried))
        if ip.teredo is not None or ip.is_site_local or ip in _NAT64[1]:
            return False
        if ip in _NAT64[0]:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        if int(ip) >> 32 == 0:  # the deprecated ::a.b.c.d
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified or ip.is_loopback or ip.is_link_local)


async def resolve(host: str, port: int) -> Sequence[str]:
    """The system's own answer."""
    found = await NAMES.run(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class GuardedNetwork(httpcore.AsyncNetworkBackend):
    """Opens TCP connections by name.

    Args:
        resolve: looks names up. is_allowed: whether an address may be connected to.
    """

    def __init__(self, resolve: Resolve, is_allowed: Callable[[str], bool]) -> None:
        self._resolve = resolve
        self._is_allowed = is_allowed
        self._network: Any = httpcore.AnyIOBackend()  # to type checkers another class, should anyio be missing

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} cannot be resolved") from error
        allowed = [address for address in addresses if self._is_allowed(address)]
        if not allowed:
            raise PageError(f"{host} is not on the public internet; search.allow_private_addresses would allow it")
        for address in allowed[:-1]:
            try:
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._network.connect_tcp(allowed[-1], port, timeout, local_address, socket_options)

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        raise PageError("Sockets of this machine are not fetched from")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class GuardedTransport(httpx.AsyncBaseTransport):
    """httpx over a network of our own, which its own transport does not take. Errors are httpcore's, or PageError."""

    def __init__(self, network: GuardedNetwork, tls: ssl.SSLContext) -> None:
        self._pool = httpcore.AsyncConnectionPool(ssl_context=tls, network_backend=network, max_connections=None)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = httpcore.URL(scheme=request.url.raw_scheme, host=request.url.raw_host, port=request.url.port, target=request.url.raw_path)
        response = await self._pool.handle_async_request(
            httpcore.Request(request.method, url, headers=request.headers.raw, content=request.stream, extensions=request.extensions)
        )
        return httpx.Response(response.status, headers=response.headers, stream=_Stream(response.stream), extensions=response.extensions)

    async def aclose(self) -> None:
        await self._pool.aclose()

    async def __aexit__(
        self, exc_type: type[BaseException] | None = None, exc: BaseException | None = None, traceback: TracebackType | None = None
    ) -> None:
        await self.aclose()


class _Stream(httpx.AsyncByteStream):
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._stream:
            yield piece

    async def aclose(self) -> None:
        if hasattr(self._stream, "aclose"):
            await self._stream.aclose()
