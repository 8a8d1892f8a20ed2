"""Reads tool calls out of a model's text, choice by choice; for backends whose models write them as text."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

from mm_gateway.chat_templates.tool_formats.format import Parsed, ParsedArguments, ParsedCall, ParsedText, ToolParser
from mm_gateway.core import ChoiceFinished, FinishReason, GenerationEvent, TextDelta, TokenLogprob, ToolCallDelta, ToolUse


def new_call_id() -> str:
    return f"call_{secrets.token_hex(12)}"


def finish_reason(use: ToolUse, reason: FinishReason, *, called: bool) -> FinishReason:
    """How a choice ended: calls that the model chose end with `tool_calls`, one that was prescribed with `stop`."""
    return "tool_calls" if called and use.only is None and reason == "stop" else reason


async def read_tool_calls(
    events: AsyncIterator[GenerationEvent], use: ToolUse, new_parser: Callable[[], ToolParser]
) -> AsyncIterator[GenerationEvent]:
    """The events with calls in the place of their text. Log-probabilities are those of all tokens, calls included."""
    choices: dict[int, _Choice] = {}
    async for event in events:
        match event:
            case TextDelta(index=index):
                choice = choices.setdefault(index, _Choice(index, use, new_parser()))
                for found in choice.read(choice.parser.feed(event.text), event.logprobs):
                    yield found
            case ChoiceFinished(index=index, finish_reason=reason):
                choice = choices.setdefault(index, _Choice(index, use, new_parser()))
                for found in choice.read(choice.parser.end(), ()):
                    yield found
                yield ChoiceFinished(index, finish_reason(use, reason, called=choice.calls > 0))
            case _:
                yield event


class _Choice:
    def __init__(self, index: int, use: ToolUse, parser: ToolParser) -> None:
        self.parser = parser
        self.calls = 0
        self._index = index
        self._most = None if use.several else 1

    def read(self, pieces: Sequence[Parsed], logprobs: tuple[TokenLogprob, ...]) -> Iterator[GenerationEvent]:
        for piece in pieces:
            match piece:
                case ParsedText(text):
                    # What follows a call that was to be the only one is neither text nor a call.
                    if self._most is None or not self.calls:
                        yield TextDelta(self._index, text, logprobs=logprobs)
                        logprobs = ()
                case ParsedCall(name):
                    self.calls += 1
                    if not self._over:
                        yield ToolCallDelta(self._index, self.calls - 1, id=new_call_id(), name=name)
                case ParsedArguments(text):
                    if not self._over:
                        yield ToolCallDelta(self._index, self.calls - 1, arguments=text)
        if logprobs:
            yield TextDelta(self._index, "", logprobs=logprobs)

    @property
    def _over(self) -> bool:
        return self._most is not None and self.calls > self._most
