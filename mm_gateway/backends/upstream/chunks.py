"""What the chunks of an upstream server's stream say, as events; holds them to what a whole reply is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from mm_gateway.backends.upstream.further_fields import FurtherFields, further_of_call, further_usage
from mm_gateway.backends.upstream.protocol import Choice, Chunk, Delta, Logprobs, ToolCall, WireError
from mm_gateway.backends.upstream.protocol import Usage as WireUsage
from mm_gateway.backends.upstream.reported_errors import error_in
from mm_gateway.backends.upstream.tool_calls import CallReader
from mm_gateway.core import (
    ChoiceFinished,
    FinishReason,
    GenerationEvent,
    MessageFields,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    UrlCitation,
    Usage,
    UsageSoFar,
)

_REASONS: dict[str, FinishReason] = {
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "safety": "content_filter",
}
"""Every other one is a way to stop, but for these:"""
_FAILURES = frozenset({"error", "abort", "aborted", "cancelled", "insufficient_system_resource"})

_UNDERSTOOD = frozenset({"role", *Delta.__struct_fields__})


class ChunkReader:
    """One stream, chunk by chunk.

    Args:
        choices: how many were asked for.
    """

    def __init__(self, choices: int) -> None:
        self._choices = choices
        self._calls: dict[int, CallReader] = {}
        self._reasons: dict[int, FinishReason | None] = {}
        self._deltas = 0
        self._usage: Usage | None = None
        self._further = FurtherFields()

    def read(self, chunk: Mapping[str, Any]) -> Iterator[GenerationEvent]:
        """The events of the next chunk.

        Raises:
            ValueError: it is none of this reply.
        """
        if (reply := self._further.of_reply(chunk)) is not None:
            yield reply
        usage = usage_of(chunk)
        if usage is not None and chunk.get("choices"):
            yield UsageSoFar(usage.prompt_tokens, usage.completion_tokens)
        self._usage = usage or self._usage
        for given in chunk.get("choices") or ():
            choice = msgspec.convert(given, Choice)
            index = choice.index or 0
            if not 0 <= index < self._choices:
                raise ValueError(f"a choice of index {index} where {self._choices} were asked for")
            # A whole message in a chunk; where pieces came before, it says the same again.
            delta = choice.delta or (choice.message if index not in self._reasons else None) or {}
            self._reasons.setdefault(index, None)
            if (beside := self._further.of_choice(index, given)) is not None:
                yield beside
            known = msgspec.convert(delta, Delta)
            # A thought comes before the text that it is for, whatever the order of the fields.
            if thought := _thought(known):
                self._deltas += 1
                yield ReasoningDelta(index, thought)
            if fields := _further(delta, known):
                yield MessageFields(index, fields)
            yield from self._delta(index, known, choice.text or "", _logprobs(choice.logprobs))
            if others := _other_annotations(delta, known):
                yield MessageFields(index, {"annotations": others})
            # Some send "" with every piece. One that is said again is no news.
            if choice.finish_reason and self._reasons[index] is None:
                if choice.finish_reason.lower() in _FAILURES:
                    raise ValueError(f"the finish_reason {choice.finish_reason[:50]}")
                reason = self._reasons[index] = _REASONS.get(choice.finish_reason.lower(), "stop")
                end = given.get("stop_reason")  # as vLLM has it; a number is a token
                stop, token = end if isinstance(end, str) else None, end if isinstance(end, int) else None
                yield ChoiceFinished(index, reason, stop, token)

    def end(self) -> Usage:
        """The usage, once the stream has ended.

        Raises:
            ValueError: it ended before its choices did.
        """
        if not self._reasons or None in self._reasons.values():
            raise ValueError("an end before the reply was complete")
        # A server without usage in streams: each of its chunks is taken for one token, the prompt for none.
        return self._usage or Usage(0, self._deltas)

    def _delta(self, index: int, delta: Delta, text: str, logprobs: tuple[TokenLogprob, ...]) -> Iterator[GenerationEvent]:
        text = text_of(delta.content) or text
        if text or logprobs:
            self._deltas += 1
            yield TextDelta(index, text, logprobs=logprobs)
        for annotation in delta.annotations or ():
            if (cited := annotation.url_citation) is not None:
                yield UrlCitation(index, cited.start_index, cited.end_index, cited.title, cited.url)
        for piece in delta.tool_calls or ():
            if "custom" in piece:  # of a tool that is no function: its client knows what it asked for
                yield MessageFields(index, {"tool_calls": [piece]})
                continue
            reader = self._calls.setdefault(index, CallReader(index))
            if (call := reader.read(msgspec.convert(piece, ToolCall))) is not None:
                yield call
            if reader.last is not None and (further := further_of_call(piece)):
                yield MessageFields(index, {"tool_calls": [{"index": reader.last, **further}]})


def text_of(content: str | list[dict[str, Any]] | None) -> str:
    """The text of a message's content."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if part.get("type") == "text")
    return content or ""


def _thought(known: Delta) -> str:
    """Some send it under both names."""
    return next((text for text in (known.reasoning_content, known.reasoning) if isinstance(text, str) and text), "")


def _further(delta: Mapping[str, Any], known: Delta) -> dict[str, Any]:
    """What of a delta no event stands for, as it came; parts of the content that are no text as `content_parts`."""
    thoughts = {"reasoning_content": known.reasoning_content, "reasoning": known.reasoning}
    others = {name for name, value in thoughts.items() if not isinstance(value, str)}
    fields = {name: value for name, value in delta.items() if (name not in _UNDERSTOOD or name in others) and value is not None}
    if isinstance(known.content, list) and (parts := [part for part in known.content if part.get("type") != "text"]):
        fields["content_parts"] = parts
    return fields


def _other_annotations(delta: Mapping[str, Any], known: Delta) -> list[Any]:
    """Those that are no citations of addresses."""
    annotations = zip(delta.get("annotations") or (), known.annotations or (), strict=True)
    return [given for given, read in annotations if read.url_citation is None]


def read_chunk(data: bytes) -> Mapping[str, Any] | WireError:
    """The data of one event: a chunk, or an error that the server tells of.

    Raises:
        msgspec.MsgspecError: it is neither.
    """
    given = msgspec.json.decode(data)
    try:
        chunk = msgspec.convert(given, Chunk)
    except msgspec.ValidationError:
        if (error := error_in(given)) is None:
            raise
        return error
    if chunk.error is None and (chunk.choices is not None or chunk.usage is not None):
        return given
    return error_in(given) or given


def _logprobs(found: Logprobs | None) -> tuple[TokenLogprob, ...]:
    if found is None:
        return ()
    if found.content is not None:
        return tuple(
            TokenLogprob(
                entry.token,
                _bytes(entry.token, entry.bytes),
                entry.logprob,
                tuple((top.token, _bytes(top.token, top.bytes), top.logprob) for top in entry.top_logprobs or ()),
            )
            for entry in found.content
        )
    tops = found.top_logprobs or [None] * len(found.tokens or ())
    return tuple(
        TokenLogprob(token, _bytes(token, None), logprob, tuple((name, _bytes(name, None), value) for name, value in (top or {}).items()))
        for token, logprob, top in zip(found.tokens or (), found.token_logprobs or (), tops, strict=False)
    )


def chat_logprobs_of(given: Any) -> tuple[TokenLogprob, ...]:
    """Of a list in chat's shape; none where there is none."""
    return _logprobs(msgspec.convert({"content": given}, Logprobs)) if given else ()


def _bytes(token: str, given: list[int] | None) -> tuple[int, ...]:
    return tuple(token.encode() if given is None else given)


def usage_of(chunk: Mapping[str, Any]) -> Usage | None:
    usage = msgspec.convert(chunk.get("usage"), WireUsage | None)
    if usage is None or usage.prompt_tokens is None:
        return None
    cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else None
    reasoning = usage.completion_tokens_details.reasoning_tokens if usage.completion_tokens_details else None
    return Usage(usage.prompt_tokens, usage.completion_tokens or 0, cached or 0, reasoning or 0, further=further_usage(chunk["usage"]))
