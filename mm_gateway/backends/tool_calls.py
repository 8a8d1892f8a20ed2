"""Reads tool calls out of a model's text, choice by choice, and stop strings in the text around them; where calls are text."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

import msgspec

from mm_gateway.chat_templates.tool_formats.call_parser import CallParser
from mm_gateway.chat_templates.tool_formats.parsed import Parsed, ParsedArguments, ParsedCall, ParsedText, ToolParser
from mm_gateway.core import ChoiceFinished, FinishReason, GenerationEvent, TextDelta, TokenLogprob, ToolCallDelta, ToolUse
from mm_gateway.stop_strings import StopStrings


def new_call_id() -> str:
    return f"call_{secrets.token_hex(12)}"


def finish_reason(use: ToolUse, reason: FinishReason, *, called: bool) -> FinishReason:
    """How a choice ended: calls that the model chose end with `tool_calls`, one that was prescribed with `stop`."""
    return "tool_calls" if called and use.only is None and reason == "stop" else reason


async def read_tool_calls(
    events: AsyncIterator[GenerationEvent], use: ToolUse, new_parser: Callable[[], ToolParser], *, token_ids: bool = False
) -> AsyncIterator[GenerationEvent]:
    """The events with calls in the place of their text. Log-probabilities are those of all tokens, calls included.

    Args:
        token_ids: whether those of all tokens are told, too.
    """
    choices: dict[int, _Choice] = {}
    async for event in events:
        match event:
            case TextDelta(index=index):
                choice = choices.setdefault(index, _Choice(index, use, new_parser()))
                for found in choice.read(choice.parser.feed(event.text), event.token_ids if token_ids else (), event.logprobs):
                    yield found
            case ChoiceFinished(index=index, finish_reason=reason):
                choice = choices.setdefault(index, _Choice(index, use, new_parser()))
                rest = choice.parser.end(cut=reason == "length", required=use.required)
                for found in choice.read(rest):
                    yield found
                yield msgspec.structs.replace(event, finish_reason=finish_reason(use, reason, called=choice.calls > 0))
            case _:
                yield event


class StopsOutsideCalls:
    """Stop strings in the text around calls: what a call is written with is the format's, and none of the client's business.

    Takes and gives the model's text, calls included.

    Args:
        new_calls: makes what tells them from the text around them. stops: finds the strings.
    """

    def __init__(self, new_calls: Callable[[], CallParser], stops: StopStrings) -> None:
        self._stops = stops
        self._calls = new_calls()
        self._waiting = ""  # text that may still turn out to be part of a stop string, or to be before one
        self._gone = 0  # characters before that
        self._held = 0  # characters of the text around calls that `_stops` holds back…
        self._held_to = 0  # …and where they end

    @property
    def found(self) -> str | None:
        return self._stops.found

    def add(self, text: str, *, may_end: bool = True) -> tuple[str, bool]:
        self._waiting += text
        return self._read(self._calls.feed(text), may_end)

    def end(self, text: str, *, may_end: bool = True) -> tuple[str, bool]:
        free, stopped = self.add(text, may_end=may_end)
        if stopped:
            return free, True
        more, stopped = self._read(self._calls.end(), may_end)
        return free + more + ("" if stopped else self._waiting), stopped

    def _read(self, pieces: Sequence[Parsed], may_end: bool) -> tuple[str, bool]:
        for piece in pieces:
            if not isinstance(piece, ParsedText):
                self._stops.flush()  # no stop string goes on behind a call
                self._held = 0
                continue
            free, stopped = self._stops.add(piece.text, may_end=may_end)
            if stopped:
                return self._release(piece.start - self._held + len(free)), True
            self._held += len(piece.text) - len(free)
            self._held_to = piece.start + len(piece.text)
        return self._release(self._held_to - self._held if self._held else self._calls.position), False

    def _release(self, position: int) -> str:
        """What waits before a position, counted over the whole text."""
        size = max(position - self._gone, 0)
        free, self._waiting = self._waiting[:size], self._waiting[size:]
        self._gone += len(free)
        return free


class _Choice:
    def __init__(self, index: int, use: ToolUse, parser: ToolParser) -> None:
        self.parser = parser
        self.calls = 0
        self._index = index
        self._most = None if use.several else 1

    def read(
        self, pieces: Sequence[Parsed], token_ids: tuple[int, ...] = (), logprobs: tuple[TokenLogprob, ...] = ()
    ) -> Iterator[GenerationEvent]:
        for piece in pieces:
            match piece:
                case ParsedText(text):
                    # What follows a call that was to be the only one is neither text nor a call.
                    if self._most is None or not self.calls:
                        yield TextDelta(self._index, text, token_ids, logprobs)
                        token_ids, logprobs = (), ()
                case ParsedCall(name):
                    self.calls += 1
                    if not self._over:
                        yield ToolCallDelta(self._index, self.calls - 1, id=new_call_id(), name=name)
                case ParsedArguments(text):
                    if not self._over:
                        yield ToolCallDelta(self._index, self.calls - 1, arguments=text)
        if token_ids or logprobs:
            yield TextDelta(self._index, "", token_ids, logprobs)

    @property
    def _over(self) -> bool:
        return self._most is not None and self.calls > self._most
