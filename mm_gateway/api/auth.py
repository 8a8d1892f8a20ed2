"""Who may ask: bearer keys, compared in constant time; no keys configured means everybody."""

from __future__ import annotations

import hashlib
import hmac

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from mm_gateway.errors import AuthenticationError


class RequireKey:
    """A Litestar guard.

    Args:
        keys: those that open; only their hashes are kept.
    """

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._digests = [_digest(key) for key in keys]

    def __call__(self, connection: ASGIConnection, route_handler: BaseRouteHandler) -> None:
        if not self._digests:
            return
        scheme, _, key = connection.headers.get("authorization", "").partition(" ")
        if not key or scheme.lower() != "bearer":
            raise AuthenticationError("You didn't provide an API key. Send it in a header: Authorization: Bearer YOUR_KEY")
        digest = _digest(key.strip())
        # Every key is compared, so that the time says nothing about which one was close.
        if not sum(hmac.compare_digest(digest, known) for known in self._digests):
            raise AuthenticationError("Incorrect API key provided")
        connection.scope["state"]["principal"] = digest.hex()[:16]


def principal(connection: ASGIConnection) -> str:
    """Whose request it is: the beginning of its key's hash; "" where no key is asked for."""
    return connection.scope["state"].get("principal", "")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
