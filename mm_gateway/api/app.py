"""Puts the HTTP application together: routes, guard, error handler, headers of every reply, lifetime of the catalog."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from litestar import Litestar, Response, Router
from litestar.config.cors import CORSConfig
from litestar.datastructures import State
from litestar.handlers import BaseRouteHandler
from litestar.types import Message, Receive, Scope, Send

from mm_gateway.api.access.admission import Admission
from mm_gateway.api.access.keys import RequireKey, client_keys
from mm_gateway.api.access.ledger import Ledger
from mm_gateway.api.access.made_keys import MadeKeys
from mm_gateway.api.access.shared_limits import SharedLimits
from mm_gateway.api.admin.guard import RequireAdminKey
from mm_gateway.api.admin.reload import Reloader
from mm_gateway.api.connection import CLIENT_CLOSED, AsyncGuard, HTTPConnection, HTTPRequest
from mm_gateway.api.description.endpoints import schema_json, schema_page
from mm_gateway.api.endpoints import ENDPOINTS
from mm_gateway.api.errors import error_code, http_error
from mm_gateway.api.messages.endpoints import Signatures
from mm_gateway.api.messages.errors import message_error, speaks_anthropic
from mm_gateway.api.observation.exposition import Metrics
from mm_gateway.api.observation.guard import RequireMetricsKey
from mm_gateway.api.observation.known_names import KnownNames
from mm_gateway.api.observation.recent import RecentRequests
from mm_gateway.api.observation.record import Observer, RequestRecord, tell
from mm_gateway.api.observation.request_log import RequestLog
from mm_gateway.api.observation.tracing import Tracing
from mm_gateway.api.page.files import page, page_file
from mm_gateway.api.responses.background import BackgroundResponses
from mm_gateway.api.responses.sealed_texts import SealedTexts
from mm_gateway.api.responses.store import ResponseStore
from mm_gateway.backends.searching import Searcher
from mm_gateway.backends.upstream.hops import came_through
from mm_gateway.catalog import Catalog
from mm_gateway.configuration.settings import Settings
from mm_gateway.timeline import follow
from mm_gateway.work_pools import TRACES

EXPOSED_HEADERS = [
    "x-request-id",
    "request-id",
    "openai-processing-ms",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "x-mm-gateway-ignored",
    *(f"x-ratelimit-{what}-{of}" for of in ("requests", "tokens") for what in ("limit", "remaining", "reset")),
]

TRACES_TIMEOUT_S = 5.0
"""For the last spans to be taken."""


class GatewayApp(Litestar):
    """Litestar with a record of every request, and the headers that every reply carries, errors of routing included."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # type: ignore[override]
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)  # type: ignore[arg-type]
            return
        state = scope.setdefault("state", {})
        request_id = state["request_id"] = f"req_{secrets.token_hex(16)}"
        record = state["record"] = RequestRecord(request_id, scope["method"])
        tracing: Tracing | None = self.state.tracing
        if tracing is not None:
            state["trace"] = tracing.begin(record, scope["path"], scope["headers"])
        follow(record.timeline)
        came_through(scope["headers"])

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                elapsed = b"%d" % (record.duration_s * 1000)
                headers = [*message["headers"], *_ids(request_id), (b"openai-processing-ms", elapsed)]
                if (ticket := state.get("ticket")) is not None:
                    headers += ticket.headers()
                message = {**message, "headers": headers}  # type: ignore[assignment]
            await send(message)

        try:
            await super().__call__(scope, receive, send_with_headers)  # type: ignore[arg-type]
        finally:
            if (ticket := state.get("ticket")) is not None:
                ticket.close()
            if not record.outlived:
                record.ended = time.monotonic()
                record.endpoint = scope.get("path_template", "")
                record.client_gone = record.client_gone or record.status == CLIENT_CLOSED
                tell(self.state.observers, record)


def _ids(request_id: str) -> tuple[tuple[bytes, bytes], ...]:
    """As OpenAI's clients and as Anthropic's read it."""
    return ((b"x-request-id", request_id.encode()), (b"request-id", request_id.encode()))


def handle_exception(request: HTTPRequest, error: Exception) -> Response[bytes]:
    """Litestar's exception handler for every exception of every route, in the envelope of the API that the client speaks."""
    found = http_error(error)
    state = request.scope["state"]
    state["record"].failed(error, error_code(error))
    if speaks_anthropic(request):
        found = message_error(found, state["request_id"])
    return Response(found.encode(), status_code=found.status, headers=found.headers, media_type="application/json")


def create_app(settings: Settings, catalog: Catalog) -> GatewayApp:
    """The application over a catalog, which it closes at the end.

    `app.state.draining = True` makes new requests a 503 while running ones finish; `app.state.admission.interrupt` ends those;
    `stopping`: for good.
    `app.state.observers` are told of every request when its reply has ended.
    """

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncGenerator[None, None]:
        await made_keys.open()
        await catalog.start()
        tasks = [asyncio.create_task(ledger.keep()), asyncio.create_task(made_keys.watch())]
        lag = asyncio.create_task(metrics.watch_loop())
        interval_s = settings.server.reload_interval_s
        watching = asyncio.create_task(reloader.watch(interval_s)) if interval_s else None
        try:
            yield
        finally:
            lag.cancel()
            app.state.draining = app.state.stopping = True
            if watching is not None:
                watching.cancel()
            tasks[1].cancel()
            await reloader.close()
            await background.close(settings.server.shutdown_grace_s)
            # Before models are closed, which may hang.
            await ledger.close()
            made_keys.close()
            await catalog.close()
            await responses.close()
            await searcher.close()
            if log is not None:
                log.close()
            if tracing is not None:
                with contextlib.suppress(TimeoutError):  # a collector that is gone must not hold up the end
                    await asyncio.wait_for(TRACES.run(tracing.close), TRACES_TIMEOUT_S)

    responses = ResponseStore(settings.storage)
    background = BackgroundResponses(settings.limits.max_background_responses)
    searcher = Searcher(settings.search, settings.storage)
    shared = SharedLimits(settings.storage.url) if settings.storage.url is not None else None
    ledger = Ledger(settings.storage, shared=shared)
    admission = Admission(settings.limits, ledger, shared=shared)
    metrics = Metrics(catalog, admission)
    recent_requests = RecentRequests()
    observers: list[Observer] = [KnownNames(catalog), metrics.requests, recent_requests, ledger]
    log = None if settings.server.request_log == "off" else RequestLog(settings.server.request_log)
    if log is not None:
        observers.append(log)
    tracing = Tracing(settings.tracing) if settings.tracing.otlp_endpoint is not None else None
    if tracing is not None:
        observers.append(tracing)
    keys = client_keys(settings)
    made_keys = MadeKeys(settings.storage, keys, ledger)
    reloader = Reloader(settings, catalog, keys, admission)
    require = RequireKey(keys)
    require_metrics = RequireMetricsKey(settings.server, keys)

    async def see_metrics(connection: HTTPConnection, route_handler: BaseRouteHandler) -> None:
        await require_metrics(connection, route_handler)

    async def admit(connection: HTTPConnection, route_handler: BaseRouteHandler) -> None:
        # One function, since Litestar copies the handler for each guard of a request, and deeply a router with the objects that guard it.
        await require(connection, route_handler)
        await admission(connection, route_handler)

    guards: dict[str, list[AsyncGuard]] = {
        "client": [admit],
        "admin": [RequireAdminKey(settings.server.admin_keys)],
        "metrics": [see_metrics],
        "": [],
    }
    routers = [
        Router("/", route_handlers=[row.handler for row in ENDPOINTS.values() if row.security == security], guards=guards[security])
        for security in guards
    ]
    return GatewayApp(
        route_handlers=[*routers, schema_page, schema_json, page, page_file],
        exception_handlers={Exception: handle_exception},
        lifespan=[lifespan],
        state=State(
            {
                "catalog": catalog,
                "server": settings.server,
                "responses": responses,
                "background": background,
                "searcher": searcher,
                "signatures": Signatures(settings.storage),
                "sealed_texts": SealedTexts(settings.storage),
                "admission": admission,
                "observers": observers,
                "metrics": metrics,
                "tracing": tracing,
                "reloader": reloader,
                "recent_requests": recent_requests,
                "client_keys": keys,
                "made_keys": made_keys,
                "ledger": ledger,
                "draining": False,
                "stopping": False,
            },
            deep_copy=False,
        ),
        cors_config=_cors(settings.server.cors_origins),
        request_max_body_size=settings.server.max_body_bytes,
        openapi_config=None,  # see api/description
        logging_config=None,
    )


def _cors(origins: tuple[str, ...]) -> CORSConfig | None:
    """Preflights are answered before keys are asked for: browsers send none with them."""
    return CORSConfig(allow_origins=list(origins), expose_headers=EXPOSED_HEADERS) if origins else None
