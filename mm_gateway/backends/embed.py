"""Embeddings of an engine: tokens off the event loop, then the engine's events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from mm_gateway.core import EmbeddingInput, GenerationEvent
from mm_gateway.core.limits import MAX_EMBEDDING_TOKENS
from mm_gateway.errors import InvalidRequestError
from mm_gateway.work_pools import encoding

if TYPE_CHECKING:
    from mm_gateway.runtime.inference_engine import InferenceEngine


async def embed(engine: InferenceEngine, input: EmbeddingInput) -> AsyncGenerator[GenerationEvent]:
    """One Embedding an input, in the order in which they are ready, then Usage.

    Raises:
        InvalidRequestError: as of `InferenceEngine.embed`; nothing has been computed then.
    """

    def encode() -> list[list[int]]:
        limit = engine.token_limit(param="input")
        encoded: list[list[int]] = []
        total = 0
        for entry in input.inputs:
            encoded.append(engine.encode(entry, limit) if isinstance(entry, str) else list(entry))
            total += len(encoded[-1])
            check_total_tokens(total)  # each time, so that no more is tokenized than shows that it is too much
        return encoded

    generation = engine.embed(await encoding(input.characters).run(encode), dimensions=input.dimensions, loop=asyncio.get_running_loop())
    try:
        async for event in generation:
            yield event
    finally:
        generation.cancel()


def check_total_tokens(total: int) -> None:
    """Raises InvalidRequestError: inputs with so many tokens are too many for one request."""
    if total > MAX_EMBEDDING_TOKENS:
        text = f"input: a request may have {MAX_EMBEDDING_TOKENS} tokens in all its inputs together, this one has at least {total}. "
        raise InvalidRequestError(text + "Send fewer inputs at a time", param="input")
