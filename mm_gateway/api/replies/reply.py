"""What every reply is asked for, and what those have in common that are streamed in chunks; knows no endpoint."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Protocol, TypeVar, cast

import msgspec

import mm_gateway
from mm_gateway.api.errors import HttpError, http_error
from mm_gateway.api.replies.message_fields import merge_choice_fields
from mm_gateway.api.replies.token_details import RunningUsage
from mm_gateway.core import ChoiceFields, ChoiceFinished, GenerationEvent, PromptTokens, ReasoningDelta, ReplyFields, TextDelta
from mm_gateway.protocol import UsageReply
from mm_gateway.work_pools import BODIES

Shape = TypeVar("Shape")

_encode = msgspec.json.Encoder().encode

FINGERPRINT = f"fp_mm_gateway_{mm_gateway.__version__}"
DONE = b"data: [DONE]\n\n"
_LARGE_REPLY = 64
"""Events, or tokens with log-probabilities, from which on they are encoded on a thread: the event loop serves the others meanwhile."""


def is_large(events: Collection[GenerationEvent]) -> bool:
    """Whether encoding them takes long enough to leave it to a thread."""
    return len(events) > _LARGE_REPLY or sum(map(_logprobs, events)) > _LARGE_REPLY


def _logprobs(event: GenerationEvent) -> int:
    return len(event.logprobs) if isinstance(event, TextDelta | ReasoningDelta | PromptTokens) else 0


class Reply(Protocol):
    """One request's reply: `start`, `chunk` and `end` for a stream, `fold` for a whole one.

    Attributes:
        stages: streams have chunks for the stages of a workflow, which begin the reply; otherwise stages are comments.
        heartbeat: an event beside the comment that is sent while a stream waits; empty: none.
    """

    stages: bool
    heartbeat: bytes

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

    def in_envelope(self, found: HttpError) -> HttpError:
        """An error in the envelope of the endpoint's API."""
        ...


class ChunkedReply(ABC):
    """How streams of chunks end, where replies are folded, and the names of fields, which are those that backends use."""

    stages = False
    heartbeat = b""

    def field_for_client(self, path: str) -> str:
        return path

    async def fold(self, events: Collection[GenerationEvent]) -> bytes:
        return await BODIES.run(self._fold, events) if is_large(events) else self._fold(events)

    @abstractmethod
    def _fold(self, events: Iterable[GenerationEvent]) -> bytes: ...

    async def end(self, error: BaseException | None) -> bytes:
        return self._rest() + (b"" if error is None else b"data: " + http_error(error).encode() + b"\n\n") + DONE

    def _rest(self) -> bytes:
        """What no chunk has said yet."""
        return b""

    def for_client(self, error: BaseException) -> BaseException:
        return error

    def in_envelope(self, found: HttpError) -> HttpError:
        return found


class Template:
    """The bytes around what changes from chunk to chunk, encoded once, and what a remote server says beside the choices' own.

    A text or number of the whole reply goes into every chunk from then on, as `system_fingerprint` does; a list or an object, and
    what is said of a choice, into the next chunk alone.
    """

    def __init__(self, id: str, kind: str, created: int, model: str, *, with_usage: bool) -> None:
        self._always: dict[str, Any] = {
            "id": id,
            "object": kind,
            "created": created,
            "model": model,
            "system_fingerprint": FINGERPRINT,
        }
        self._once: dict[str, Any] = {}
        self._of_choice: dict[int, list[Mapping[str, Any]]] = {}
        self._usage = b',"usage":null' if with_usage else b""
        self._head = self._encode_head()

    def choice(self, index: int, body: bytes, *, more: bytes = b"", usage: RunningUsage | None = None) -> bytes:
        """A chunk of one choice.

        Args:
            body: its fields but the index, without braces. more: further fields of the chunk, each after a comma. usage: so far.
        """
        if self._of_choice and (pieces := self._of_choice.pop(index, None)):
            body += b"," + _encode(merge_choice_fields(pieces))[1:-1]
        so_far = self._usage if usage is None else b',"usage":' + usage.encoded()
        return self._chunk(b'{"index":%d,%b}' % (index, body), more + so_far)

    def usage(self, usage: UsageReply) -> bytes:
        return self._chunk(b"", b',"usage":' + _encode(usage))

    def keep(self, event: ChoiceFields | ReplyFields) -> None:
        """What goes with the next chunks."""
        if isinstance(event, ChoiceFields):
            self._of_choice.setdefault(event.index, []).append(event.fields)
            return
        for name, value in event.fields.items():
            (self._once if isinstance(value, list | dict) else self._always)[name] = value
        self._head = self._encode_head()

    def rest(self, nothing: bytes) -> bytes:
        """Chunks of what waits for a next one. nothing: the fields of a choice that says nothing."""
        pieces = [self.choice(index, nothing) for index in sorted(self._of_choice)]
        return b"".join(pieces) + (self._chunk(b"", self._usage) if self._once else b"")

    def _chunk(self, choices: bytes, usage: bytes) -> bytes:
        once = b""
        if self._once:
            once, self._once = b"," + _encode(self._once)[1:-1], {}
        return self._head + choices + b"]" + usage + once + b"}\n\n"

    def _encode_head(self) -> bytes:
        return b"data: " + _encode(self._always)[:-1] + b',"choices":['


def finish(end: ChoiceFinished | None) -> bytes:
    """How a choice ended, as fields of its chunk; None: it has not."""
    if end is None:
        return b'"finish_reason":null'
    return b'"finish_reason":%b,"stop_reason":%b' % (_encode(end.finish_reason), _encode(end.stop_reason))


def with_fields(value: Shape, fields: Mapping[str, Any]) -> Shape:
    """An object with further fields, for the encoder."""
    if not fields:
        return value
    return cast(Shape, msgspec.Raw(_encode(value)[:-1] + b"," + _encode(fields)[1:]))
