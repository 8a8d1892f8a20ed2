"""Spans are told to the timeline of the request that they are part of, wherever they begin."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import pytest

from mm_gateway.timeline import SpanName, Timeline, follow, past, span, stage


class Follower:
    """Notes who is whose child, and how each ended."""

    def __init__(self) -> None:
        self.parents: dict[str, Any] = {}
        self.ended: list[tuple[str, dict[str, Any], BaseException | None]] = []

    def begin(self, name: SpanName, started: float, attributes: Mapping[str, Any], parent: Any) -> Any:
        shown = attributes.get("stage", name)
        self.parents[shown] = parent
        return shown

    def end(self, span: Any, ended: float, attributes: Mapping[str, Any], error: BaseException | None) -> None:
        self.ended.append((span, dict(attributes), error))

    def headers(self, span: Any) -> dict[str, str]:
        return {"traceparent": span}


async def test_each_request_has_the_spans_of_its_own_tasks() -> None:
    async def request(seconds: float) -> Timeline:
        timeline = Timeline()
        follow(timeline)

        async def work() -> None:
            with span("load"):
                await asyncio.sleep(seconds)

        await asyncio.gather(asyncio.create_task(work()), work())
        return timeline

    short, long = await asyncio.gather(request(0.01), request(0.05))
    assert 0.02 <= short.seconds["load"] < 0.09 and 0.1 <= long.seconds["load"] < 1


async def test_what_happens_in_a_stage_belongs_to_it_and_what_follows_does_not() -> None:
    follower = Follower()
    follow(Timeline(follower))
    end = stage("retrieve")
    await asyncio.create_task(search())
    end("nothing found")
    past("queue", time.monotonic() - 1, time.monotonic())
    assert follower.parents == {"retrieve": None, "search": "retrieve", "queue": None}
    assert [(name, attributes.get("fault")) for name, attributes, _ in follower.ended] == [
        ("search", None),
        ("retrieve", "nothing found"),
        ("queue", None),
    ]


async def search() -> None:
    with span("search"):
        pass


async def test_a_span_may_lie_around_the_yield_of_a_generator_that_is_closed_elsewhere() -> None:
    follower = Follower()

    async def events() -> AsyncGenerator[int]:
        with span("upstream", model="m") as asked:
            assert asked.headers() == {"traceparent": "upstream"}
            asked.attributes["status"] = 200
            yield 1

    async def reader() -> AsyncGenerator[int]:
        follow(Timeline(follower))
        generator = events()
        assert await anext(generator) == 1
        return generator

    generator = await asyncio.create_task(reader())
    await asyncio.create_task(generator.aclose())
    [(name, attributes, error)] = follower.ended
    assert (name, attributes) == ("upstream", {"model": "m", "status": 200}) and isinstance(error, GeneratorExit)


def test_nobody_has_to_follow() -> None:
    with pytest.raises(ValueError, match="as before"), span("render") as rendered:
        assert rendered.headers() == {}
        raise ValueError("as before")
