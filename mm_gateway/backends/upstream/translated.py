"""A server that speaks another API than chat as a Backend: what clients of any endpoint ask for in its words, its stream as events.

What its API has no words for is refused by name where it would change the reply, and named as left out where it would not.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import httpx
import msgspec

from mm_gateway.backends.upstream.connection import Connection, off_loop
from mm_gateway.backends.upstream.dialects.dialect import Dialect, EventReader, ReportedError, Thoughts
from mm_gateway.backends.upstream.dialects.messages import MessagesDialect
from mm_gateway.backends.upstream.dialects.responses import ResponsesDialect
from mm_gateway.backends.upstream.event_stream import data_lines
from mm_gateway.backends.upstream.protocol import WireError
from mm_gateway.backends.upstream.remote_info import remote_info
from mm_gateway.backends.upstream.reported_errors import error_in
from mm_gateway.backends.upstream.request import unenforced
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.core import Allowance, ChatInput, GenerationEvent, GenerationRequest, Ignored, ModelInfo, Tokenized
from mm_gateway.errors import UnsupportedParameterError
from mm_gateway.text import estimate_tokens

DIALECTS: Mapping[str, type[Dialect]] = {"responses": ResponsesDialect, "messages": MessagesDialect}


class TranslatedBackend:
    """One `backend: remote` entry of `models.yaml` with `api: responses` or `messages`."""

    def __init__(self, name: str, config: ModelConfig, created: int) -> None:
        self._name, self._config, self._created = name, config, created
        self._dialect = DIALECTS[config.api]()
        self._server = Connection(name, config, headers=self._dialect.headers)
        self._thoughts = Thoughts()

    def info(self) -> ModelInfo:
        return remote_info(self._name, self._config, self._created, self._server.state, api=self._config.api)

    async def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        body, left_out = self._dialect.body(request, self._config.model_name, self._thoughts)
        left_out += unenforced(request.input.tools) if isinstance(request.input, ChatInput) else ()
        server = self._server
        async with server.post(f"{server.base}/{self._dialect.path}", body) as response:
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                raise server.failure(f"answered a streaming request with {response.headers.get('content-type')}")
            if left_out:
                yield Ignored(left_out)
            async with aclosing(self._events(response, self._dialect.reader(request, self._thoughts))) as events:
                async for event in events:
                    yield event

    async def tokenize(self, input: str | ChatInput, *, add_special_tokens: bool = True) -> Tokenized:
        raise self._no_tokens()

    async def detokenize(self, tokens: Sequence[int]) -> str:
        raise self._no_tokens()

    async def count_tokens(self, texts: Sequence[str]) -> tuple[int, ...]:
        """Estimates."""
        return tuple(map(estimate_tokens, texts))

    async def probe(self, timeout_s: float) -> bool:
        await self._server.probe(timeout_s)
        return True

    @property
    def allowance(self) -> Allowance | None:
        return self._server.allowance

    async def close(self) -> None:
        await self._server.close()

    async def _events(self, response: httpx.Response, reader: EventReader) -> AsyncGenerator[GenerationEvent]:
        try:
            async for data in data_lines(response.aiter_bytes()):
                if data == b"[DONE]":
                    continue
                found = await off_loop(len(data), _decode, data)
                for event in reader.read(found):
                    yield event
            usage = reader.end()
        except ReportedError as error:
            raise self._server.reported(_error_of(error.event)) from None
        except (msgspec.MsgspecError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._server.failure(f"sent a broken stream: {str(error)[:200]}") from error
        yield usage

    def _no_tokens(self) -> UnsupportedParameterError:
        text = f"The model `{self._name}` is served by a server that has no way to ask for tokens"
        return UnsupportedParameterError(text, param="model", code="unsupported_value")


def _decode(data: bytes) -> dict[str, Any]:
    return msgspec.json.decode(data, type=dict[str, Any])


def _error_of(event: Mapping[str, Any]) -> WireError:
    response = event.get("response")
    inner = response.get("error") if isinstance(response, Mapping) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return error_in({"error": inner} if inner else event) or WireError("the reply failed")
