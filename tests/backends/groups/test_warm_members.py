"""Members that hold the model come first: what is told of them, what follows, and that old knowledge costs time alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from random import Random

import httpx
import pytest

from mm_gateway.api.app import create_app
from mm_gateway.backends.groups.backend import LOOK_S
from mm_gateway.backends.groups.router import Attempt, Member, Router
from mm_gateway.backends.groups.servers import Servers
from mm_gateway.backends.groups.wanted import Wanted
from mm_gateway.backends.mock.backend import MockBackend
from mm_gateway.catalog import Catalog, build_catalog
from mm_gateway.configuration.group_settings import GroupMember, GroupRouting, Strategy
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import Settings
from mm_gateway.core import GenerationEvent, GenerationRequest, ModelInfo, Progress
from tests.support.served import served
from tests.support.simulated_members import chat

ROUTING = GroupRouting(requests_before_load=3)
MEMBERS = tuple(GroupMember(name=name) for name in "abc")


def router(strategy: Strategy = "least-loaded", routing: GroupRouting = ROUTING, *, loaded: str = "b", seed: int = 0) -> Router:
    found = Router(MEMBERS, strategy, routing, Random(seed))
    for name, member in found.members.items():
        member.loaded = name in loaded
    return found


def ask(of: Router, text: str = "Hi") -> Attempt:
    chosen = of.decide(Wanted(chat("r", text), 0.0), 0.0, 0.0)
    assert isinstance(chosen, Member)
    return of.begin(chosen, 0.0)


def test_a_model_is_loaded_once_more_when_who_holds_it_has_enough() -> None:
    of = router()
    chosen = [ask(of).member.name for _ in range(9)]
    assert chosen[:3] == ["b"] * 3
    assert len({*chosen[3:6]}) == 1, "the others wait for the load that has begun"
    assert sorted(chosen) == ["a"] * 3 + ["b"] * 3 + ["c"] * 3


def test_conversations_stay_among_those_that_hold_the_model() -> None:
    of = router("prefix-aware", GroupRouting(requests_before_load=20, load_factor=10.0), loaded="bc")
    homes = {text: ask(of, text).member.name for text in map(str, range(20))}
    assert {*homes.values()} == {"b", "c"}
    for _ in range(20):
        of.begin(of.members["b"], 0.0)
        of.begin(of.members["c"], 0.0)
    assert ask(of).member.name == "a", "both have enough"


@pytest.mark.parametrize("strategy", ["round-robin", "weighted", "fallback"])
def test_who_gets_what_by_the_entry_gets_it_cold_too(strategy: Strategy) -> None:
    of = router(strategy)
    assert ask(of).member.name == "a"


def test_where_all_hold_it_the_load_alone_counts() -> None:
    of = router(loaded="abc")
    for _ in range(30):
        ask(of)
        running = [member.running for member in of.members.values()]
        assert max(running) - min(running) <= 1


def test_who_answered_holds_it() -> None:
    of = router(loaded="")
    first = ask(of)
    of.first_token(first, 1.0)
    of.ended(first, 2.0)
    assert {ask(of).member.name for _ in range(3)} == {first.member.name}


def test_a_load_goes_where_least_is_to_be_done_for_all_groups() -> None:
    servers = Servers()
    behind = {name: servers.at(f"http://{name}") for name in "abc"}
    one, other = (Router(MEMBERS, "least-loaded", ROUTING, Random(seed), behind) for seed in (0, 1))
    for of in (one, other):
        for member in of.members.values():
            member.loaded = False
    busy = [ask(one).member.name for _ in range(3)] + [ask(one).member.name for _ in range(3)]
    assert len({*busy}) == 2
    (idle,) = {*"abc"} - {*busy}
    assert ask(other).member.name == idle
    assert [behind[name].running for name in (*dict.fromkeys(busy), idle)] == [3, 3, 1]


class SlowToLoad(MockBackend):
    """A mock that is cold until it was asked, and again when told. loads: since the start."""

    def __init__(self, name: str) -> None:
        super().__init__(name, ModelConfig(model_name="mock", backend="mock"), 0)
        self.state, self.loads = "cold", 0

    def info(self) -> ModelInfo:
        info = super().info()
        return ModelInfo(id=info.id, created=0, backend="mock", state=self.state, context_length=info.context_length)

    async def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        if self.state == "cold":
            self.loads += 1
            self.state = "loading"
            yield Progress("loading")
            await asyncio.sleep(0.05)
            self.state = "ready"
        async for event in super().generate(request):
            yield event


class Front:
    """A group called `all`, behind a gateway, before three others that each serve one of `models`."""

    def __init__(self, models: Sequence[SlowToLoad], client: httpx.AsyncClient) -> None:
        self.models = models
        self._client = client

    @property
    def loads(self) -> int:
        return sum(model.loads for model in self.models)

    async def texts(self, count: int) -> set[str]:
        """Of so many requests at a time."""
        body = {"model": "all", "messages": [{"role": "user", "content": "Hi"}]}
        replies = await asyncio.gather(*(self._client.post("/chat/completions", json=body) for _ in range(count)))
        return {reply.json()["choices"][0]["message"]["content"] for reply in replies}

    async def knows(self, *states: str) -> None:
        """Wait until the group has heard so of its members."""
        told: list[str] = []
        for _ in range(200):
            details = (await self._client.get("/models/all")).json()["details"]
            told = sorted(member["state"] for member in details["members"])
            if told == sorted(states):
                await asyncio.sleep(LOOK_S)  # for which a group takes what it heard to hold
                return
            await asyncio.sleep(0.02)
        raise AssertionError(told)


@asynccontextmanager
async def front() -> AsyncIterator[Front]:
    models = [SlowToLoad("theirs") for _ in range(3)]
    with ExitStack() as stack:
        ports = [stack.enter_context(served(create_app(Settings(), Catalog({"theirs": model})))) for model in models]
        urls = {f"at-{port}": f"http://127.0.0.1:{port}/v1" for port in ports}
        entries = {name: ModelConfig(model_name="theirs", backend="remote", base_url=url) for name, url in urls.items()}
        members = tuple(GroupMember(name=name) for name in urls)
        entries["all"] = ModelConfig(model_name="all", backend="group", members=members, routing=GroupRouting(probe_interval_s=0.05))
        settings = Settings(models=entries)
        port = stack.enter_context(served(create_app(settings, build_catalog(settings))))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/v1") as client:
            yield Front(models, client)


async def test_a_group_asks_the_gateway_that_holds_the_model() -> None:
    async with front() as all:
        await all.texts(1)
        await all.knows("cold", "cold", "ready")
        for _ in range(5):
            await all.texts(4)
        assert all.loads == 1
        idle, *_ = sorted(all.models, key=lambda model: model.loads)
        for model in all.models:
            model.state = "ready" if model is idle else "cold"
        await all.knows("cold", "cold", "ready")
        await all.texts(4)
        assert all.loads == 1, "it moved, and was found"


async def test_what_a_group_knew_and_is_so_no_more_costs_time_alone() -> None:
    async with front() as all:
        text = await all.texts(1)
        await all.knows("cold", "cold", "ready")
        for model in all.models:
            model.state = "cold"
        assert await all.texts(4) == text
        assert 2 <= all.loads <= 4
