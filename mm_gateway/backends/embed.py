"""Embeddings of an engine: tokens off the event loop, then the engine's events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from mm_gateway.core import EmbeddingInput, GenerationEvent
from mm_gateway.work_pools import ENCODING

if TYPE_CHECKING:
    from mm_gateway.runtime.inference_engine import InferenceEngine


async def embed(engine: InferenceEngine, input: EmbeddingInput) -> AsyncGenerator[GenerationEvent]:
    """One Embedding an input, in the order in which they are ready, then Usage.

    Raises:
        InvalidRequestError: as of `InferenceEngine.embed`; nothing has been computed then.
    """

    def encode() -> list[list[int]]:
        limit = engine.token_limit(param="input")
        return [engine.encode(entry, limit) if isinstance(entry, str) else list(entry) for entry in input.inputs]

    generation = engine.embed(await ENCODING.run(encode), dimensions=input.dimensions, loop=asyncio.get_running_loop())
    try:
        async for event in generation:
            yield event
    finally:
        generation.cancel()
