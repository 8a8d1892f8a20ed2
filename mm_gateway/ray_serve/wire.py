"""What a replica sends: events in batches, and the error that ended them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

import msgspec

from mm_gateway.core import GenerationEvent, ModelInfo
from mm_gateway.errors import GatewayError


class Batch(msgspec.Struct, frozen=True):
    """Events that came together, in order. info: what the replica knows of the model; with the first of the reply."""

    events: list[GenerationEvent]
    info: ModelInfo | None = None


_encoder, _decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(Batch)


def decode(data: bytes) -> Batch:
    """The batch that `batches` made bytes of."""
    return _decoder.decode(data)


async def batches(events: AsyncIterator[GenerationEvent], info: ModelInfo) -> AsyncGenerator[bytes | GatewayError]:
    """Encoded batches, each with all events that came while the one before was on its way: what Ray asks for an object it asks once.

    A GatewayError of the events is the last thing to come, and not raised: Ray would wrap it, and log it as a fault of the replica.
    """
    arrived: list[GenerationEvent] = []
    news = asyncio.Event()

    async def read() -> None:
        async with contextlib.aclosing(events):  # type: ignore[type-var] - Backends' iterators are generators
            async for event in events:
                arrived.append(event)
                news.set()

    reading = asyncio.create_task(read())
    reading.add_done_callback(lambda _: news.set())
    first = True
    try:
        while not (reading.done() and not arrived):
            await news.wait()
            news.clear()
            if arrived:
                data = _encoder.encode(Batch(arrived, info if first else None))
                first = False
                arrived.clear()
                yield data
        try:
            reading.result()
        except GatewayError as error:
            yield error
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
