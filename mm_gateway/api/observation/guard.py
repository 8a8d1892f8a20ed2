"""Who may see the metrics."""

from __future__ import annotations

from litestar.handlers import BaseRouteHandler

from mm_gateway.api.access.keys import Keys, RequireKey, unnamed_keys
from mm_gateway.api.connection import HTTPConnection
from mm_gateway.configuration.server_settings import ServerSettings
from mm_gateway.errors import PermissionDeniedError


class RequireMetricsKey:
    """A Litestar guard: `server.metrics_key` opens, and so do the admin keys; without them everybody may, unless clients need keys.

    Args:
        clients: the keys of clients.
    """

    def __init__(self, server: ServerSettings, clients: Keys) -> None:
        own = () if server.metrics_key is None else (server.metrics_key,)
        self._clients = clients
        self._own = bool(own)
        self._keys = Keys(unnamed_keys((*server.admin_keys, *own)))
        self._require = RequireKey(self._keys)

    async def __call__(self, connection: HTTPConnection, route_handler: BaseRouteHandler) -> None:
        if not self._own and not self._clients.asked_for:
            return
        if not self._keys.asked_for:
            raise PermissionDeniedError("The metrics are closed, since clients need keys. Set MM_GATEWAY_METRICS_KEY, and send that")
        await self._require(connection, route_handler)
