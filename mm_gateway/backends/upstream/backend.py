"""Another OpenAI-compatible server as a Backend: the request in its words, its stream back event by event, its errors as ours.

Replies are always streamed from upstream, so that streamed and whole replies, and cancelling, work alike.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import httpx
import msgspec

from mm_gateway.backends.upstream.chunks import choice_events, usage_of
from mm_gateway.backends.upstream.connection import Connection, off_loop
from mm_gateway.backends.upstream.event_stream import EventStreamError, data_lines
from mm_gateway.backends.upstream.protocol import Chunk
from mm_gateway.backends.upstream.replies import detokenized, embedding_events, embeddings_body, tokenized
from mm_gateway.backends.upstream.request import generation_body, message_body, tools_body
from mm_gateway.configuration.settings import ModelConfig
from mm_gateway.core import (
    ChatInput,
    ChoiceFinished,
    EmbeddingInput,
    GenerationEvent,
    GenerationRequest,
    ModelInfo,
    TextDelta,
    Tokenized,
    ToolCallDelta,
    Usage,
)
from mm_gateway.errors import UnsupportedParameterError, UpstreamError

T = TypeVar("T")

_chunk_decoder = msgspec.json.Decoder(Chunk)


class RemoteBackend:
    """One `backend: remote` entry of `models.yaml`."""

    def __init__(self, name: str, config: ModelConfig, created: int) -> None:
        self._name = name
        self._config = config
        self._created = created
        self._server = Connection(name, config)

    def info(self) -> ModelInfo:
        return ModelInfo(
            id=self._name,
            created=self._created,
            backend="remote",
            context_length=self._config.max_context_length,
            aliases=self._config.aliases,
            details={"base_url": self._config.base_url, "model_name": self._config.model_name},
        )

    async def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        server = self._server
        if isinstance(request.input, EmbeddingInput):
            body = embeddings_body(request.input, self._config.model_name, request.user)
            read = partial(embedding_events, inputs=len(request.input.inputs))
            for event in await server.ask(server.base + "/embeddings", body, read):
                yield event
            return
        path, body = generation_body(request, request.input, self._config.model_name)
        async with server.post(server.base + path, body) as response:
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                raise server.failure(f"answered a streaming request with {response.headers.get('content-type')}")
            async for event in self._events(response):
                yield event

    async def tokenize(self, input: str | ChatInput, *, add_special_tokens: bool = True, add_generation_prompt: bool = True) -> Tokenized:
        body = {"model": self._config.model_name, "return_token_strs": True}
        match input:
            case str():
                body |= {"prompt": input, "add_special_tokens": add_special_tokens}
            case ChatInput(messages, tools):
                body |= {"messages": [message_body(message) for message in messages], "add_generation_prompt": add_generation_prompt}
                body |= {"tools": tools_body(tools)["tools"]} if tools is not None else {}
        return await self._ask_about_tokens("/tokenize", body, tokenized)

    async def detokenize(self, tokens: Sequence[int]) -> str:
        body = {"model": self._config.model_name, "tokens": list(tokens)}
        return await self._ask_about_tokens("/detokenize", body, detokenized)

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

    async def _events(self, response: httpx.Response) -> AsyncIterator[GenerationEvent]:
        usage: Usage | None = None
        finished = done = False
        deltas = 0
        calls: set[tuple[int, int]] = set()
        try:
            async for data in data_lines(response.aiter_bytes()):
                if data == b"[DONE]":
                    done = True
                    break
                chunk = await off_loop(len(data), _chunk_decoder.decode, data)
                if chunk.error is not None:
                    raise self._server.reported(chunk.error)
                for choice in chunk.choices or ():
                    for event in choice_events(choice):
                        deltas += isinstance(event, TextDelta)
                        if isinstance(event, ToolCallDelta):
                            if event.id is None and (event.index, event.call) not in calls:
                                raise self._server.failure("sent arguments of a tool call before its name")
                            calls.add((event.index, event.call))
                        finished = finished or isinstance(event, ChoiceFinished)
                        yield event
                if chunk.usage is not None:
                    usage = usage_of(chunk)
        except (msgspec.MsgspecError, EventStreamError) as error:
            raise self._server.failure(f"sent a broken stream: {str(error)[:200]}") from error
        if not (done or finished):
            raise self._server.failure("ended its stream before the reply was complete")
        # A server without usage in streams: each of its chunks is taken for one token, the prompt for none.
        yield usage or Usage(0, deltas)
