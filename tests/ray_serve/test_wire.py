"""What a replica sends, without Ray."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncGenerator

import pytest

from mm_gateway.core import ChoiceFinished, GenerationEvent, ModelInfo, TextDelta, TokenLogprob, Usage
from mm_gateway.errors import (
    ContextLengthExceededError,
    GatewayError,
    ModelNotFoundError,
    ModelUnavailableError,
    RateLimitError,
    UnsupportedParameterError,
)
from mm_gateway.ray_serve.wire import batches, decode

INFO = ModelInfo(id="m", created=1, context_length=64)
EVENTS: list[GenerationEvent] = [
    TextDelta(0, "一", (5,), (TokenLogprob("一", (228, 184, 128), -0.5, (("x", (120,), -1.0),)),)),
    TextDelta(1, "\ud800"[:0]),
    ChoiceFinished(0, "stop", stop_token=3),
    Usage(3, 2, further={"cost": 0.5}),
]


async def _events(*, pause_s: float = 0, error: Exception | None = None) -> AsyncGenerator[GenerationEvent]:
    for event in EVENTS:
        await asyncio.sleep(pause_s)
        yield event
    if error is not None:
        raise error


async def test_events_arrive_in_order_and_the_first_batch_tells_of_the_model() -> None:
    sent = [item async for item in batches(_events(pause_s=0.001), INFO)]
    read = [decode(item) for item in sent if isinstance(item, bytes)]
    assert [event for batch in read for event in batch.events] == EVENTS
    assert [batch.info for batch in read] == [INFO] + [None] * (len(read) - 1)


async def test_events_that_come_while_a_batch_is_on_its_way_go_together() -> None:
    sent = 0
    async for _ in batches(_events(), INFO):
        sent += 1
        await asyncio.sleep(0.01)
    assert sent <= 2


async def test_an_error_comes_last_and_as_a_value() -> None:
    error = ModelUnavailableError("no", retryable=True, retry_after_s=2.5)
    *first, last = [item async for item in batches(_events(error=error), INFO)]
    assert sum(len(decode(item).events) for item in first if isinstance(item, bytes)) == len(EVENTS)
    assert last is error


async def test_a_fault_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        [item async for item in batches(_events(error=ZeroDivisionError()), INFO)]


async def test_closing_ends_the_work_at_once() -> None:
    ended = asyncio.Event()

    async def endless() -> AsyncGenerator[GenerationEvent]:
        try:
            yield EVENTS[0]
            await asyncio.sleep(60)
        finally:
            ended.set()

    sent = batches(endless(), INFO)
    await anext(sent)
    await sent.aclose()
    assert ended.is_set()


@pytest.mark.parametrize(
    "error",
    [
        ContextLengthExceededError(8, 9, 3),
        ModelNotFoundError("x", ("y",)),
        ModelUnavailableError("gone", retryable=True, retry_after_s=3.0),
        RateLimitError("full", retry_after_s=None, type="tokens"),
        UnsupportedParameterError("not served", param="n"),
    ],
)
def test_errors_go_from_process_to_process_whole(error: GatewayError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (str(copy), vars(copy)) == (str(error), vars(error))
