"""Ray's tax and gain: the mock model in this gateway's process and in replicas on a Ray cluster of several node processes.

    python -m benchmarks.fleet.ray_serving [--part NAME] [--dry]

Latency and streams are measured in alternating blocks, one client at a time; throughput with more streams than one replica takes; loads
with more models than one replica holds.
Then a replica, a node, the cluster, and an ingress are killed amid 200 streams. Needs the environment `ray` of `make compat`. Writes the
tables of docs/ray.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import msgspec

from benchmarks.support.http import Connection
from benchmarks.support.measures import Percentiles, ratio
from benchmarks.support.servers import PORT, ServerCommand, free_port, running
from benchmarks.support.tables import DOCS, machine, markdown_table, versions, write_section
from compat_tests.support.gateways import environment
from compat_tests.support.ray_cluster import INGRESS, REPLICA, RayCluster, metrics, outcomes, ray_environment, ray_gateway

PAGE = DOCS / "ray.md"
MODELS: dict[str, object] = {"mock": {"model_name": "mock", "backend": "mock"}}
PLACE = {"memory_bytes": "300MiB", "num_cpus": 0.5}
STREAM_TOKENS = 2000
PLACES = 8
"""Requests that a replica takes in the measurement of throughput, of 20 tokens at 100 ms each: at best 4 requests/s for a replica."""


MODELS_OF_ZIPF = 6
REQUESTS_OF_ZIPF = 300
"""One after the other from each of two clients; how often a model is asked falls as 1 / its rank."""


def body(text: str, *, stream: bool = False) -> bytes:
    return msgspec.json.encode({"model": "mock", "stream": stream, "messages": [{"role": "user", "content": text}]})


async def latencies(connection: Connection, count: int) -> list[float]:
    """Seconds of each of `count` whole replies of one token, one after the other."""
    samples = []
    for _ in range(count):
        started_s = time.perf_counter()
        await (await connection.post("/chat/completions", body("!mock tokens=1"))).read()
        samples.append(time.perf_counter() - started_s)
    return samples


async def seconds_per_token(connection: Connection, delay_s: float) -> float:
    """Of one stream, from its request to its end."""
    tokens = STREAM_TOKENS if not delay_s else 200
    started_s = time.perf_counter()
    reply = await connection.post("/chat/completions", body(f"!mock tokens={tokens} delay={delay_s}", stream=True))
    assert (await reply.read()).count(b"data: {") >= tokens
    return (time.perf_counter() - started_s) / tokens


async def tax(urls: dict[str, str]) -> str:
    connections = {name: Connection(url) for name, url in urls.items()}
    requests: dict[str, list[float]] = {name: [] for name in urls}
    streams: dict[float, dict[str, list[float]]] = {delay_s: {name: [] for name in urls} for delay_s in (0, 0.002)}
    for _ in range(6):  # alternating, so that noise meets all
        for name, connection in connections.items():
            requests[name] += await latencies(connection, 50)
            for delay_s, samples in streams.items():
                samples[name].append(await seconds_per_token(connection, delay_s))
    base, rows = next(iter(urls)), []
    for name in urls:
        one = Percentiles.of(requests[name])
        fast, paced = (Percentiles.of(streams[delay_s][name]).p50 for delay_s in streams)
        slower = [ratio(one.p50, Percentiles.of(requests[base]).p50), ratio(fast, Percentiles.of(streams[0][base]).p50)]
        slower.append(ratio(paced, Percentiles.of(streams[0.002][base]).p50))
        cells: list[object] = [
            name,
            f"{one.p50 * 1e3:.1f}",
            f"{one.p99 * 1e3:.1f}",
            f"{slower[0]:.1f}x",
            f"{fast * 1e6:.0f}",
            f"{slower[1]:.1f}x",
        ]
        rows.append([*cells, f"{paced * 1e3:.2f}", f"{slower[2]:.2f}x"])
    head = ["", "request, p50 ms", "p99 ms", "ratio", "token without a delay, µs", "ratio", "token with 2 ms each, ms", "ratio"]
    return markdown_table(head, rows)


async def throughput(cluster: RayCluster, work: Path) -> str:
    rows: list[list[object]] = []
    for replicas in (1, 2, 4):
        settings = {**PLACE, "min_replicas": replicas, "max_replicas": replicas, "max_requests": PLACES}
        with ray_gateway(work / f"of-{replicas}", MODELS, cluster.address, settings) as gateway:
            await outcomes(gateway.address, 40, tokens=5, delay_s=0)
            count = 6 * PLACES * replicas
            started_s = time.perf_counter()
            seen = await outcomes(gateway.address, count, tokens=20, delay_s=0.1)
            assert seen == {"whole": count}, seen
            rate = count / (time.perf_counter() - started_s)
        rows.append([replicas, f"{rate:.1f}", f"{rate * 20:.0f}", f"{rate / float(str(rows[0][1])) if rows else 1:.2f}x"])
    return markdown_table(["replicas", "requests/s", "tokens/s", "ratio"], rows)


async def loads(cluster: RayCluster, work: Path) -> str:
    """Of models that do not all fit into a replica's memory, by routing; conversations that differ go anywhere where it is by prefix."""
    models = {f"tiny-{n}": {"model_name": f"tiny-{n}", "path": "builtin:tiny-chat", "device": "cpu"} for n in range(MODELS_OF_ZIPF)}
    order = random.Random(0).choices(list(models), [1 / (rank + 1) for rank in range(len(models))], k=REQUESTS_OF_ZIPF)
    rows: list[list[object]] = []
    for routing, text in (("least-loaded", "where the model was used last"), ("prefix", "by conversation, each a new one")):
        settings = {**PLACE, "memory_bytes": "1GiB", "min_replicas": 2, "max_replicas": 2, "routing": routing}
        memory = {"max_cached_models": MODELS_OF_ZIPF // 2}
        with ray_gateway(work / f"loads-{routing}", models, cluster.address, settings, memory=memory) as gateway:
            numbered, samples = iter(enumerate(order)), list[float]()

            async def client(
                address: str = gateway.address, left: Iterator[tuple[int, str]] = numbered, took: list[float] = samples
            ) -> None:
                async with httpx.AsyncClient(timeout=120) as http:
                    for number, model in left:
                        question = {"model": model, "max_tokens": 8, "messages": [{"role": "user", "content": f"{number}: hello"}]}
                        started_s = time.perf_counter()
                        (await http.post(f"{address}/v1/chat/completions", json=question)).raise_for_status()
                        took.append(time.perf_counter() - started_s)

            await asyncio.gather(*(client() for _ in range(2)))
            loaded = sum(value for _, value in await asyncio.to_thread(metrics, gateway, "mm_gateway_replica_model_loads_total"))
        measured = Percentiles.of(samples)
        rows.append([text, f"{100 * loaded / len(order):.1f}", f"{measured.p50 * 1e3:.0f}", f"{measured.p99 * 1e3:.0f}"])
    return markdown_table(["requests go", "loads of a model per 100 requests", "request, p50 ms", "p99 ms"], rows)


async def killed(address: str, kill: Callable[[], object]) -> tuple[Counter[str], Counter[str]]:
    """What 200 clients saw whose streams ran when something died, and 200 that asked right after."""
    streams = asyncio.create_task(outcomes(address, 200, tokens=80, delay_s=0.1))
    await asyncio.sleep(4)
    await asyncio.to_thread(kill)
    return await streams, await outcomes(address, 200, tokens=5, delay_s=0.01)


async def chaos(cluster: RayCluster, work: Path) -> str:
    rows: list[list[object]] = []

    def row(what: str, seen: tuple[Counter[str], Counter[str]]) -> None:
        rows.append([what, *(", ".join(f"{count} {name}" for name, count in part.most_common()) for part in seen)])

    settings = {**PLACE, "min_replicas": 4, "max_replicas": 4}
    with ray_gateway(work / "chaos", MODELS, cluster.address, settings) as gateway:
        await outcomes(gateway.address, 40, tokens=5, delay_s=0)
        row("one replica of four", await killed(gateway.address, lambda: cluster.processes(REPLICA)[0].kill()))
        row("a node of three", await killed(gateway.address, lambda: cluster.order("remove")))
        row("the whole cluster", await killed(gateway.address, cluster.kill))
    return markdown_table(["killed amid 200 streams", "these saw", "200 right after"], rows)


async def chaos_of_ingress(work: Path) -> str:
    cluster = RayCluster(2)
    try:
        with_ingress = deployed(cluster, work)
        await outcomes(with_ingress, 40, tokens=5, delay_s=0)
        seen = await killed(with_ingress, lambda: cluster.processes(INGRESS)[0].kill())
    finally:
        cluster.stop()
    cells = [", ".join(f"{count} {name}" for name, count in part.most_common()) for part in seen]
    return markdown_table(["killed amid 200 streams", "these saw", "200 right after"], [["one ingress of two", *cells]])


def deployed(cluster: RayCluster, work: Path) -> str:
    """Address of the application that `serve deploy` deploys."""
    port = free_port()
    (work / "models.yaml").write_text(json.dumps({"models": MODELS}))
    (work / "gateway.yaml").write_text(json.dumps({"ray": {**PLACE, "min_replicas": 2, "max_replicas": 2, "ingress_replicas": 2}}))
    command = [environment("ray"), "-m", "compat_tests.support.ray_deploy", cluster.address, str(port), str(work)]
    subprocess.run(command, env=ray_environment(), check=True, capture_output=True, timeout=180)
    return f"http://127.0.0.1:{port}"


async def tax_on_cluster(work: Path) -> str:
    (work / "mock.yaml").write_text(json.dumps({"models": MODELS}))
    alone = ServerCommand(
        "", (sys.executable, "-m", "mm_gateway.main", "serve", "--models", str(work / "mock.yaml"), "--port", PORT), "mock"
    )
    first, second = RayCluster(1), RayCluster(1)
    try:
        with running(alone) as base, ray_gateway(work / "tax", MODELS, first.address, PLACE) as ray:
            application = await asyncio.to_thread(deployed, second, work)
            urls = {"mm-gateway serve": base.base_url, "serve --ray": f"{ray.address}/v1", "serve deploy": f"{application}/v1"}
            return await tax(urls)
    finally:
        first.stop()
        second.stop()


async def on_cluster(work: Path, measure: Callable[[RayCluster, Path], Awaitable[str]]) -> str:
    cluster = await asyncio.to_thread(RayCluster, 3)
    try:
        return await measure(cluster, work)
    finally:
        cluster.stop()


async def main(parts: list[str], work: Path) -> str:
    measures: dict[str, Callable[[], Awaitable[str]]] = {
        "tax": lambda: tax_on_cluster(work),
        "throughput": lambda: on_cluster(work, throughput),
        "loads": lambda: on_cluster(work, loads),
        "chaos": lambda: on_cluster(work, chaos),
        "ingress": lambda: chaos_of_ingress(work),
    }
    text = f"{machine()}. {versions('mm-gateway')}, Ray 2.60.0."
    for part in parts or measures:
        text += f"\n\n{await measures[part]()}"
        print(text, flush=True)
    return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--part", action="append", choices=["tax", "throughput", "loads", "chaos", "ingress"], help="may be repeated; default: all"
    )
    parser.add_argument("--work", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--dry", action="store_true", help="print instead of writing docs/ray.md")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    text = asyncio.run(main(args.part or [], args.work.resolve()))
    if not args.dry:
        write_section(PAGE, "ray", text)
