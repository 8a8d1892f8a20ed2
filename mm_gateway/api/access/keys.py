"""Who may ask: keys, as OpenAI's clients send them or as Anthropic's do, held as hashes; no keys configured means everybody."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from litestar.handlers import BaseRouteHandler

from mm_gateway.api.connection import HTTPConnection
from mm_gateway.catalog import Catalog
from mm_gateway.configuration.api_key import ApiKey, digest_of, parse_key
from mm_gateway.configuration.settings import Settings
from mm_gateway.core import Backend
from mm_gateway.errors import AuthenticationError, ModelNotFoundError, StorageError

Source = Literal["settings", "file", "made"]
"""Where keys come from: `server.api_keys`, the key file, and those made in the running gateway."""


class Keys:
    """The keys that open; none: everybody may.

    Once keys were asked for they are until the process ends: that the last one was deleted must not open the gateway to everybody.
    """

    def __init__(self, keys: Iterable[ApiKey] = ()) -> None:
        self._sources: dict[Source, tuple[ApiKey, ...]] = {}
        self._by_digest: Mapping[bytes, ApiKey] = {}
        self.asked_for = False
        self.may_lack = False
        """Whether keys that somebody else has made cannot be looked at now."""
        self.replace("settings", keys)

    def replace(self, source: Source, keys: Iterable[ApiKey]) -> None:
        """From now on these are those of the source; requests that run are not touched."""
        self._sources[source] = tuple(keys)
        self._by_digest = {key.digest: key for found in reversed(self._sources.values()) for key in found}
        self.asked_for = self.asked_for or bool(self._by_digest)

    def of(self, *sources: Source) -> tuple[ApiKey, ...]:
        """Those of some sources, disabled and expired ones too."""
        return tuple(key for source in sources for key in self._sources.get(source, ()))

    def find(self, key: str) -> ApiKey:
        """What a client's key is.

        Raises:
            AuthenticationError: it is none, or opens nothing now. StorageError: whether it is one cannot be known now.
        """
        # The time of a lookup tells something of the hash of what was sent, which whoever sent it knows, and nothing of a key.
        found = self._by_digest.get(digest_of(key))
        if found is None and self.may_lack:
            raise StorageError("The key is not known here, and keys made elsewhere cannot be looked at now. Please try again")
        if found is None:
            raise AuthenticationError("Incorrect API key provided")
        if found.disabled:
            raise AuthenticationError("This API key is disabled")
        if found.expires_at is not None and found.expires_at <= time.time():
            raise AuthenticationError("This API key has expired")
        return found


class RequireKey:
    """A Litestar guard. It is asynchronous because Litestar runs others on a thread, which costs a request 0.1 ms."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def __call__(self, connection: HTTPConnection, route_handler: BaseRouteHandler) -> None:
        if not self._keys.asked_for:
            return
        scheme, _, key = connection.headers.get("authorization", "").partition(" ")
        if not key.strip() or scheme.lower() != "bearer":
            key = connection.headers.get("x-api-key", "")
        if not key.strip():
            text = "You didn't provide an API key. Send it in a header: Authorization: Bearer YOUR_KEY, or x-api-key: YOUR_KEY"
            raise AuthenticationError(text)
        connection.scope["state"]["key"] = self._keys.find(key.strip())


def client_keys(settings: Settings) -> Keys:
    """The keys of clients, from `server.api_keys` and from the file."""
    keys = Keys(unnamed_keys(settings.server.api_keys))
    keys.replace("file", settings.keys)
    return keys


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
