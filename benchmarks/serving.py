"""Drives any OpenAI-compatible address with a stated workload and prints its throughput and latencies, as the clients see them.

    python -m benchmarks.serving --base-url http://127.0.0.1:8000/v1 --model gpt2 --clients 16 --requests 64

Measured in this process, which shares the machine with a local server (its own CPU share is printed): output tokens per second and
requests per second from the first request's start to the last one's end; time to first token (TTFT), from sending a request to the first
piece of text; inter-token latency, the gaps between pieces of text of one stream. Tokens are those of the server's `usage`; where
it sends none, pieces of text are counted and the report says so.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import sys
import time
from dataclasses import dataclass, field

import msgspec
import uvloop

from benchmarks.support.http import Connection, EventSplitter
from benchmarks.support.measures import Percentiles
from benchmarks.support.workload import Workload


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: msgspec.Raw | None = None


@dataclass
class Exchange:
    """One request as its client saw it; times in seconds on one monotonic clock.

    Attributes:
        text_s: when each piece of text arrived. tokens: as `usage` says, None where it was not sent. error: None for a complete reply.
    """

    started_s: float
    ended_s: float = 0.0
    text_s: list[float] = field(default_factory=list)
    prompt_tokens: int | None = None
    tokens: int | None = None
    finished: bool = False
    error: str | None = None

    def take(self, event: bytes, now_s: float) -> None:
        """Account for one event of the stream."""
        if event == b"[DONE]":
            return
        chunk = msgspec.json.decode(event, type=_Chunk)
        if chunk.error is not None:
            self.error = bytes(chunk.error).decode()[:200]
        for choice in chunk.choices:
            if choice.text or (choice.delta is not None and choice.delta.content):
                self.text_s.append(now_s)
            self.finished = self.finished or choice.finish_reason is not None
        if chunk.usage is not None and chunk.usage.completion_tokens:
            self.prompt_tokens, self.tokens = chunk.usage.prompt_tokens, chunk.usage.completion_tokens


@dataclass(frozen=True)
class Report:
    """What one workload measured; latencies in seconds.

    Attributes:
        prompt_tokens, output_tokens: of all complete requests. counted_by: `usage` or `pieces`.
        client_cpu: CPU seconds that this process took per second of the run.
    """

    workload: Workload
    duration_s: float
    complete: int
    errors: dict[str, int]
    prompt_tokens: int
    output_tokens: int
    counted_by: str
    ttft: Percentiles
    inter_token: Percentiles
    client_cpu: float

    @property
    def tokens_per_s(self) -> float:
        return self.output_tokens / self.duration_s

    @property
    def requests_per_s(self) -> float:
        return self.complete / self.duration_s

    def as_json(self) -> dict[str, object]:
        return {**dataclasses.asdict(self), "tokens_per_s": self.tokens_per_s, "requests_per_s": self.requests_per_s}

    def __str__(self) -> str:
        w = self.workload
        lines = [
            f"{w.clients} clients, {w.requests} requests of {w.prompt_tokens} + {w.output_tokens} tokens"
            f" ({w.shared_prefix} shared), {w.endpoint}, greedy, streamed",
            f"complete          {self.complete} of {w.requests} in {self.duration_s:.2f} s",
            f"throughput        {self.tokens_per_s:.1f} output tok/s, {self.requests_per_s:.2f} requests/s",
            f"tokens            {self.prompt_tokens} prompt, {self.output_tokens} output (counted by {self.counted_by})",
            f"time to first     {self.ttft.milliseconds()}",
            f"inter-token       {self.inter_token.milliseconds()}",
            f"this client       {self.client_cpu:.0%} of one CPU",
        ]
        return "\n".join(lines + [f"error             {count} x {error}" for error, count in self.errors.items()])


async def run(workload: Workload, base_url: str, model: str, api_key: str | None = None, timeout_s: float = 600.0) -> Report:
    """Warm up, then run the workload. Failed requests are counted, never raised."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    connections = [Connection(base_url, headers) for _ in range(workload.clients)]
    try:
        await _loop(workload, model, connections, iter(range(-workload.warmup, 0)), timeout_s)
        cpu_s, started_s = time.process_time(), time.perf_counter()
        exchanges = await _loop(workload, model, connections, iter(range(workload.requests)), timeout_s)
        duration_s = time.perf_counter() - started_s
        return summarize(workload, exchanges, duration_s, (time.process_time() - cpu_s) / duration_s)
    finally:
        for connection in connections:
            connection.close()


async def _loop(workload: Workload, model: str, connections: list[Connection], indices, timeout_s: float) -> list[Exchange]:
    exchanges: list[Exchange] = []

    async def client(connection: Connection) -> None:
        for index in indices:  # one iterator for all clients: whoever is free takes the next request
            body = workload.body(index, model)
            exchange = Exchange(time.perf_counter())
            try:
                async with asyncio.timeout(timeout_s):
                    await _exchange(connection, workload.path, body, exchange)
            except (OSError, TimeoutError, EOFError, ValueError) as error:
                exchange.error = f"{type(error).__name__}: {error}"
                connection.close()
            exchange.ended_s = time.perf_counter()
            exchanges.append(exchange)

    await asyncio.gather(*(client(connection) for connection in connections))
    return exchanges


async def _exchange(connection: Connection, path: str, body: bytes, exchange: Exchange) -> None:
    reply = await connection.post(path, body)
    if reply.status != 200:
        exchange.error = f"HTTP {reply.status}: {(await reply.read())[:200].decode(errors='replace')}"
        return
    splitter = EventSplitter()
    async for piece in reply.pieces():
        now_s = time.perf_counter()
        for event in splitter.feed(piece):
            exchange.take(event, now_s)
    if not exchange.finished and exchange.error is None:
        exchange.error = "the stream ended without a finish_reason"


def summarize(workload: Workload, exchanges: list[Exchange], duration_s: float, client_cpu: float) -> Report:
    """Fold exchanges into a report; only complete ones count for tokens and latencies."""
    errors: dict[str, int] = {}
    for exchange in exchanges:
        if exchange.error is not None:
            errors[exchange.error] = errors.get(exchange.error, 0) + 1
    complete = [exchange for exchange in exchanges if exchange.error is None]
    by_usage = all(exchange.tokens is not None for exchange in complete)
    gaps = [later - earlier for e in complete for earlier, later in zip(e.text_s, e.text_s[1:], strict=False)]
    return Report(
        workload=workload,
        duration_s=duration_s,
        complete=len(complete),
        errors=errors,
        prompt_tokens=sum(exchange.prompt_tokens or 0 for exchange in complete),
        output_tokens=sum(len(e.text_s) if e.tokens is None else e.tokens for e in complete),
        counted_by="usage" if by_usage else "pieces",
        ttft=Percentiles.of([exchange.text_s[0] - exchange.started_s for exchange in complete if exchange.text_s]),
        inter_token=Percentiles.of(gaps),
        client_cpu=client_cpu,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", default="http://127.0.0.1:8000/v1", help="address up to and including /v1")
    parser.add_argument("--model", required=True)
    parser.add_argument("--api-key-env", help="environment variable that holds the server's key")
    parser.add_argument("--timeout-s", type=float, default=600.0, help="per request")
    parser.add_argument("--endpoint", choices=("chat", "completions"), default="chat")
    parser.add_argument("--ignore-eos", action="store_true")
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")
    defaults = {f.name: f.default for f in dataclasses.fields(Workload) if isinstance(f.default, int) and not isinstance(f.default, bool)}
    for name, default in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default, help=f"default: {default}")
    args = parser.parse_args()
    try:
        workload = Workload(endpoint=args.endpoint, ignore_eos=args.ignore_eos, **{name: getattr(args, name) for name in defaults})
    except ValueError as error:
        parser.error(str(error))
    api_key = os.environ[args.api_key_env] if args.api_key_env else None
    report = uvloop.run(run(workload, args.base_url, args.model, api_key, args.timeout_s))
    print(json.dumps(report.as_json()) if args.json else report)
    return 0 if report.complete == workload.requests else 1


if __name__ == "__main__":
    sys.exit(main())
