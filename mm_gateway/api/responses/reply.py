"""Reply of `/v1/responses`: the named events of a stream, the whole response as the fold of the same changes, and its keeping."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from typing import Any

import msgspec

from mm_gateway.api.errors import HttpError, http_error
from mm_gateway.api.replies.logprobs import chat_logprobs
from mm_gateway.api.replies.reply import is_large
from mm_gateway.api.responses.call_items import Called
from mm_gateway.api.responses.changes import (
    Annotated,
    Change,
    Closed,
    CommandAdded,
    CommandClosed,
    CommandPieceAdded,
    Opened,
    PieceAdded,
    Searched,
    SummingUp,
    TextAdded,
)
from mm_gateway.api.responses.items import Kind
from mm_gateway.api.responses.output import Output
from mm_gateway.core import GenerationEvent, Usage
from mm_gateway.errors import InvalidRequestError, UpstreamError
from mm_gateway.protocol.response_calls import ApplyPatchCallItem, CustomCallItem, LocalShellCallItem, ShellCallItem
from mm_gateway.protocol.response_searches import FileSearchCallItem, SearchItem, WebSearchCallItem
from mm_gateway.protocol.responses import (
    CompactionItem,
    FunctionCallItem,
    IncompleteDetails,
    InputTokensDetails,
    OutputItem,
    OutputText,
    OutputTokensDetails,
    ReasoningText,
    Refusal,
    ResponseFailure,
    ResponseObject,
    ResponseUsage,
)
from mm_gateway.work_pools import BODIES

_encode = msgspec.json.Encoder().encode

Part = OutputText | Refusal | ReasoningText

Keep = Callable[[ResponseObject], Awaitable[bool]]
"""Stores a response; False where that failed."""

_PADDED_TO = 16
"""Bytes of which an obfuscated delta has a multiple."""

_CALL_EVENTS: Mapping[type, str] = {
    FunctionCallItem: "function_call_arguments",
    CustomCallItem: "custom_tool_call_input",
    ApplyPatchCallItem: "apply_patch_call_operation_diff",
}
_RENAMED = {"max_tokens": "max_output_tokens", "response_format": "text.format", "response_format.json_schema.schema": "text.format.schema"}
_TOOL_FIELD = re.compile(r"^(tools\[\d+\])\.function\.")


class ResponseReply:
    """One response.

    Args:
        response: as it is before the first event. new_id, called, include: see Output.
        logprobs: whether they were asked for. obfuscate: whether deltas are padded, so that their sizes tell nothing of the text.
        encrypt: makes the `encrypted_content` of thoughts; None: they have none. summary: see Output.
        keep: called with the response once it is final; None: it is not stored.

    Attributes:
        response: as it is now; final once the reply is.
    """

    stages = False
    heartbeat = b""

    def __init__(
        self,
        response: ResponseObject,
        new_id: Callable[[Kind], str],
        *,
        called: Mapping[str, Called],
        include: Collection[str],
        logprobs: bool,
        obfuscate: bool,
        keep: Keep | None,
        encrypt: Callable[[str], str] | None = None,
        summary: Callable[[str], str] | None = None,
    ) -> None:
        self.response = response
        self._output = Output(new_id, called=called, include=include, logprobs=logprobs, encrypt=encrypt, summary=summary)
        self._obfuscate = obfuscate
        self._keep = keep
        self._sequence_number = 0
        self._had_large = False
        self._heads: list[bytes] = []  # of each item's deltas, encoded once

    def start(self) -> bytes:
        return self._event("response.created", {"response": self.response}) + self.in_progress()

    def queued(self) -> bytes:
        """What the stream of one that runs in the background begins with."""
        return self._event("response.created", {"response": self.response}) + self._event("response.queued", {"response": self.response})

    def in_progress(self) -> bytes:
        """Its first event has come."""
        self.response = msgspec.structs.replace(self.response, status="in_progress")
        return self._event("response.in_progress", {"response": self.response})

    def chunk(self, event: GenerationEvent) -> bytes:
        self._had_large = self._had_large or is_large([event])
        return b"".join([self._change(change) for change in self._output.feed(event)])

    async def end(self, error: BaseException | None) -> bytes:
        error = error or self._output.failure
        if error is None:
            response = await self._kept(self._final())
            last = partial(self._event, f"response.{response.status}", {"response": response})
            return await BODIES.run(last) if self._had_large else last()
        found = http_error(self.for_client(error))
        response = await self._kept(msgspec.structs.replace(self.response, status="failed", error=_failure(found)))
        started = b"" if self._sequence_number else self.start()
        body = found.body
        # The fields stand where the API's description has them, and in an object, where OpenAI sends them and its clients look.
        told = self._event("error", {"code": body.code, "message": body.message, "param": body.param, "error": body})
        return started + told + self._event("response.failed", {"response": response})

    async def cancelled(self) -> bytes:
        """It was ended on request, for which there is no event."""
        await self._kept(msgspec.structs.replace(self.response, status="cancelled"))
        return b""

    async def fold(self, events: Collection[GenerationEvent]) -> bytes:
        large = is_large(events)
        final = await BODIES.run(self._fold, events) if large else self._fold(events)
        kept = await self._kept(final)
        return await BODIES.run(_encode, kept) if large else _encode(kept)

    def _fold(self, events: Collection[GenerationEvent]) -> ResponseObject:
        for event in events:
            self._output.feed(event)
        if self._output.failure is not None:
            raise self._output.failure
        return self._final()

    def field_for_client(self, path: str) -> str:
        return _refor_client(path)

    def for_client(self, error: BaseException) -> BaseException:
        if isinstance(error, InvalidRequestError | UpstreamError) and error.param is not None:
            error.param = _refor_client(error.param)
        return error

    def in_envelope(self, found: HttpError) -> HttpError:
        return found

    def _final(self) -> ResponseObject:
        output = self._output
        reason = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(output.reason)
        return msgspec.structs.replace(
            self.response,
            status="incomplete" if reason else "completed",
            completed_at=None if reason else int(time.time()),
            incomplete_details=IncompleteDetails(reason) if reason else None,  # type: ignore[arg-type]
            output=output.items(),
            service_tier=output.service_tier or self.response.service_tier,
            usage=_usage(output.usage or Usage(0, 0)),
        )

    async def _kept(self, response: ResponseObject) -> ResponseObject:
        """The response as it is told to the client: not stored where that failed, which costs the next turn but not this reply."""
        kept = self._keep is None or await self._keep(response)
        self.response = response if kept else msgspec.structs.replace(response, store=False)
        return self.response

    def _change(self, change: Change) -> bytes:
        match change:
            case TextAdded(index, _, text, tokens):
                logprobs = _encode(chat_logprobs(tokens).content) if tokens else b"[]"
                return self._delta(index, b'%b,"logprobs":%b' % (_encode(text), logprobs))
            case PieceAdded(index, _, text):
                return self._delta(index, _encode(text))
            case Opened(index, item, part):
                return self._opened(index, item, part)
            case Annotated(index, id, number, annotation):
                place = {"item_id": id, "output_index": index, "content_index": 0, "annotation_index": number}
                return self._event("response.output_text.annotation.added", {**place, "annotation": annotation})
            case SummingUp(index, item):
                self._heads.append(b"")  # it has no deltas
                at = {"item_id": item.id, "output_index": index}
                opened = self._event("response.output_item.added", {"output_index": index, "item": item})
                return opened + self._event("response.compaction.compacting", at)
            case Searched(index, item):
                self._heads.append(b"")  # it has no deltas
                opened = self._event(
                    "response.output_item.added", {"output_index": index, "item": msgspec.structs.replace(item, status="in_progress")}
                )
                at = {"item_id": item.id, "output_index": index}
                kind = _type_of(item)
                return opened + self._event(f"response.{kind}.in_progress", at) + self._event(f"response.{kind}.searching", at)
            case CommandAdded(index, number):
                at = {"output_index": index, "command_index": number}
                self._heads[index] = _head("response.shell_call_command.delta", at)
                return self._event("response.shell_call_command.added", {**at, "command": ""})
            case CommandPieceAdded(index, _, text):
                return self._delta(index, _encode(text))
            case CommandClosed(index, number, command):
                return self._event("response.shell_call_command.done", {"output_index": index, "command_index": number, "command": command})
            case Closed(index, item):
                return self._closed(index, item)

    def _opened(self, index: int, item: OutputItem, part: Part | None) -> bytes:
        opened = self._event("response.output_item.added", {"output_index": index, "item": item})
        at: dict[str, Any] = {"item_id": item.id, "output_index": index}
        if part is None:
            self._heads.append(_head(f"response.{_CALL_EVENTS.get(type(item), '')}.delta", at))
            return opened
        at["content_index"] = 0
        self._heads.append(_head(f"response.{_name(part)}.delta", at))
        return opened + self._event("response.content_part.added", {**at, "part": part})

    def _closed(self, index: int, item: OutputItem) -> bytes:
        at: dict[str, Any] = {"item_id": item.id, "output_index": index}
        if isinstance(item, FunctionCallItem):
            closed = self._event("response.function_call_arguments.done", {**at, "name": item.name, "arguments": item.arguments})
        elif isinstance(item, CustomCallItem):
            closed = self._event("response.custom_tool_call_input.done", {**at, "input": item.input})
        elif isinstance(item, ApplyPatchCallItem) and "diff" in item.operation:
            closed = self._event("response.apply_patch_call_operation_diff.done", {**at, "diff": item.operation["diff"]})
        elif isinstance(item, LocalShellCallItem | ShellCallItem | ApplyPatchCallItem | CompactionItem):
            closed = b""
        elif isinstance(item, WebSearchCallItem | FileSearchCallItem):
            closed = self._event(f"response.{_type_of(item)}.completed", at) if item.status == "completed" else b""
        else:
            (part,) = item.content or []
            assert isinstance(part, OutputText | Refusal | ReasoningText)
            at["content_index"] = 0
            whole = {name: value for name, value in msgspec.structs.asdict(part).items() if name != "annotations"}
            closed = self._event(f"response.{_name(part)}.done", {**at, **whole})
            closed += self._event("response.content_part.done", {**at, "part": part})
        return closed + self._event("response.output_item.done", {"output_index": index, "item": item})

    def _delta(self, index: int, delta: bytes) -> bytes:
        self._sequence_number += 1
        if self._obfuscate:
            delta += b',"obfuscation":"%b"' % secrets.token_urlsafe(_PADDED_TO)[: -len(delta) % _PADDED_TO].encode()
        return b'%b%b,"sequence_number":%d}\n\n' % (self._heads[index], delta, self._sequence_number - 1)

    def _event(self, type: str, fields: Mapping[str, Any]) -> bytes:
        self._sequence_number += 1
        data = _encode({"type": type, "sequence_number": self._sequence_number - 1, **fields})
        return b"event: %b\ndata: %b\n\n" % (type.encode(), data)


def _name(part: Part) -> str:
    """Of a part's events, which is its type."""
    return str(type(part).__struct_config__.tag)


def _type_of(item: SearchItem) -> str:
    return str(type(item).__struct_config__.tag)


def _head(type: str, fields: Mapping[str, Any]) -> bytes:
    """An event's bytes up to its delta."""
    return b'event: %b\ndata: %b,"delta":' % (type.encode(), _encode({"type": type, **fields})[:-1])


def _refor_client(param: str) -> str:
    """A field in the words of this endpoint's body; backends use those of chat."""
    if param == "messages" or param.startswith("messages["):
        return "input"
    return _RENAMED.get(param) or _TOOL_FIELD.sub(r"\1.", param)


def _failure(error: HttpError) -> ResponseFailure:
    code = "rate_limit_exceeded" if error.status == 429 else "invalid_prompt" if error.status < 500 else "server_error"
    return ResponseFailure(code, error.body.message)


def _usage(usage: Usage) -> ResponseUsage:
    return ResponseUsage(
        usage.prompt_tokens,
        InputTokensDetails(usage.cached_tokens),
        usage.completion_tokens,
        OutputTokensDetails(usage.reasoning_tokens),
        usage.prompt_tokens + usage.completion_tokens,
    )
