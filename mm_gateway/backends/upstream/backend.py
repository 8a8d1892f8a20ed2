"""Another OpenAI-compatible server as a Backend: the request in its words, its stream back event by event, its errors as ours.

Replies are always streamed from upstream, so that streamed and whole replies, and cancelling, work alike.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import httpx
import msgspec

from mm_gateway.backends.upstream.chunks import ChunkReader, read_chunk
from mm_gateway.backends.upstream.connection import Connection, off_loop
from mm_gateway.backends.upstream.event_stream import EventStreamError, data_lines
from mm_gateway.backends.upstream.protocol import WireError
from mm_gateway.backends.upstream.remote_info import remote_info
from mm_gateway.backends.upstream.replies import detokenized, embedding_events, tokenized
from mm_gateway.backends.upstream.request import (
    as_embedding_request,
    as_streaming_request,
    body_of,
    messages_body,
    rendering_body,
    tools_body,
)
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.core import (
    Allowance,
    ChatInput,
    ForwardedBody,
    GenerationEvent,
    GenerationRequest,
    ModelInfo,
    Tokenized,
)
from mm_gateway.errors import UnsupportedParameterError, UpstreamError
from mm_gateway.text import estimate_tokens

T = TypeVar("T")

END_TIMEOUT_S = 0.2
"""For the end of a stream to come after its [DONE]."""


class RemoteBackend:
    """One `backend: remote` entry of `models.yaml`."""

    def __init__(self, name: str, config: ModelConfig, created: int) -> None:
        self._name = name
        self._config = config
        self._created = created
        self._server = Connection(name, config)

    def info(self) -> ModelInfo:
        return remote_info(self._name, self._config, self._created, self._server.state)

    def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        return self.forward(body_of(request))

    async def forward(self, body: ForwardedBody) -> AsyncIterator[GenerationEvent]:
        server = self._server
        url = f"{server.base}/{body.endpoint}"
        if body.endpoint == "embeddings":
            read = partial(embedding_events, inputs=body.choices)
            for event in await server.ask(url, as_embedding_request(body.fields, self._config.model_name), read):
                yield event
            return
        async with server.post(url, as_streaming_request(body.fields, self._config.model_name)) as response:
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                raise server.failure(f"answered a streaming request with {response.headers.get('content-type')}")
            async for event in self._events(response, body.choices):
                yield event

    async def tokenize(self, input: str | ChatInput, *, add_special_tokens: bool = True) -> Tokenized:
        body = {"model": self._config.model_name, "return_token_strs": True}
        match input:
            case str():
                body |= {"prompt": input, "add_special_tokens": add_special_tokens}
            case ChatInput(messages, tools, rendering):
                body |= {"messages": messages_body(messages), **rendering_body(rendering)}
                body |= {"tools": tools_body(tools)["tools"]} if tools is not None else {}
        return await self._ask_about_tokens("/tokenize", body, tokenized)

    async def detokenize(self, tokens: Sequence[int]) -> str:
        body = {"model": self._config.model_name, "tokens": list(tokens)}
        return await self._ask_about_tokens("/detokenize", body, detokenized)

    async def count_tokens(self, texts: Sequence[str]) -> tuple[int, ...]:
        """Estimates: most servers have no way to ask, and the others would be asked once for each text."""
        return tuple(map(estimate_tokens, texts))

    async def probe(self, timeout_s: float) -> bool:
        await self._server.probe(timeout_s)
        return True

    @property
    def allowance(self) -> Allowance | None:
        return self._server.allowance

    async def close(self) -> None:
        await self._server.close()

    async def _ask_about_tokens(self, path: str, body: dict[str, Any], read: Callable[[bytes], T]) -> T:
        try:
            # vLLM, whose convention this is, serves it beside /v1.
            return await self._server.ask(self._server.base.removesuffix("/v1") + path, body, read)
        except UpstreamError as error:
            if error.status in (404, 405, 501) and error.param != "model":
                text = f"The model `{self._name}` is served by a server that has no {path}"
                raise UnsupportedParameterError(text, param="model", code="unsupported_value") from error
            raise

    async def _events(self, response: httpx.Response, choices: int) -> AsyncIterator[GenerationEvent]:
        reader = ChunkReader(choices)
        lines = data_lines(response.aiter_bytes())
        try:
            async for data in lines:
                if data == b"[DONE]":
                    await _read_to_the_end(lines)
                    break
                chunk = await off_loop(len(data), read_chunk, data)
                if isinstance(chunk, WireError):
                    raise self._server.reported(chunk)
                for event in reader.read(chunk):
                    yield event
            usage = reader.end()
        except (msgspec.MsgspecError, ValueError) as error:
            raise self._server.failure(f"sent a broken stream: {str(error)[:200]}") from error
        yield usage


async def _read_to_the_end(lines: AsyncIterator[bytes]) -> None:
    """A connection is used again only where its reply was read to the end, which comes at once, or the reply is not kept waiting for it."""
    with contextlib.suppress(TimeoutError, httpx.TransportError, EventStreamError):
        async with asyncio.timeout(END_TIMEOUT_S):
            async for _ in lines:
                pass
