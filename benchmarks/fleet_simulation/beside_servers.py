"""The simulation beside real gateways: the same requests, at the same times, to a group of mocks behind gateways of their own.

    python -m benchmarks.fleet_simulation.beside_servers [--servers 3] [--seconds 300] [--dry]

Each server answers four requests at a time (`max_requests` of its member), a token every 2 s, so that the group's line is what
requests wait in. Replies take seconds, so that what the gateways and a machine that does other work add is small beside them.
Writes the table `fleet-servers` of docs/fleet.md.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from random import Random

import msgspec
import uvloop

from benchmarks._http import Connection
from benchmarks._measures import Percentiles
from benchmarks._servers import gateway_of, running
from benchmarks._tables import machine, markdown_table, versions, write_section
from benchmarks.fleet_simulation.clock import Clock
from benchmarks.fleet_simulation.fleet import Fleet
from benchmarks.fleet_simulation.replica import Listener, Replica
from benchmarks.fleet_simulation.workload import Turn
from mm_gateway.configuration.group_settings import GroupMember, GroupRouting

PAGE = Path(__file__).parent.parent.parent / "docs" / "fleet.md"
TOKEN_S, MEAN_TOKENS, AT_ONCE, MAX_WAIT_S = 2.0, 5, 4, 600.0

Asked = tuple[float, int]
"""When a request is sent, in seconds, and the tokens of its reply."""


def requests_of(servers: int, load: float, seconds: float, seed: int) -> list[Asked]:
    """Poisson arrivals; lengths are exponential, so that some are many times the mean."""
    random, at = Random(seed), 0.0
    found: list[Asked] = []
    while at < seconds:
        at += random.expovariate(servers * AT_ONCE * load / (TOKEN_S * MEAN_TOKENS))
        found.append((at, 1 + int(random.expovariate(1 / MEAN_TOKENS))))
    return found


class TimedServer(Replica):
    """What the mock is: each request takes the time of its tokens, whatever else runs."""

    def __init__(self, name: str, clock: Clock, told: Listener) -> None:
        self.name, self.alive = name, True
        self._clock, self._told = clock, told

    def submit(self, turn: Turn) -> None:
        self._clock.after(TOKEN_S, partial(self._told.began, turn))
        self._clock.after(TOKEN_S * turn.output, partial(self._told.done, turn))


def simulated(asked: Sequence[Asked], servers: int, strategy: str, seed: int) -> list[float]:
    """Seconds to the first token of each."""
    clock = Clock()
    members = [GroupMember(name=f"server-{number}", max_requests=AT_ONCE) for number in range(servers)]
    fleet = Fleet(clock, lambda key: members, strategy, Random(seed), routing=GroupRouting(max_wait_s=MAX_WAIT_S))
    fleet.replicas |= {member.name: TimedServer(member.name, clock, fleet) for member in members}
    for number, (at, tokens) in enumerate(asked):
        clock.at(at, partial(fleet.ask, Turn(0, number, 0, 1, tokens, at)))
    clock.run()
    assert not fleet.outcome.lost
    return fleet.outcome.first_token_s


async def measured(asked: Sequence[Asked], base_url: str, model: str) -> list[float]:
    """Seconds to the first token of each, from when it was sent."""
    began = time.perf_counter() + 1.0

    async def one(at: float, tokens: int) -> float:
        await asyncio.sleep(began + at - time.perf_counter())
        sent = time.perf_counter()
        connection = Connection(base_url)
        text = f"!mock tokens={tokens} delay={TOKEN_S}"
        body = {"model": model, "messages": [{"role": "user", "content": text}], "stream": True, "max_tokens": tokens + 1}
        try:
            reply = await connection.post("/chat/completions", msgspec.json.encode(body))
            assert reply.status == 200, await reply.read()
            seen, first_s = b"", float("nan")
            async for piece in reply.pieces():
                seen = seen[-40:] + piece
                if first_s != first_s and b'"content":"' in seen.replace(b'"content":""', b"").replace(b" ", b""):
                    first_s = time.perf_counter() - sent
            return first_s
        finally:
            connection.close()

    return list(await asyncio.gather(*(one(at, tokens) for at, tokens in asked)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--servers", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=300.0, help="for which requests come, a strategy and load")
    parser.add_argument("--dry", action="store_true", help="print instead of writing docs/fleet.md")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)

    mock = {"mock": {"model_name": "mock", "backend": "mock"}}
    rows: list[list[object]] = []
    with ExitStack() as stack:
        backs = [stack.enter_context(running(gateway_of(f"back-{number}", mock, args.work))) for number in range(args.servers)]
        models: dict[str, object] = {
            f"server-{number}": {"model_name": "mock", "backend": "remote", "base_url": back.base_url} for number, back in enumerate(backs)
        }
        members = [{"name": name, "max_requests": AT_ONCE} for name in models]
        strategies = ("least-loaded",)
        models |= {
            strategy: {"backend": "group", "members": members, "strategy": strategy, "routing": {"max_wait_s": MAX_WAIT_S}}
            for strategy in strategies
        }
        front = stack.enter_context(running(gateway_of("front", models, args.work)))
        for load in (0.6, 0.85):
            for strategy in strategies:
                asked = requests_of(args.servers, load, args.seconds, seed=1)
                there = Percentiles.of(uvloop.run(measured(asked, front.base_url, strategy)))
                here = Percentiles.of(simulated(asked, args.servers, strategy, seed=1))
                cells = [value for pair in ((here.p50, there.p50), (here.p95, there.p95), (here.p99, there.p99)) for value in pair]
                rows.append([strategy, load, len(asked), *cells])
                print(rows[-1], flush=True)
    head = ["strategy", "load", "requests"]
    head += [f"{share}, {where}, s" for share in ("p50", "p95", "p99") for where in ("simulated", "measured")]
    text = f"{machine()}. {versions('mm-gateway', 'uvicorn')}.\n\n{markdown_table(head, rows)}"
    if args.dry:
        print(text)
    else:
        write_section(PAGE, "fleet-servers", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
