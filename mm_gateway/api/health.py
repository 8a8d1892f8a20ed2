"""Whether the process lives and serves, and which version: `/health` and what is below it, `/ping`, `/version`; open to everybody."""

from __future__ import annotations

import asyncio
import logging

from litestar import HttpMethod, Response, get, route
from litestar.datastructures import State

import mm_gateway
from mm_gateway.api.access.admission import Admission
from mm_gateway.api.responses.store import ResponseStore
from mm_gateway.errors import ConfigurationError, StorageError
from mm_gateway.protocol import Health, Readiness, Version

logger = logging.getLogger(__name__)

STORAGE_TIMEOUT_S = 2.0
"""In which the disk has to answer, so that the probe itself gets its answer in time."""


@route("/health", http_method=[HttpMethod.GET, HttpMethod.HEAD], sync_to_thread=False, summary="Whether the gateway serves")
def health(state: State) -> Response[Health]:
    if state.draining:
        return Response(Health("shutting down", mm_gateway.__version__), status_code=503)
    return Response(Health("ok", mm_gateway.__version__))


@route(
    "/health/live",
    http_method=[HttpMethod.GET, HttpMethod.HEAD],
    sync_to_thread=False,
    summary="Whether the process is to be left alone; else it hangs, and should be started anew",
)
def live() -> Health:
    return Health("ok", mm_gateway.__version__)


@route("/health/ready", http_method=[HttpMethod.GET, HttpMethod.HEAD], summary="Whether it should get new requests now")
async def ready(state: State) -> Response[Readiness]:
    """Not while it drains or shuts down, has no room for a request, or cannot use a storage of its own. One that it shares is a reason
    that is told, and no more: all gateways lack it at once, and most requests need none.
    """
    reasons = ["It takes no new requests: it drains, or shuts down"] if state.draining else []
    reasons += _full(state.admission)
    store: ResponseStore = state.responses
    ready, lacking = not reasons, await _storage(store)
    if not store.is_shared:
        ready = ready and not lacking
    return Response(Readiness(ready, [*reasons, *lacking]), status_code=200 if ready else 503)


def _full(admission: Admission) -> list[str]:
    return [capacity.full_text for capacity in (admission.live, admission.queued) if capacity.is_full]


async def _storage(responses: ResponseStore) -> list[str]:
    try:
        async with asyncio.timeout(STORAGE_TIMEOUT_S):
            await responses.check()
    except TimeoutError:
        return [f"storage: it did not answer within {STORAGE_TIMEOUT_S:g} s"]
    except ConfigurationError as error:
        # Everybody may ask this, and the error holds a path.
        logger.error("%s", error)
        return ["storage: it cannot be used; the log says why"]
    except StorageError as error:
        return [str(error)]
    return []


@route(
    "/ping",
    http_method=[HttpMethod.GET, HttpMethod.HEAD],
    sync_to_thread=False,
    summary="The same by its status alone, as SageMaker and vLLM have it",
)
def ping(state: State) -> Response[bytes]:
    return Response(b"", status_code=503 if state.draining else 200, media_type="text/plain")


@get("/version", sync_to_thread=False, summary="The version, as vLLM has it")
def version() -> Version:
    return Version(mm_gateway.__version__)
