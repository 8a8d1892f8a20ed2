"""What a group adds to a request: the mock behind a gateway, alone and as two members of a group, in this process and on another server.

    python -m benchmarks.fleet.group_overhead [--quick] [--dry]

Latency is measured on a warm connection, a request alone and one to the group in turn, of which the differences are taken in pairs;
throughput with this process as the client, on the same cores as the servers. Writes the table `group-overhead` of docs/scaling.md.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

import msgspec
import uvloop

from benchmarks.support.http import Connection
from benchmarks.support.measures import median, ratio
from benchmarks.support.servers import gateway_of, running
from benchmarks.support.tables import DOCS, machine, markdown_table, versions, write_section

PAGE = DOCS / "scaling.md"
PAIRS = (
    ("a model of this process", "mock", "group-of-mocks"),
    ("a model of another server", "far", "group-of-far"),
    ("the same, `prefix-aware`", "far", "prefix-aware"),
)


def _body(model: str, tokens: int, *, stream: bool = False) -> bytes:
    messages = [{"role": "system", "content": "Be brief. " * 50}, {"role": "user", "content": f"!mock tokens={tokens}"}]
    return msgspec.json.encode({"model": model, "messages": messages, "stream": stream})


def _models(back_url: str) -> dict[str, object]:
    mock = {"model_name": "mock", "backend": "mock"}
    far = {"model_name": "mock", "backend": "remote", "base_url": back_url}
    return {
        "mock": mock,
        "mock-2": mock,
        "group-of-mocks": {"backend": "group", "members": ["mock", "mock-2"]},
        "far": far,
        "far-2": far,
        "group-of-far": {"backend": "group", "members": ["far", "far-2"]},
        "prefix-aware": {"backend": "group", "members": ["far", "far-2"], "strategy": "prefix-aware"},
    }


async def latency(connection: Connection, body: bytes) -> float:
    """Seconds of one exchange."""
    started_s = time.perf_counter()
    await (await connection.post("/chat/completions", body)).read()
    return time.perf_counter() - started_s


async def chunks_per_s(base_url: str, model: str, streams: int, tokens: int) -> float:
    async def one() -> int:
        connection = Connection(base_url)
        try:
            return (await (await connection.post("/chat/completions", _body(model, tokens, stream=True))).read()).count(b"\n\n")
        finally:
            connection.close()

    started_s = time.perf_counter()
    return sum(await asyncio.gather(*(one() for _ in range(streams)))) / (time.perf_counter() - started_s)


async def measure(url: str, scale: float) -> str:
    connection = Connection(url)
    rows: list[list[object]] = []
    for name, alone, group in PAIRS:
        bodies = (_body(alone, 16), _body(group, 16))
        pairs = [[await latency(connection, body) for body in bodies] for _ in range(round(2000 * scale))]
        before, after = (median([pair[side] for pair in pairs]) for side in (0, 1))
        difference = median([pair[1] - pair[0] for pair in pairs])
        rates = [[await chunks_per_s(url, model, 16, round(500 * scale)) for model in (alone, group)] for _ in range(10)]
        rate = median([ratio(in_group, by_itself) for by_itself, in_group in rates])
        rows.append([name, before * 1e3, after * 1e3, f"{difference * 1e3:+.3f} ms", f"{rate:.2f}x"])
    head = [
        "two members that are",
        "p50 of a request alone, ms",
        "to the group, ms",
        "p50 of the difference",
        "chunks/s of 16 streams, group / alone",
    ]
    return f"{machine()}. {versions('mm-gateway', 'uvicorn', 'litestar', 'httpx')}.\n\n{markdown_table(head, rows)}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--quick", action="store_true", help="a tenth of the requests")
    parser.add_argument("--dry", action="store_true", help="print instead of writing docs/scaling.md")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)

    with (
        running(gateway_of("back", {"mock": {"model_name": "mock", "backend": "mock"}}, args.work)) as back,
        running(gateway_of("front", _models(back.base_url), args.work)) as front,
    ):
        text = uvloop.run(measure(front.base_url, 0.1 if args.quick else 1.0))
    write_section(PAGE, "group-overhead", text, dry=args.dry)
    return 0


if __name__ == "__main__":
    sys.exit(main())
