"""`GET /metrics`, as Prometheus asks for it; the registry of this gateway and what is in it."""

from __future__ import annotations

import asyncio
import time

from litestar import Response, get
from litestar.datastructures import State
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from mm_gateway.api.access.admission import Admission
from mm_gateway.api.observation.local_models import name_of
from mm_gateway.api.observation.metrics import RequestMetrics
from mm_gateway.api.observation.state_metrics import StateCollector
from mm_gateway.catalog import Catalog
from mm_gateway.work_pools import METRICS

LAG_INTERVAL_S = 0.5

# One format for all, whatever is accepted: in OpenMetrics the client library would make `vllm_` of `vllm:`, unless it is asked for more
# than Prometheus 2 asks for, and every dashboard would be empty.


class Metrics:
    """One gateway's metrics: a registry of its own, so that several gateways in a process do not meet in one.

    Attributes:
        requests: to be told of every request.
    """

    def __init__(self, catalog: Catalog, admission: Admission) -> None:
        self._registry = CollectorRegistry()
        self._catalog = catalog
        self.requests = RequestMetrics(self._registry)
        self._state = StateCollector(catalog, admission)
        self._registry.register(self._state)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        catalog.on_model_event(lambda config, event: self.requests.model_event(name_of(config, catalog.local_configs()), event))

    async def rendered(self, state: State) -> bytes:
        """The text. state: of the application."""
        fleet = await self._catalog.fleet()
        self._state.look(draining=state.draining, reloader=state.reloader, fleet=fleet)
        # Thousands of lines may take tens of milliseconds, for which nobody's tokens should wait.
        return await METRICS.run(generate_latest, self._registry)

    async def watch_loop(self) -> None:
        """Measure for ever how late the event loop is."""
        while True:
            due = time.monotonic() + LAG_INTERVAL_S
            await asyncio.sleep(LAG_INTERVAL_S)
            self.requests.lag(max(0.0, time.monotonic() - due))


@get("/metrics", summary="Metrics in the format of Prometheus")
async def metrics(state: State) -> Response[bytes]:
    return Response(await state.metrics.rendered(state), media_type=CONTENT_TYPE_PLAIN_0_0_4)
