"""What metrics, the log of requests and usage cost a request, in three ways; knows nothing of what `overhead` compares with."""

from __future__ import annotations

import asyncio
import io
import statistics
import tempfile
import time

import httpx
import msgspec
import psutil

from benchmarks.support.http import Connection
from benchmarks.support.measures import Percentiles
from benchmarks.support.servers import RunningServer

MODELS = {"models": {"mock": {"model_name": "mock", "backend": "mock"}}}
WHOLE = msgspec.json.encode({"model": "mock", "messages": [{"role": "user", "content": "!mock tokens=16"}]})


async def latencies(connection: Connection, path: str, requests: int) -> list[float]:
    """Seconds of each of `requests` exchanges, one after the other."""
    samples = []
    for _ in range(requests):
        started_s = time.perf_counter()
        reply = await connection.post(path, WHOLE)
        await reply.read()
        samples.append(time.perf_counter() - started_s)
    return samples


async def cost_of_observing(observed: RunningServer, unobserved: RunningServer, scale: float) -> list[list[object]]:
    """Rows of what metrics, log and usage add to a request: latency, and the server's CPU time, which other work disturbs less."""
    servers = (observed, unobserved)
    connections = [Connection(server.base_url) for server in servers]
    processes = [psutil.Process(server.pid) for server in servers]
    samples: list[list[float]] = [[], []]
    for connection in connections:
        await latencies(connection, "/chat/completions", 200)
    before = [sum(process.cpu_times()[:2]) for process in processes]
    for block in range(round(1000 * scale)):  # alternating in short turns, each first in turn, so that noise meets both
        for index in (0, 1) if block % 2 else (1, 0):
            samples[index] += await latencies(connections[index], "/chat/completions", 10)
    cpu_s = [sum(process.cpu_times()[:2]) - start for process, start in zip(processes, before, strict=True)]
    with_it, without = (Percentiles.of(found) for found in samples)
    cpu_ms = [1e3 * spent / len(found) for spent, found in zip(cpu_s, samples, strict=True)]
    work_ms = await own_work_ms()
    return [
        ["their work on a request, measured alone, ms", work_ms, 0, f"{work_ms:+.3f} ms"],
        ["latency of a request, p50, ms", with_it.p50 * 1e3, without.p50 * 1e3, f"{(with_it.p50 - without.p50) * 1e3:+.3f} ms"],
        ["CPU time of a request, ms", cpu_ms[0], cpu_ms[1], f"{cpu_ms[0] - cpu_ms[1]:+.3f} ms"],
    ]


async def own_work_ms() -> float:
    """Median milliseconds in which the observers of a gateway are told of a request such as WHOLE, its pieces included.

    The only one of the three that a machine with other work does not blur: a server that does less sleeps more, and being woken costs more
    there than what it saved.
    """
    from mm_gateway.api.app import create_app
    from mm_gateway.api.observation.record import RequestRecord, tell
    from mm_gateway.catalog import build_catalog
    from mm_gateway.configuration.model_config import ModelConfig
    from mm_gateway.configuration.settings import Settings, StorageSettings
    from mm_gateway.core import TextDelta

    class Keep:
        def finished(self, record: RequestRecord) -> None:
            kept.append(record)

    kept: list[RequestRecord] = []
    piece = TextDelta(0, " words")
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(models={"mock": ModelConfig(model_name="mock", backend="mock")}, storage=StorageSettings(folder=folder))
        app = create_app(settings, build_catalog(settings))
        app.state.observers.append(Keep())
        transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            headers = {"content-type": "application/json"}
            (await client.post("/v1/chat/completions", content=WHOLE, headers=headers)).raise_for_status()
        app.state.observers.pop()
        app.state.observers = [observer for observer in app.state.observers if type(observer).__name__ != "RequestLog"]
        app.state.observers.append(_log())
        samples: list[float] = []
        for _ in range(500):
            started_s = time.perf_counter()
            record = RequestRecord("req_0", "POST")
            for _ in range(kept[0].pieces):
                record.observe(piece)
            tell(app.state.observers, kept[0])
            samples.append(time.perf_counter() - started_s)
            await asyncio.sleep(0)
    return statistics.median(samples) * 1e3


def _log():  # type: ignore[no-untyped-def]
    """The log of requests, into nothing: this process has a table to print."""
    from mm_gateway.api.observation.request_log import RequestLog

    return RequestLog("text", io.StringIO())
