"""Embeddings of an engine: tokens off the event loop, then the engine's events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from mm_gateway.chat_templates.history import tokens_kept
from mm_gateway.chat_templates.token_limit import WHOLE
from mm_gateway.core import EmbeddingInput, GenerationEvent
from mm_gateway.core.limits import MAX_EMBEDDING_TOKENS
from mm_gateway.errors import InvalidRequestError
from mm_gateway.runtime.tokens.model_text import check_text_size
from mm_gateway.timeline import span
from mm_gateway.work_pools import encoding

if TYPE_CHECKING:
    from mm_gateway.runtime.inference_engine import InferenceEngine


async def embed(engine: InferenceEngine, input: EmbeddingInput) -> AsyncGenerator[GenerationEvent]:
    """One Embedding an input, in the order in which they are ready, then Usage.

    Raises:
        InvalidRequestError: as of `InferenceEngine.embed`; nothing has been computed then.
    """

    def encode() -> list[list[int]]:
        kept, limit = None, engine.token_limit(param="input")
        if input.truncate_prompt_tokens is not None:
            kept, limit = tokens_kept(input.truncate_prompt_tokens, engine.context_length, 0), WHOLE
        encoded: list[list[int]] = []
        total = 0
        for entry in input.inputs:
            if isinstance(entry, str):
                if kept is not None:
                    check_text_size([entry], "input", context_length=engine.context_length)
                ids = engine.encode(entry, limit, add_special_tokens=input.add_special_tokens)
            else:
                ids = list(entry)
            total += len(ids)
            check_total_tokens(total)  # each time, so that no more is tokenized than shows that it is too much
            encoded.append(ids if kept is None else engine.cut(entry, ids, kept, input.truncation_side))
        return encoded

    with span("render"):
        inputs = await encoding(input.characters).run(encode)
    generation = engine.embed(inputs, dimensions=input.dimensions, loop=asyncio.get_running_loop())
    try:
        async for event in generation:
            yield event
    finally:
        generation.cancel()
        generation.tell_times()


def check_total_tokens(total: int) -> None:
    """Raises InvalidRequestError: inputs with so many tokens are too many for one request."""
    if total > MAX_EMBEDDING_TOKENS:
        text = f"input: a request may have {MAX_EMBEDDING_TOKENS} tokens in all its inputs together, this one has at least {total}. "
        raise InvalidRequestError(text + "Send fewer inputs at a time", param="input")
