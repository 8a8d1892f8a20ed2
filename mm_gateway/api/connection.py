"""Litestar's connections with their type parameters, and what a guard is: in one place, for handlers and for those they ask."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.handlers import BaseRouteHandler

HTTPConnection: TypeAlias = ASGIConnection[Any, Any, Any, State]
HTTPRequest: TypeAlias = Request[Any, Any, State]
AsyncGuard: TypeAlias = Callable[[HTTPConnection, BaseRouteHandler], Awaitable[None]]
