"""Reply of `/v1/messages`: the named events of a stream, and the whole message as the fold of the same changes."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from mm_gateway.api.errors import HttpError, http_error
from mm_gateway.api.messages.blocks import Blocks, Change, Cited, Closed, InputAdded, Opened, TextAdded, ThoughtAdded
from mm_gateway.api.messages.errors import message_error, too_long
from mm_gateway.api.messages.signature import Signer
from mm_gateway.api.replies.reply import is_large
from mm_gateway.core import GenerationEvent, Usage, UsageSoFar
from mm_gateway.errors import ContextLengthExceededError, InvalidRequestError, UpstreamError
from mm_gateway.protocol.messages import MessageReplyBody, MessageUsage, OutputDetails, ServerToolUsage, StopReason
from mm_gateway.work_pools import BODIES

_encode = msgspec.json.Encoder().encode

_RENAMED = {"response_format": "output_config.format", "response_format.json_schema.schema": "output_config.format.schema"}
_TOOL_FIELD = re.compile(r"^(tools\[\d+\])\.function\.(?:parameters)?")
PING = b'event: ping\ndata: {"type":"ping"}\n\n'


class MessageReply:
    """One message.

    Args:
        id, model: of the reply. request_id: for errors. max_tokens: that were asked for. signer, shows_thoughts: see Blocks.
    """

    stages = False
    heartbeat = PING

    def __init__(
        self, *, id: str, model: str, request_id: str | None, max_tokens: int | None, signer: Signer, shows_thoughts: bool = True
    ) -> None:
        self._message = MessageReplyBody(id, model)
        self._request_id = request_id
        self._max_tokens = max_tokens
        self._blocks = Blocks(signer, shows_thoughts=shows_thoughts)
        self._started = self._begun = False

    def start(self) -> bytes:
        """Nothing: what a stream begins with tells of the prompt's tokens, which the first event says, if they are known."""
        return b""

    def chunk(self, event: GenerationEvent) -> bytes:
        started = b"" if self._started else self._start(event.prompt_tokens if isinstance(event, UsageSoFar) else 0)
        return started + b"".join([self._change(change) for change in self._blocks.feed(event)])

    def _start(self, prompt_tokens: int) -> bytes:
        self._started = True
        return _event("message_start", {"message": msgspec.structs.replace(self._message, usage=MessageUsage(prompt_tokens))})

    async def end(self, error: BaseException | None) -> bytes:
        if error is not None:
            found = self.in_envelope(http_error(self.for_client(error)))
            return b"event: error\ndata: " + found.encode() + b"\n\n"
        final = self._final([])
        delta = {"stop_reason": final.stop_reason, "stop_sequence": final.stop_sequence}
        return _event("message_delta", {"delta": delta, "usage": final.usage}) + _event("message_stop", {})

    async def fold(self, events: Collection[GenerationEvent]) -> bytes:
        return await BODIES.run(self._fold, events) if is_large(events) else self._fold(events)

    def field_for_client(self, path: str) -> str:
        return _TOOL_FIELD.sub(lambda found: f"{found[1]}.input_schema", path)

    def for_client(self, error: BaseException) -> BaseException:
        if isinstance(error, ContextLengthExceededError):
            return InvalidRequestError(too_long(error))
        if isinstance(error, InvalidRequestError | UpstreamError) and error.param is not None:
            error.param = _RENAMED.get(error.param) or self.field_for_client(error.param)
        return error

    def in_envelope(self, found: HttpError) -> HttpError:
        return message_error(found, self._request_id)

    def _fold(self, events: Collection[GenerationEvent]) -> bytes:
        for event in events:
            self._blocks.feed(event)
        return _encode(self._final(self._blocks.blocks()))

    def _final(self, content: list[Any]) -> MessageReplyBody:
        blocks = self._blocks
        reason = self._stop_reason()
        return msgspec.structs.replace(
            self._message,
            content=content,
            stop_reason=reason,
            stop_sequence=blocks.stop if reason == "stop_sequence" else None,
            usage=_usage(blocks.usage, blocks.searches),
        )

    def _stop_reason(self) -> StopReason:
        blocks = self._blocks
        match blocks.reason:
            case "length":
                cut_by_context = self._max_tokens is None or 0 < blocks.usage.completion_tokens < self._max_tokens
                return "model_context_window_exceeded" if cut_by_context else "max_tokens"
            case "content_filter":
                return "refusal"
            case _ if blocks.refused:
                return "refusal"
            case _ if blocks.stop is not None:
                return "stop_sequence"
            case _:
                return "tool_use" if blocks.called else "end_turn"

    def _change(self, change: Change) -> bytes:
        match change:
            case TextAdded(index, text):
                return _delta(index, b'{"type":"text_delta","text":%b}' % _encode(text))
            case ThoughtAdded(index, text):
                return _delta(index, b'{"type":"thinking_delta","thinking":%b}' % _encode(text))
            case InputAdded(index, json):
                return _delta(index, b'{"type":"input_json_delta","partial_json":%b}' % _encode(json))
            case Cited(index, citation):
                return _delta(index, b'{"type":"citations_delta","citation":%b}' % _encode(citation))
            case Opened(index, block):
                opened = _event("content_block_start", {"index": index, "content_block": block})
                first, self._begun = not self._begun, True
                return opened + PING if first else opened
            case Closed(index, signature):
                signed = b"" if signature is None else _delta(index, b'{"type":"signature_delta","signature":%b}' % _encode(signature))
                return signed + _event("content_block_stop", {"index": index})


def _delta(index: int, delta: bytes) -> bytes:
    return b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":%b}\n\n' % (index, delta)


def _event(type: str, fields: Mapping[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (type.encode(), _encode({"type": type, **fields}))


def _usage(usage: Usage, searches: int) -> MessageUsage:
    """Anthropic counts what was reused apart."""
    return MessageUsage(
        usage.prompt_tokens - usage.cached_tokens,
        usage.completion_tokens,
        usage.cached_tokens,
        output_tokens_details=OutputDetails(usage.reasoning_tokens),
        server_tool_use=ServerToolUsage(searches) if searches else None,
    )
