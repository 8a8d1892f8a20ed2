"""What it is worth to know who holds a model: the same requests, at the same times, to gateways whose models do not fit.

    python -m benchmarks.fleet.simulation.warm_servers [--seconds 30] [--dry]

Three gateways on sockets serve the same eight models each and hold two of them at a time; a group for each model has all three as members.
The models are mocks that take a second to load, one after the other, asked for by Zipf's law. Once the groups know nothing of what members
hold (`requests_before_load: null`), once all that they tell. Writes the table `fleet-warm` of docs/fleet.md.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from random import Random

import msgspec

from benchmarks.support.http import Connection
from benchmarks.support.measures import Percentiles
from benchmarks.support.tables import DOCS, machine, markdown_table, versions, write_section
from mm_gateway.api.app import create_app
from mm_gateway.backends.mock.backend import MockBackend
from mm_gateway.catalog import Catalog, build_catalog
from mm_gateway.configuration.group_settings import GroupMember, GroupRouting
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import Settings
from mm_gateway.core import GenerationEvent, GenerationRequest, ModelInfo, Progress
from tests.support.served import served

PAGE = DOCS / "fleet.md"
SERVERS, MODELS, HELD, EXPONENT = 3, 8, 2, 1.2
LOAD_S, TOKEN_S, TOKENS, RATE = 1.0, 0.05, 10, 3.0
"""Of a load, of a token; tokens of a reply; requests a second."""


class Memory:
    """Of one gateway: which models it holds. A load waits for room until a model is idle; the one that was idle longest goes.

    Attributes:
        loads: since the start. held: models in memory or on their way, with the requests that they answer; the newest last.
    """

    def __init__(self) -> None:
        self.loads = 0
        self.held: dict[str, int] = {}
        self._loading = asyncio.Lock()

    async def enter(self, name: str) -> None:
        if name not in self.held:
            async with self._loading:
                while name not in self.held and len(self.held) >= HELD:
                    idle = next((other for other, requests in self.held.items() if not requests), None)
                    if idle is None:
                        await asyncio.sleep(0.01)
                    else:
                        del self.held[idle]
                if name not in self.held:
                    self.loads += 1
                    self.held[name] = 1
                    await asyncio.sleep(LOAD_S)
                    self.held[name] -= 1
        self.held[name] = self.held.pop(name) + 1

    def leave(self, name: str) -> None:
        self.held[name] -= 1


class Swapped(MockBackend):
    """A mock that has to be in memory."""

    def __init__(self, name: str, memory: Memory) -> None:
        super().__init__(name, ModelConfig(model_name="mock", backend="mock", delay_s=TOKEN_S), 0)
        self._memory = memory

    def info(self) -> ModelInfo:
        info = super().info()
        return msgspec.structs.replace(info, state="ready" if info.id in self._memory.held else "cold")

    async def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        yield Progress("loading")
        await self._memory.enter(self._name)
        try:
            async for event in super().generate(request):
                yield event
        finally:
            self._memory.leave(self._name)


def requests_of(seconds: float, seed: int) -> list[tuple[float, str]]:
    """When each is sent, and the model that it names."""
    random, at = Random(seed), 0.0
    weights = [1 / (number + 1) ** EXPONENT for number in range(MODELS)]
    found: list[tuple[float, str]] = []
    while at < seconds:
        at += random.expovariate(RATE)
        found.append((at, f"model-{random.choices(range(MODELS), weights)[0]}"))
    return found


async def measured(asked: Sequence[tuple[float, str]], base_url: str) -> list[float]:
    """Seconds in which each was answered."""
    began = time.perf_counter() + 0.5

    async def one(at: float, model: str) -> float:
        await asyncio.sleep(began + at - time.perf_counter())
        sent = time.perf_counter()
        connection = Connection(base_url)
        body = {"model": model, "messages": [{"role": "user", "content": f"!mock tokens={TOKENS}"}]}
        try:
            reply = await connection.post("/chat/completions", msgspec.json.encode(body))
            text = await reply.read()
            assert reply.status == 200, text
            return time.perf_counter() - sent
        finally:
            connection.close()

    return list(await asyncio.gather(*(one(at, model) for at, model in asked)))


def groups(ports: Sequence[int], at_once: int | None) -> Settings:
    """Of the gateway before the others."""
    models: dict[str, ModelConfig] = {}
    routing = GroupRouting(requests_before_load=at_once, probe_interval_s=5.0)
    for number in range(MODELS):
        name = f"model-{number}"
        at = {f"{name}-at-{port}": f"http://127.0.0.1:{port}/v1" for port in ports}
        models |= {member: ModelConfig(model_name=name, backend="remote", base_url=url) for member, url in at.items()}
        members = tuple(GroupMember(name=member) for member in at)
        models[name] = ModelConfig(model_name=name, backend="group", members=members, routing=routing)
    return Settings(models=models)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="for which requests come")
    parser.add_argument("--dry", action="store_true", help="print instead of writing docs/fleet.md")
    args = parser.parse_args()

    asked = requests_of(args.seconds, seed=1)
    rows: list[list[object]] = []
    for told, at_once in (("nothing", None), ("what each holds", GroupRouting().requests_before_load)):
        with ExitStack() as stack:
            memories = [Memory() for _ in range(SERVERS)]
            catalogs = [Catalog({f"model-{number}": Swapped(f"model-{number}", memory) for number in range(MODELS)}) for memory in memories]
            ports = [stack.enter_context(served(create_app(Settings(), catalog))) for catalog in catalogs]
            settings = groups(ports, at_once)
            front = stack.enter_context(served(create_app(settings, build_catalog(settings))))
            took = Percentiles.of(asyncio.run(measured(asked, f"http://127.0.0.1:{front}/v1")))
        loads = sum(memory.loads for memory in memories) * 100 / len(asked)
        rows.append([told, len(asked), loads, took.p50, took.p95, took.p99])
        print(rows[-1], flush=True)
    head = ["the groups know", "requests", "loads for 100", "p50, s", "p95, s", "p99, s"]
    text = f"{machine()}. {versions('mm-gateway', 'uvicorn')}.\n\n{markdown_table(head, rows)}"
    write_section(PAGE, "fleet-warm", text, dry=args.dry)
    return 0


if __name__ == "__main__":
    sys.exit(main())
