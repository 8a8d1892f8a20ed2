"""The simulation beside real gateways: the same requests, at the same times, to a group whose members are mocks behind gateways.

    python -m benchmarks.fleet.simulation.beside_servers [--servers 3] [--seconds 300] [--token-s 2] [--dry]

Each server answers four requests at a time (`max_requests` of its member), a token every two seconds, so that the group's line is what
requests wait in. It is simulated twice: with the time that replies should take, and with the time for which each one did hold its place,
since a machine that does other work wakes those late who sleep. Writes the table `fleet-servers` of docs/fleet.md.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Hashable, Mapping, Sequence
from contextlib import ExitStack, aclosing
from functools import partial
from pathlib import Path
from random import Random
from typing import cast

import uvloop

from benchmarks.fleet.simulation.clock import Clock
from benchmarks.fleet.simulation.fleet import Fleet
from benchmarks.fleet.simulation.replica import Listener, Replica
from benchmarks.fleet.simulation.workload import Turn
from benchmarks.support.measures import Percentiles
from benchmarks.support.servers import gateway_of, running
from benchmarks.support.tables import DOCS, machine, markdown_table, versions, write_section
from mm_gateway.backends.groups.backend import Group
from mm_gateway.backends.upstream.backend import RemoteBackend
from mm_gateway.configuration.group_settings import GroupMember, GroupRouting
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.core import ChatInput, GenerationConfig, GenerationEvent, GenerationRequest, Message, TextDelta

PAGE = DOCS / "fleet.md"
MEAN_TOKENS, AT_ONCE, MAX_WAIT_S = 5, 4, 600.0

Asked = tuple[float, int]
"""When a request is sent, in seconds, and the tokens of its reply."""


def requests_of(servers: int, load: float, seconds: float, token_s: float, seed: int) -> list[Asked]:
    """Poisson arrivals; lengths are exponential, so that some are many times the mean."""
    random, at = Random(seed), 0.0
    found: list[Asked] = []
    while at < seconds:
        at += random.expovariate(servers * AT_ONCE * load / (token_s * MEAN_TOKENS))
        found.append((at, 1 + int(random.expovariate(1 / MEAN_TOKENS))))
    return found


def members_of(servers: int) -> tuple[GroupMember, ...]:
    return tuple(GroupMember(name=f"server-{number}", max_requests=AT_ONCE) for number in range(servers))


class TimedServer(Replica):
    """What the mock is: each request takes its time, whatever else runs. took: of each by its number, to the first token and to the end."""

    def __init__(self, name: str, clock: Clock, told: Listener, took: Sequence[tuple[float, float]]) -> None:
        self.name, self.alive = name, True
        self._clock, self._told, self._took = clock, told, took

    def holds(self, key: Hashable) -> bool:
        return True

    def submit(self, turn: Turn) -> None:
        first_s, whole_s = self._took[turn.conversation]
        self._clock.after(first_s, partial(self._told.began, turn))
        self._clock.after(whole_s, partial(self._told.done, turn))


def simulated(asked: Sequence[Asked], servers: int, took: Sequence[tuple[float, float]]) -> list[float]:
    """Seconds to the first token of each. took: as for `TimedServer`."""
    clock = Clock()
    routing = GroupRouting(max_wait_s=MAX_WAIT_S)
    members = members_of(servers)
    fleet = Fleet(clock, lambda key: members, "least-loaded", Random(1), routing=routing)
    fleet.replicas |= {member.name: TimedServer(member.name, clock, fleet, took) for member in members}
    for number, (at, tokens) in enumerate(asked):
        clock.at(at, partial(fleet.ask, Turn(0, number, 0, 1, tokens, at)))
    clock.run()
    assert not fleet.outcome.lost
    return fleet.outcome.first_token_s


class Watched(RemoteBackend):
    """A gateway behind the group. took: of each request by its id, seconds from when it was sent there to its first token and its end."""

    def __init__(self, name: str, config: ModelConfig, took: dict[str, tuple[float, float]]) -> None:
        super().__init__(name, config, 0)
        self._took = took

    async def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        began, first_s = time.perf_counter(), float("nan")
        async with aclosing(cast("AsyncGenerator[GenerationEvent]", super().generate(request))) as events:
            async for event in events:
                if first_s != first_s and isinstance(event, TextDelta):
                    first_s = time.perf_counter() - began
                yield event
        self._took[request.request_id] = first_s, time.perf_counter() - began


async def measured(asked: Sequence[Asked], urls: Sequence[str], token_s: float) -> tuple[list[float], list[tuple[float, float]]]:
    """Seconds to the first token of each, from when it was sent; and what it took at its server, as `simulated` wants it."""
    took: dict[str, tuple[float, float]] = {}
    members = members_of(len(urls))
    backends: Mapping[str, Watched] = {
        member.name: Watched(member.name, ModelConfig(model_name="mock", backend="remote", base_url=url), took)
        for member, url in zip(members, urls, strict=True)
    }
    config = ModelConfig(model_name="all", backend="group", members=members, routing=GroupRouting(max_wait_s=MAX_WAIT_S))
    group = Group("all", config, backends, 0)
    began = time.perf_counter() + 1.0

    async def one(number: int, at: float, tokens: int) -> float:
        await asyncio.sleep(began + at - time.perf_counter())
        sent, first_s = time.perf_counter(), float("nan")
        said = ChatInput((Message("user", f"!mock tokens={tokens} delay={token_s}"),))
        request = GenerationRequest(request_id=str(number), model="all", input=said, config=GenerationConfig(max_new_tokens=tokens + 1))
        async for event in group.generate(request):
            if first_s != first_s and isinstance(event, TextDelta):
                first_s = time.perf_counter() - sent
        return first_s

    try:
        waited = await asyncio.gather(*(one(number, at, tokens) for number, (at, tokens) in enumerate(asked)))
        return list(waited), [took[str(number)] for number in range(len(asked))]
    finally:
        await group.close()
        for backend in backends.values():
            await backend.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--servers", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=300.0, help="for which requests come, a load")
    parser.add_argument("--token-s", type=float, default=2.0, help="seconds that a token takes")
    parser.add_argument("--dry", action="store_true", help="print instead of writing docs/fleet.md")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)

    mock = {"mock": {"model_name": "mock", "backend": "mock"}}
    rows: list[list[object]] = []
    with ExitStack() as stack:
        backs = [stack.enter_context(running(gateway_of(f"back-{number}", mock, args.work))) for number in range(args.servers)]
        for load in (0.6, 0.85):
            asked = requests_of(args.servers, load, args.seconds, args.token_s, seed=1)
            first_s, took = uvloop.run(measured(asked, [back.base_url for back in backs], args.token_s))
            should = [(args.token_s, args.token_s * tokens) for _, tokens in asked]
            for what, found in (
                ("simulated, replies as long as they should be", simulated(asked, args.servers, should)),
                ("simulated, replies as long as they were", simulated(asked, args.servers, took)),
                ("measured", first_s),
            ):
                at = Percentiles.of(found)
                rows.append([load, len(asked), what, at.p50, at.p95, at.p99])
                print(rows[-1], flush=True)
    text = f"{machine()}. {versions('mm-gateway', 'uvicorn')}.\n\n"
    text += markdown_table(["load", "requests", "time to the first token", "p50, s", "p95, s", "p99, s"], rows)
    write_section(PAGE, "fleet-servers", text, dry=args.dry)
    return 0


if __name__ == "__main__":
    sys.exit(main())
