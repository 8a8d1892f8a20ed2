"""Who may ask: keys, as OpenAI's clients send them or as Anthropic's do, compared in constant time; no keys configured means everybody."""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from litestar.handlers import BaseRouteHandler

from mm_gateway.api.connection import HTTPConnection
from mm_gateway.catalog import Catalog
from mm_gateway.configuration.api_key import ApiKey, digest_of, parse_key
from mm_gateway.configuration.settings import Settings
from mm_gateway.core import Backend
from mm_gateway.errors import AuthenticationError, ModelNotFoundError


class RequireKey:
    """A Litestar guard. It is asynchronous because Litestar runs others on a thread, which costs a request 0.1 ms.

    Args:
        keys: those that open; none: everybody may.
    """

    def __init__(self, keys: Sequence[ApiKey]) -> None:
        self._keys = tuple(keys)

    async def __call__(self, connection: HTTPConnection, route_handler: BaseRouteHandler) -> None:
        if not self._keys:
            return
        scheme, _, key = connection.headers.get("authorization", "").partition(" ")
        if not key.strip() or scheme.lower() != "bearer":
            key = connection.headers.get("x-api-key", "")
        if not key.strip():
            text = "You didn't provide an API key. Send it in a header: Authorization: Bearer YOUR_KEY, or x-api-key: YOUR_KEY"
            raise AuthenticationError(text)
        digest = digest_of(key.strip())
        found: ApiKey | None = None
        # Every key is compared, so that the time says nothing about which one was close.
        for known in self._keys:
            if hmac.compare_digest(digest, known.digest):
                found = known
        if found is None:
            raise AuthenticationError("Incorrect API key provided")
        connection.scope["state"]["key"] = found


def client_keys(settings: Settings) -> tuple[ApiKey, ...]:
    """The keys of clients, from `server.api_keys` and from the file."""
    return (*unnamed_keys(settings.server.api_keys), *settings.keys)


def unnamed_keys(keys: Sequence[str]) -> tuple[ApiKey, ...]:
    return tuple(ApiKey(digest=parse_key(key)) for key in keys)


def key_of(connection: HTTPConnection) -> ApiKey | None:
    """The key of a request behind the guard; None where none is asked for."""
    return connection.scope["state"].get("key")


def principal(connection: HTTPConnection) -> str:
    """Whose request it is: the key's name, or the beginning of its hash; "" where no key is asked for."""
    key = key_of(connection)
    return key.principal if key is not None else ""


def may_use(connection: HTTPConnection, entry: str) -> bool:
    """Whether the request's key opens an entry of `models.yaml`."""
    key = key_of(connection)
    return key is None or not key.models or entry in key.models


def resolve(connection: HTTPConnection, catalog: Catalog, name: str) -> Backend:
    """The backend of a name or alias, for the request's key.

    Raises:
        ModelNotFoundError: there is none, or the key does not open it; the client cannot tell one from the other.
    """
    key = key_of(connection)
    if key is None or not key.models:
        return catalog.resolve(name)
    try:
        backend = catalog.resolve(name)
    except ModelNotFoundError:
        raise ModelNotFoundError(name, key.models) from None
    if backend.info().id not in key.models:
        raise ModelNotFoundError(name, key.models)
    return backend
