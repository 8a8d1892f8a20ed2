"""A day's trouble in minutes: many requests, a third of them cancelled or reset at a random moment, among thousands of live streams.

    python -m benchmarks.gateway.soak [--requests 100000] [--streams 2000] [--clients 32] [--minutes 60]

It fails where a request gets an answer that it should not, a stream breaks off, the gateway does not serve afterwards, or its memory
grows: the median of the last tenth of the run may be 5 % above that of the first, after a warm-up. Writes the table `soak` of
docs/benchmarks.md. Needs about as many open files as streams (`ulimit -n`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil
import uvloop

from benchmarks.support.http import Connection
from benchmarks.support.measures import median, percentile
from benchmarks.support.servers import PORT, ServerCommand, running
from benchmarks.support.tables import DOCS, machine, markdown_table, versions, write_section

PAGE = DOCS / "benchmarks.md"
KV_CACHE_BYTES = 24 * 2**20
"""Full after the warm-up: keys and values that are kept for later prompts would go on filling gigabytes, which is no leak."""
MODELS = {
    "default_model": "tiny-chat",
    "models": {
        "mock": {"model_name": "mock", "backend": "mock"},
        "tiny-chat": {
            "model_name": "tiny-chat",
            "path": "builtin:tiny-chat",
            "device": "cpu",
            "preload": True,
            "kv_cache_bytes": KV_CACHE_BYTES,
        },
    },
}
GROWTH = 0.05
WARM_UP = 0.1
"""Share of the requests, more of them, that come first: caches and pools fill up, which is no leak."""
STREAM_TOKENS = 60
STREAM_DELAY_S = 4
"""Between two tokens of a live stream: as slow as a large model, so that two cores have time for the requests beside 2,000 of them."""
FINE = {200, 429}


def kinds(rng: random.Random) -> tuple[str, dict[str, object]]:
    """Path and body of a random request, about as large as clients send."""
    words = " ".join(rng.choices(("models", "memory", "cache", "token", "stream", "gateway", "why", "how"), k=rng.randint(3, 60)))
    model = "tiny-chat" if rng.random() < 0.2 else "mock"
    chat: dict[str, object] = {"model": model, "messages": [{"role": "user", "content": words}], "max_tokens": rng.randint(1, 16)}
    makers: list[Callable[[], tuple[str, dict[str, object]]]] = [
        lambda: ("/chat/completions", chat),
        lambda: ("/chat/completions", chat | {"stream": True}),
        lambda: ("/chat/completions", chat | {"n": 3, "logprobs": True, "top_logprobs": 5}),
        lambda: ("/chat/completions", chat | {"model": "tiny-chat", "guided_regex": "[a-z]{3,9}"}),
        lambda: ("/completions", {"model": model, "prompt": [words, words[::-1]], "max_tokens": 8, "stream": rng.random() < 0.5}),
        lambda: ("/embeddings", {"model": "mock", "input": [words] * 4}),
        lambda: ("/responses", {"model": "mock", "input": words, "store": rng.random() < 0.3}),
        lambda: (
            "/chat/completions",
            {**chat, "model": "mm-orch/chat-generate@mock", "metadata": {"session_id": f"s{rng.randint(0, 200)}"}},
        ),
    ]
    return rng.choice(makers)()


async def ask(connection: Connection, rng: random.Random) -> str:
    """One request, to its end or to a random moment of it. Returns what came of it."""
    path, body = kinds(rng)
    fate = rng.random()
    try:
        if fate < 0.1:  # reset while it waits, or in the middle of the reply
            async with asyncio.timeout(rng.expovariate(100)):
                await (await connection.post(path, msgspec.json.encode(body))).read()
            return "reset too late"
        reply = await connection.post(path, msgspec.json.encode(body))
        if fate < 0.3:  # hang up after the first bytes
            async for _ in reply.pieces():
                connection.abort()
                return "hung up"
        data = await reply.read()
    except TimeoutError:
        connection.abort()
        return "reset"
    if reply.status not in FINE:
        raise SoakError(f"{path} answered {reply.status}: {data[:300]!r}")
    if body.get("stream") and reply.status == 200 and not data.endswith(b"data: [DONE]\n\n"):
        raise SoakError(f"a stream ended with {data[-300:]!r}")
    return "whole" if reply.status == 200 else "429"


class SoakError(Exception):
    """Something that should not have been."""


async def live_stream(base_url: str, ended: asyncio.Event, complete: Counter[str]) -> None:
    """One stream after the other, as long as the run goes on."""
    content = f"!mock tokens={STREAM_TOKENS} delay={STREAM_DELAY_S}"
    body = msgspec.json.encode({"model": "mock", "stream": True, "messages": [{"role": "user", "content": content}]})
    connection = Connection(base_url)
    try:
        await asyncio.sleep(random.random() * STREAM_DELAY_S)  # not all in one moment
        while not ended.is_set():
            reply = await connection.post("/chat/completions", body)
            last = b""
            async for piece in reply.pieces():
                last = piece
                if ended.is_set():
                    return
            if reply.status != 200 or not last.endswith(b"data: [DONE]\n\n"):
                raise SoakError(f"a live stream ended with {reply.status} {last[-300:]!r}")
            complete["streams"] += 1
    finally:
        connection.close()


async def soak(
    base_url: str, pid: int, requests: int, streams: int, clients: int, seed: int, minutes: float = math.inf
) -> tuple[str, bool]:
    """(the table, whether memory stayed flat). Ends with the requests or with the minutes, whichever are over first."""
    process, ended, complete = psutil.Process(pid), asyncio.Event(), Counter[str]()
    fates = Counter[str]()
    samples: list[float] = []
    waits: list[float] = []
    every = max(1, requests // 2000)
    left = iter(range(-round(requests * WARM_UP), requests))

    async def client(number: int) -> None:
        rng, connection = random.Random(seed * 1000 + number), Connection(base_url)
        for index in left:
            if time.perf_counter() - started_s > minutes * 60:
                break
            fate = await ask(connection, rng)
            if index >= 0:
                fates[fate] += 1
                if index % every == 0:
                    samples.append(process.memory_info().rss / 2**20)
        connection.close()

    async def prober() -> None:
        while not ended.is_set():
            started_s = time.perf_counter()
            connection = Connection(base_url.removesuffix("/v1"))
            await (await connection.get("/health")).read()
            connection.close()
            waits.append(time.perf_counter() - started_s)
            await asyncio.sleep(0.1)

    started_s = time.perf_counter()
    async with asyncio.TaskGroup() as background:
        for _ in range(streams):
            background.create_task(live_stream(base_url, ended, complete))
        background.create_task(prober())
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(clients):
                    group.create_task(client(number))
        finally:
            ended.set()
    duration_s = time.perf_counter() - started_s
    tenth = max(1, len(samples) // 10)
    first, last = median(samples[:tenth]), median(samples[-tenth:])
    rows: list[list[object]] = [
        ["warm-up", f"{round(requests * WARM_UP):,} requests before the first that counts"],
        ["requests", f"{fates.total():,}, {clients} at a time"],
        ["of them", ", ".join(f"{count:,} {fate}" for fate, count in fates.most_common())],
        ["live streams", f"{streams:,} at a time, a token every {STREAM_DELAY_S} s each, {complete['streams']:,} complete, none broken"],
        ["minutes", duration_s / 60],
        ["memory, median of the first and the last tenth, MiB", f"{first:.0f}, {last:.0f} ({last / first - 1:+.1%})"],
        [
            "`GET /health`, seen from the load generator, p99 and longest, ms",
            f"{percentile(waits, 0.99) * 1e3:.0f}, {max(waits) * 1e3:.0f}",
        ],
    ]
    return markdown_table(["", ""], rows), last <= first * (1 + GROWTH)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--streams", type=int, default=2_000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--minutes", type=float, default=math.inf, help="end earlier than the requests do")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry", action="store_true", help="print instead of writing docs/benchmarks.md")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    models = args.work.resolve() / "soak.yaml"
    models.write_text(json.dumps(MODELS))
    command = (sys.executable, "-m", "mm_gateway.main", "serve", "--models", str(models), "--port", PORT)
    # The live streams, and as many clients as are asked for, have their places.
    environment = {
        "MM_GATEWAY_STORAGE_FOLDER": str(args.work.resolve() / "soak-storage"),
        "MM_GATEWAY_LIMITS_MAX_REQUESTS": str(args.streams + 2 * args.clients + 64),
        "MM_GATEWAY_LIMITS_MAX_QUEUED_REQUESTS": str(args.streams + 2 * args.clients + 64),
        "MM_GATEWAY_LIMITS_MAX_WAITING_CONNECTIONS": str(args.streams + 2 * args.clients + 64),
    }
    log = args.work.resolve() / "soak.log"
    with running(ServerCommand("mm_gateway", command, "mock", environment), log_path=log) as server:
        text, flat = uvloop.run(soak(server.base_url, server.pid, args.requests, args.streams, args.clients, args.seed, args.minutes))
    text = f"{machine()}. {versions('mm-gateway', 'uvicorn', 'litestar', 'msgspec')}.\n\n{text}"
    write_section(PAGE, "soak", text, dry=args.dry)
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())
