"""Which function the mock calls, and its calls piece by piece."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from mm_gateway.backends.mock.choice import made_up_logprob
from mm_gateway.backends.mock.directives import Directives, read_directives
from mm_gateway.backends.mock.vectors import word_ids
from mm_gateway.backends.tool_calls import finish_reason, new_call_id
from mm_gateway.core import ChatInput, ChoiceFinished, GenerationConfig, GenerationEvent, TextDelta, Tool, ToolCallDelta, ToolUse
from mm_gateway.errors import InvalidRequestError
from mm_gateway.stop_strings import StopStrings


def called_tool(chat: ChatInput, orders: Directives) -> Tool | None:
    """The function to be called: the one of the request's choice, else the one that is ordered, else the next in turn.

    In turn: each once between a user's message and the answer to it. None: text, which has to be ordered (`tokens=`) or is due.

    Raises:
        InvalidRequestError: the request has no function of the name that is ordered.
    """
    use = chat.tools
    if use is None:
        return None
    if (name := use.only or orders.call) is not None:
        return _named(use, name)
    asked = max((index for index, message in enumerate(chat.messages) if message.role == "user"), default=-1)
    since = chat.messages[asked + 1 :]
    called = {call.name for message in since for call in message.tool_calls}
    left = [tool for tool in use.tools if tool.name not in called]
    if use.required:
        return left[0] if left else use.tools[-1]
    ordered = asked >= 0 and read_directives(chat.messages[asked].content).call is not None
    done = orders.tokens is not None or (ordered and any(message.role == "tool" for message in since))
    return left[0] if left and not done else None


def _named(use: ToolUse, name: str) -> Tool:
    found = next((tool for tool in use.tools if tool.name == name), None)
    if found is None:
        raise InvalidRequestError(f"!mock call={name}: the request has no such tool", param="messages")
    return found


class MockCalls:
    """One choice that calls functions, perhaps after a text: a piece of it a step.

    Args:
        index: of the choice in the reply. text: before the calls, in tokens. calls: each function's name with its arguments in tokens,
            at least one; only the first is called where the request allows one. limit: tokens at most.
    """

    def __init__(
        self,
        index: int,
        config: GenerationConfig,
        use: ToolUse,
        calls: Sequence[tuple[str, Sequence[str]]],
        *,
        text: Sequence[str] = (),
        limit: int,
    ) -> None:
        self.index = index
        self._config = config
        self._use = use
        self._text = deque(text)
        self._calls = [(name, deque(arguments)) for name, arguments in (calls if use.several else calls[:1])]
        self._stops = StopStrings(config.stop, shown=frozenset(config.stop) if config.include_stop_str_in_output else frozenset())
        self._call = 0
        self._begun = False
        self._limit = limit
        self.generated = 0
        self.finished = False

    def step(self) -> list[GenerationEvent]:
        """The events of one more token."""
        self.generated += 1
        text, stopped, call = "", False, None
        if self._text:
            piece = self._text.popleft()
            text, stopped = self._stops.add(piece)
            if not self._text and not stopped:
                text += self._stops.flush()
        else:
            piece, call = self._next_of_call()
        config = self._config
        ids = word_ids([piece]) if config.return_token_ids else ()
        logprobs = (made_up_logprob(piece, config.logprobs, config),) if config.logprobs is not None else ()
        events: list[GenerationEvent] = [call] if call is not None else []
        if text or ids or logprobs:
            events.append(TextDelta(self.index, text, ids, logprobs))
        if stopped:
            events.append(ChoiceFinished(self.index, "stop", self._stops.found))
        elif self._call == len(self._calls):
            events.append(ChoiceFinished(self.index, finish_reason(self._use, "stop", called=True)))
        elif self.generated >= self._limit:
            events.append(ChoiceFinished(self.index, "length"))
        self.finished = bool(events) and isinstance(events[-1], ChoiceFinished)
        return events

    def _next_of_call(self) -> tuple[str, ToolCallDelta]:
        name, arguments = self._calls[self._call]
        piece = arguments.popleft()
        first, self._begun = not self._begun, bool(arguments)
        event = ToolCallDelta(self.index, self._call, piece, id=new_call_id() if first else None, name=name if first else None)
        self._call += not arguments
        return piece, event
