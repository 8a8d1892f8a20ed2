"""Who may steer the gateway: an admin key opens, and nothing does where none is configured."""

from __future__ import annotations

from litestar.handlers import BaseRouteHandler

from mm_gateway.api.access.keys import Keys, RequireKey, principal, unnamed_keys
from mm_gateway.api.connection import HTTPConnection
from mm_gateway.errors import PermissionDeniedError


class RequireAdminKey:
    """A Litestar guard.

    Args:
        keys: those that open; none: nothing opens.
    """

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._require = RequireKey(Keys(unnamed_keys(keys))) if keys else None

    async def __call__(self, connection: HTTPConnection, route_handler: BaseRouteHandler) -> None:
        if self._require is None:
            raise PermissionDeniedError("The admin endpoints are off. Set MM_GATEWAY_ADMIN_KEYS to turn them on")
        await self._require(connection, route_handler)
        connection.scope["state"]["record"].key = principal(connection)
