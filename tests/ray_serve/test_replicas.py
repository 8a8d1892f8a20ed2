"""What the API does where replicas or the whole cluster are gone; a handle that needs no Ray stands for Serve's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.core import ChatInput, CompletionInput, EmbeddingInput, GenerationRequest, Message
from mm_gateway.entries import ReplicaGlance
from mm_gateway.errors import ModelUnavailableError
from mm_gateway.ray_serve.backend import RayBackend, beginning
from mm_gateway.ray_serve.placement import Placement
from mm_gateway.ray_serve.replicas import Replicas


class SilentHandle:
    """Of a cluster that never answers."""

    def __init__(self) -> None:
        self._asked = asyncio.Semaphore(0)
        self.cancelled = False

    def options(self, **_: Any) -> SilentHandle:
        return self

    def remote(self, *_: Any, **__: Any) -> SilentHandle:
        self._asked.release()
        return self

    async def is_asked(self, times: int = 1) -> None:
        for _ in range(times):
            await self._asked.acquire()
        await asyncio.sleep(0)

    def __aiter__(self) -> SilentHandle:
        return self

    async def __anext__(self) -> bytes:
        await asyncio.sleep(60)
        raise AssertionError

    def __await__(self) -> Any:
        return asyncio.sleep(60).__await__()

    def cancel(self) -> None:
        self.cancelled = True


def _chat(*texts: str) -> GenerationRequest:
    roles = ["system", *["user", "assistant"] * len(texts)]
    messages = tuple(Message(role=role, content=text) for role, text in zip(roles, texts, strict=False))  # type: ignore[arg-type]
    return GenerationRequest(request_id="r", model="m", input=ChatInput(messages))


def _backend(replicas: Replicas) -> RayBackend:
    return RayBackend("m", ModelConfig(model_name="m", backend="mock"), replicas, 0)


@pytest.fixture
async def replicas() -> AsyncIterator[Replicas]:
    replicas = Replicas(may_be_none=False)
    yield replicas
    replicas.close()


async def _consume(backend: RayBackend) -> None:
    async for _ in backend.generate(_chat("be brief", "hi")):
        pass


async def test_whoever_waits_for_a_lost_cluster_is_told_when_to_come_back(replicas: Replicas) -> None:
    handle = SilentHandle()
    replicas.found(handle, Placement(1), "127.0.0.1")  # type: ignore[arg-type]
    backend = _backend(replicas)
    waiting = [asyncio.create_task(_consume(backend)), asyncio.create_task(backend.count_tokens(["x"]))]
    await handle.is_asked(2)
    await asyncio.to_thread(replicas.lost, "it is gone")
    for result in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(result, ModelUnavailableError)
        assert result.retryable and result.retry_after_s and "it is gone" in str(result)
    assert handle.cancelled
    with pytest.raises(ModelUnavailableError, match="it is gone"):
        await _consume(backend)
    assert backend.info().state == "cold"


async def test_nobody_waits_where_no_replica_runs_unless_one_starts_for_whoever_asks(replicas: Replicas) -> None:
    replicas.found(SilentHandle(), Placement(0), "127.0.0.1")  # type: ignore[arg-type]
    with pytest.raises(ModelUnavailableError, match="no replica"):
        await _consume(_backend(replicas))
    replicas = Replicas(may_be_none=True)
    replicas.found(SilentHandle(), Placement(0), "127.0.0.1")  # type: ignore[arg-type]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await _consume(_backend(replicas))
    replicas.close()


async def test_who_waits_for_a_replica_that_has_no_place_is_told_and_who_is_answered_is_not_disturbed(replicas: Replicas) -> None:
    class OneEvent(SilentHandle):
        async def __anext__(self) -> bytes:
            if self.begun:
                return await super().__anext__()
            self.begun = True
            return b""

        begun = False

    waiting = Replicas(may_be_none=True)
    handle = SilentHandle()
    waiting.found(handle, Placement(0), "127.0.0.1")  # type: ignore[arg-type]
    task = asyncio.create_task(_consume(_backend(waiting)))
    replicas.found(OneEvent(), Placement(1), "127.0.0.1")  # type: ignore[arg-type]
    stream = replicas.stream("generate", model="m", session="")
    await anext(stream)
    rest = asyncio.create_task(anext(stream))
    await handle.is_asked()
    for each in (waiting, replicas):
        await asyncio.to_thread(each.count, Placement(0, 0, 1, why="each wants num_gpus 8"))
    with pytest.raises(ModelUnavailableError, match="has a place in the Ray cluster: each wants num_gpus 8") as told:
        await task
    assert told.value.retryable
    with pytest.raises(ModelUnavailableError, match="num_gpus 8"):
        await _consume(_backend(waiting))
    await asyncio.sleep(0.01)
    assert not rest.done()
    rest.cancel()
    waiting.close()


async def test_replicas_that_do_not_tell_are_left_out_of_the_fleet(replicas: Replicas) -> None:
    class Telling(SilentHandle):
        def broadcast(self, method: str) -> Telling:
            assert method == "glance"
            return self

        def results(self, *, timeout_s: float, return_exceptions: bool) -> list[object]:
            assert return_exceptions
            return [ReplicaGlance("b", "10.0.0.2", "", {}, None), TimeoutError(), ReplicaGlance("a", "10.0.0.1", "0", {}, None)]

    assert (await replicas.fleet()).seen == ()
    replicas.found(Telling(), Placement(3, 1, 2), "127.0.0.1")  # type: ignore[arg-type]
    fleet = await replicas.fleet()
    assert fleet.states == {"running": 3, "starting": 1, "waiting": 2}
    assert [seen.replica for seen in fleet.seen] == ["a", "b"]


async def test_a_client_that_goes_cancels_the_replicas_work(replicas: Replicas) -> None:
    handle = SilentHandle()
    replicas.found(handle, Placement(1), "127.0.0.1")  # type: ignore[arg-type]
    task = asyncio.create_task(_consume(_backend(replicas)))
    await handle.is_asked()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert handle.cancelled


def test_all_requests_of_a_conversation_are_routed_alike_and_others_are_not() -> None:
    first = beginning(_chat("be brief", "hi"), "m")
    assert first == beginning(_chat("be brief", "hi", "hello", "and then?"), "m")
    assert first != beginning(_chat("be brief", "ho"), "m")
    assert first != beginning(_chat("be brief", "hi"), "other")
    prompt = CompletionInput(("x" * 5000,))
    assert beginning(GenerationRequest(request_id="r", model="m", input=prompt), "m")
    assert not beginning(GenerationRequest(request_id="r", model="m", input=EmbeddingInput(("x",))), "m")
