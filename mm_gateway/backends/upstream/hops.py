"""The servers that a request came through, by the header Via (RFC 9110, 7.6.3): what would go in a circle is known by it."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from contextvars import ContextVar

_HOP = re.compile(r"mm-gateway-[0-9a-f]{16}")

_before: ContextVar[tuple[str, ...]] = ContextVar("hops", default=())
"""Of the request of this context, the first one first."""


def came_through(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """What this context and its tasks ask of other servers from now on is asked for a request with these headers, as ASGI has them."""
    _before.set(tuple(hop for name, value in headers if name == b"via" for hop in _HOP.findall(value.decode("latin-1"))))


class Hop:
    """One way from here to another server. Its name is drawn anew in each process, and tells that server nothing of this one.

    By the way and not by the gateway: a request may pass a gateway twice and end, from one of its models to another one.
    """

    def __init__(self) -> None:
        self._name = f"mm-gateway-{secrets.token_hex(8)}"

    def was_taken(self) -> bool:
        """Whether the request of this context came this way before."""
        return self._name in _before.get()

    def header(self) -> dict[str, str]:
        """For a request that goes this way. Hops of others are left out: they are nothing that the server needs to know."""
        return {"via": ", ".join(f"1.1 {hop}" for hop in (*_before.get(), self._name))}
