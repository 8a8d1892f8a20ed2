"""Who may see the metrics."""

from __future__ import annotations

from litestar.handlers import BaseRouteHandler

from mm_gateway.api.access.keys import RequireKey, unnamed_keys
from mm_gateway.api.connection import HTTPConnection
from mm_gateway.configuration.settings import Settings
from mm_gateway.errors import PermissionDeniedError


class RequireMetricsKey:
    """A Litestar guard: `server.metrics_key` opens, and so do the admin keys; without them everybody may, unless clients need keys."""

    def __init__(self, settings: Settings) -> None:
        server = settings.server
        keys = unnamed_keys((*server.admin_keys, *((server.metrics_key,) if server.metrics_key is not None else ())))
        self._require = RequireKey(keys) if server.metrics_key is not None or settings.asks_for_keys else None
        self._closed = not keys

    async def __call__(self, connection: HTTPConnection, route_handler: BaseRouteHandler) -> None:
        if self._require is None:
            return
        if self._closed:
            raise PermissionDeniedError("The metrics are closed, since clients need keys. Set MM_GATEWAY_METRICS_KEY, and send that")
        await self._require(connection, route_handler)
