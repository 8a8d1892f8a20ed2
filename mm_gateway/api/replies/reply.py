"""What every reply is asked for, and what those have in common that are streamed in chunks; knows no endpoint."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from typing import Protocol

import msgspec

import mm_gateway
from mm_gateway.api.errors import http_error
from mm_gateway.api.replies.token_details import RunningUsage
from mm_gateway.core import GenerationEvent, PromptTokens, TextDelta
from mm_gateway.protocol import UsageReply
from mm_gateway.work_pools import BODIES

_encode = msgspec.json.Encoder().encode

FINGERPRINT = f"fp_mm_gateway_{mm_gateway.__version__}"
DONE = b"data: [DONE]\n\n"
_LARGE_REPLY = 64
"""Events, or tokens with log-probabilities, from which on they are encoded on a thread: the event loop serves the others meanwhile."""


def is_large(events: Collection[GenerationEvent]) -> bool:
    """Whether encoding them takes long enough to leave it to a thread."""
    return len(events) > _LARGE_REPLY or sum(map(_logprobs, events)) > _LARGE_REPLY


def _logprobs(event: GenerationEvent) -> int:
    return len(event.logprobs) if isinstance(event, TextDelta | PromptTokens) else 0


class Reply(Protocol):
    """One request's reply: `start`, `chunk` and `end` for a stream, `fold` for a whole one.

    Attributes:
        stages: streams have chunks for the stages of a workflow, which begin the reply; otherwise stages are comments.
    """

    stages: bool

    def start(self) -> bytes:
        """What a stream begins with, sent with the first event."""
        ...

    def chunk(self, event: GenerationEvent) -> bytes:
        """The server-sent events of one event; empty where it has none."""
        ...

    async def end(self, error: BaseException | None) -> bytes:
        """What a stream ends with, after its last event or the error that broke it off."""
        ...

    async def fold(self, events: Collection[GenerationEvent]) -> bytes:
        """The whole reply."""
        ...

    def field_for_client(self, path: str) -> str:
        """A path in the words of the endpoint's body; backends use those of chat."""
        ...

    def for_client(self, error: BaseException) -> BaseException:
        """A backend's error, whose `param` is a field of chat or completions, with the field of this endpoint's body."""
        ...


class ChunkedReply(ABC):
    """How streams of chunks end, where replies are folded, and the names of fields, which are those that backends use."""

    stages = False

    def field_for_client(self, path: str) -> str:
        return path

    async def fold(self, events: Collection[GenerationEvent]) -> bytes:
        return await BODIES.run(self._fold, events) if is_large(events) else self._fold(events)

    @abstractmethod
    def _fold(self, events: Iterable[GenerationEvent]) -> bytes: ...

    async def end(self, error: BaseException | None) -> bytes:
        return DONE if error is None else b"data: " + http_error(error).encode() + b"\n\n" + DONE

    def for_client(self, error: BaseException) -> BaseException:
        return error


class Template:
    """The bytes around what changes from chunk to chunk, encoded once."""

    def __init__(self, id: str, kind: str, created: int, model: str, *, with_usage: bool) -> None:
        head = {"id": id, "object": kind, "created": created, "model": model, "system_fingerprint": FINGERPRINT}
        self._head = b"data: " + _encode(head)[:-1] + b',"choices":['
        self._tail = b',"usage":null}\n\n' if with_usage else b"}\n\n"

    def choice(self, body: bytes, *, more: bytes = b"", usage: RunningUsage | None = None) -> bytes:
        """A chunk with one choice. more: further fields of the chunk, each after a comma. usage: so far."""
        tail = self._tail if usage is None else b',"usage":' + usage.encoded() + b"}\n\n"
        return self._head + body + b"]" + more + tail

    def usage(self, usage: UsageReply) -> bytes:
        return self._head + b'],"usage":' + _encode(usage) + b"}\n\n"
