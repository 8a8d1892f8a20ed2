"""What the API does where replicas or the whole cluster are gone; a handle that needs no Ray stands for Serve's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.core import ChatInput, CompletionInput, EmbeddingInput, GenerationRequest, Message
from mm_gateway.errors import ModelUnavailableError
from mm_gateway.ray_serve.backend import RayBackend, beginning
from mm_gateway.ray_serve.replicas import Replicas


class SilentHandle:
    """Of a cluster that never answers."""

    def __init__(self) -> None:
        self.cancelled = False

    def options(self, **_: Any) -> SilentHandle:
        return self

    def remote(self, *_: Any, **__: Any) -> SilentHandle:
        return self

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
    replicas.found(handle, 1, "127.0.0.1")  # type: ignore[arg-type]
    backend = _backend(replicas)
    waiting = [asyncio.create_task(_consume(backend)), asyncio.create_task(backend.count_tokens(["x"]))]
    await asyncio.sleep(0.01)
    await asyncio.to_thread(replicas.lost, "it is gone")
    for result in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(result, ModelUnavailableError)
        assert result.retryable and result.retry_after_s and "it is gone" in str(result)
    assert handle.cancelled
    with pytest.raises(ModelUnavailableError, match="it is gone"):
        await _consume(backend)
    assert backend.info().state == "cold"


async def test_nobody_waits_where_no_replica_runs_unless_one_starts_for_whoever_asks(replicas: Replicas) -> None:
    replicas.found(SilentHandle(), 0, "127.0.0.1")  # type: ignore[arg-type]
    with pytest.raises(ModelUnavailableError, match="no replica"):
        await _consume(_backend(replicas))
    replicas = Replicas(may_be_none=True)
    replicas.found(SilentHandle(), 0, "127.0.0.1")  # type: ignore[arg-type]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await _consume(_backend(replicas))
    replicas.close()


async def test_a_client_that_goes_cancels_the_replicas_work(replicas: Replicas) -> None:
    handle = SilentHandle()
    replicas.found(handle, 1, "127.0.0.1")  # type: ignore[arg-type]
    task = asyncio.create_task(_consume(_backend(replicas)))
    await asyncio.sleep(0.01)
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
