"""The gateway's own tax: the mock model behind it, against a bare ASGI application on the same server that sends the same bytes.

    python -m benchmarks.gateway.overhead [--quick]

Latency is measured one request at a time on a warm connection, in alternating blocks; throughput and streams with this process
as the client, on the same cores as the server. Writes the table `overhead` of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path

import msgspec
import psutil
import uvloop

from benchmarks.gateway.observing import MODELS, cost_of_observing, latencies
from benchmarks.support.http import Connection
from benchmarks.support.measures import Percentiles, ratio
from benchmarks.support.servers import PORT, ServerCommand, running
from benchmarks.support.tables import DOCS, ROOT, machine, markdown_table, versions, write_section

PAGE = DOCS / "benchmarks.md"


def _stream_body(tokens: int, delay_s: float) -> bytes:
    content = f"!mock tokens={tokens} delay={delay_s}"
    return msgspec.json.encode({"model": "mock", "stream": True, "messages": [{"role": "user", "content": content}]})


async def requests_per_s(base_url: str, path: str, clients: int, requests: int) -> float:
    connections = [Connection(base_url) for _ in range(clients)]
    await asyncio.gather(*(latencies(connection, path, 20) for connection in connections))
    started_s = time.perf_counter()
    await asyncio.gather(*(latencies(connection, path, requests // clients) for connection in connections))
    return requests // clients * clients / (time.perf_counter() - started_s)


async def streams(base_url: str, count: int, tokens: int, delay_s: float) -> tuple[int, float, float]:
    """(complete streams, chunks per second, seconds) of `count` streams at a time."""
    body = _stream_body(tokens, delay_s)

    async def one() -> tuple[bool, int]:
        connection = Connection(base_url)
        try:
            reply = await connection.post("/chat/completions", body)
            data = await reply.read()
            return data.endswith(b"data: [DONE]\n\n"), data.count(b"\n\n")
        finally:
            connection.close()

    started_s = time.perf_counter()
    results = await asyncio.gather(*(one() for _ in range(count)), return_exceptions=True)
    duration_s = time.perf_counter() - started_s
    good = [result for result in results if not isinstance(result, BaseException)]
    return sum(complete for complete, _ in good), sum(chunks for _, chunks in good) / duration_s, duration_s


async def measure(gateway_url: str, bare_url: str, pid: int, observing: list[list[object]], scale: float) -> str:
    ours, bare = Connection(gateway_url), Connection(bare_url)
    gateway_samples: list[float] = []
    bare_samples: list[float] = []
    for _ in range(10):  # alternating, so that noise meets both
        gateway_samples += await latencies(ours, "/chat/completions", round(300 * scale))
        bare_samples += await latencies(bare, "/chat/completions", round(300 * scale))
    gateway, base = Percentiles.of(gateway_samples), Percentiles.of(bare_samples)
    rate = await requests_per_s(gateway_url, "/chat/completions", 32, round(6000 * scale))
    bare_rate = await requests_per_s(bare_url, "/chat/completions", 32, round(6000 * scale))
    _, chunk_rate, _ = await streams(gateway_url, 32, round(4000 * scale), 0)
    _, bare_chunk_rate, _ = await streams(bare_url, 32, 0, 0)
    rows: list[list[object]] = [
        ["latency of a request, p50, ms", gateway.p50 * 1e3, base.p50 * 1e3, f"+{(gateway.p50 - base.p50) * 1e3:.2f} ms"],
        ["latency of a request, p99, ms", gateway.p99 * 1e3, base.p99 * 1e3, f"+{(gateway.p99 - base.p99) * 1e3:.2f} ms"],
        ["requests/s, 32 clients", rate, bare_rate, f"{ratio(rate, bare_rate):.2f}x"],
        ["SSE chunks/s, 32 streams", chunk_rate, bare_chunk_rate, f"{ratio(chunk_rate, bare_chunk_rate):.2f}x"],
    ]
    process = psutil.Process(pid)
    live_rows: list[list[object]] = []
    for count in (1, 10, 100, 1000, 1000, 1000):
        complete, rate, duration_s = await streams(gateway_url, count, 100, 0.1)
        live_rows.append([count, f"{complete} of {count}", rate, duration_s, process.memory_info().rss / 2**20])
    first = markdown_table(["", "mm_gateway, mock model", "bare ASGI, the same bytes", "difference"], rows)
    second = markdown_table(
        ["live streams, 10 tokens/s each for 10 s", "complete", "chunks/s", "seconds", "server RSS after, MiB"], live_rows
    )
    third = markdown_table(["metrics, log of requests and usage", "with them", "without", "difference"], observing)
    return f"{machine()}. {versions('mm-gateway', 'uvicorn', 'litestar', 'msgspec')}.\n\n{first}\n\n{third}\n\n{second}"


async def bare_app(scope, receive, send) -> None:
    """Sends what the gateway sends for the same request, and does nothing else."""
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    chunk = b'data: {"id":"chatcmpl-' + b"0" * 32 + b'","object":"chat.completion.chunk","created":1700000000,"model":"mock",'
    chunk += b'"system_fingerprint":"fp_mm_gateway_0.1.0","choices":[{"index":0,"delta":{"content":" words"},'
    chunk += b'"logprobs":null,"finish_reason":null}]}\n\n'
    whole = b'{"id":"' + b"0" * 600 + b'"}'
    if b'"stream"' not in body:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": whole})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    for _ in range(4000 // 64):
        # The mock's tokens come in bursts of 64 between two returns to the event loop.
        await send({"type": "http.response.body", "body": chunk * 64, "more_body": True})
        await asyncio.sleep(0)
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--quick", action="store_true", help="a tenth of the requests")
    parser.add_argument("--observing", action="store_true", help="print what metrics, log and usage cost, and nothing else")
    parser.add_argument("--dry", action="store_true", help="print instead of writing docs/benchmarks.md")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    models = args.work.resolve() / "mock.yaml"
    models.write_text(json.dumps(MODELS))
    serve = ("serve", "--models", str(models), "--port", PORT)
    gateway = ServerCommand("mm_gateway", (sys.executable, "-m", "mm_gateway.main", *serve), "mock")
    unobserved = ServerCommand("unobserved", (sys.executable, "-m", "benchmarks.gateway.unobserved", *serve), "mock")
    uvicorn = (
        sys.executable,
        "-m",
        "uvicorn",
        "benchmarks.gateway.overhead:bare_app",
        "--app-dir",
        str(ROOT),
        "--port",
        PORT,
        "--log-level",
        "error",
    )
    scale = 0.1 if args.quick else 1.0
    with running(gateway) as ours, running(unobserved) as without:
        observing = uvloop.run(cost_of_observing(ours, without, scale))
    if args.observing:
        print(markdown_table(["", "with", "without", "difference"], observing))
        return 0
    with running(gateway) as ours, running(ServerCommand("bare", uvicorn, "mock")) as bare:
        text = uvloop.run(measure(ours.base_url, bare.base_url, ours.pid, observing, scale))
    write_section(PAGE, "overhead", text, dry=args.dry)
    return 0


if __name__ == "__main__":
    sys.exit(main())
