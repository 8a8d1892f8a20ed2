"""What a dialect is, and what two of them share: which parts of a request they have words for, and thoughts that are brought back."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Protocol

from mm_gateway.backends.tool_calls import finish_reason
from mm_gateway.core import ChatInput, ChoiceFinished, FinishReason, GenerationConfig, GenerationEvent, GenerationRequest, Rendering, Usage
from mm_gateway.errors import UnsupportedParameterError

_REMEMBERED = 1024
_HARMLESS = frozenset({"clamp_to_context", "end_logprobs"})
_NAMES = {"max_new_tokens": "max_tokens", "grammar": "response_format"}


class Dialect(Protocol):
    """One API. path: of its endpoint, below the server's address. headers: that it wants beside the content's."""

    path: str

    def headers(self, key: str | None) -> dict[str, str]: ...

    def body(self, request: GenerationRequest, model: str, thoughts: Thoughts) -> tuple[dict[str, Any], tuple[str, ...]]:
        """A streaming request, and paths of what is left out of it.

        Args:
            model: the server's name of it. thoughts: how those of earlier replies are brought back.

        Raises:
            UnsupportedParameterError: something that would change the reply has no words in it.
        """
        ...

    def reader(self, request: GenerationRequest, thoughts: Thoughts) -> EventReader: ...


class EventReader(Protocol):
    """Reads one stream."""

    def read(self, event: Mapping[str, Any]) -> Iterable[GenerationEvent]:
        """What one of its events says.

        Raises:
            ValueError, KeyError, TypeError: it has another shape. ReportedError: it tells of an error.
        """
        ...

    def end(self) -> Usage:
        """Once the stream has ended.

        Raises:
            ValueError: before the reply was complete.
        """
        ...


class ReportedError(Exception):
    """An event that tells of an error. event: all of it."""

    def __init__(self, event: Mapping[str, Any]) -> None:
        super().__init__(event)
        self.event = event


class Thoughts:
    """What a server wants back with its thoughts, by their text; clients bring the text alone. Bounded; lost with the process."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, Any] = OrderedDict()

    def keep(self, text: str, sealed: Any) -> None:
        self._known[_digest(text)] = sealed
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    def of(self, text: str) -> Any:
        """None: not known."""
        return self._known.get(_digest(text))


class Choice:
    """The one choice of a reply as it grows: calls by the server's own numbers, how it ends."""

    def __init__(self, request: GenerationRequest) -> None:
        assert isinstance(request.input, ChatInput)
        self._use = request.input.tools
        self.calls: dict[int, int] = {}
        self.usage = Usage(0, 0)
        self._finished = False

    def begin_call(self, number: int) -> int:
        """The number of a call of ours."""
        return self.calls.setdefault(number, len(self.calls))

    def finish(self, reason: FinishReason, stop: str | None = None) -> Iterator[ChoiceFinished]:
        if self._finished:
            return
        self._finished = True
        if self.calls and self._use is not None and reason in ("stop", "tool_calls"):
            reason = finish_reason(self._use, "stop", called=True)
        yield ChoiceFinished(0, reason, stop)

    def end(self) -> Usage:
        if not self._finished:
            raise ValueError("an end before the reply was complete")
        return self.usage


def conversation_of(request: GenerationRequest, api: str, config: Collection[str], rendering: Collection[str] = ()) -> ChatInput:
    """The conversation that a request holds, once it is known that all of it can be said.

    Args:
        config, rendering: the fields that the API has words for.

    Raises:
        UnsupportedParameterError: it is none, or has more; `param` names it.
    """
    input = request.input
    if not isinstance(input, ChatInput):
        raise _unsayable(api, "model", f"The model `{request.model}` only converses: its server is asked through {api}")
    defaults, given = GenerationConfig(), request.config
    for name in given.__struct_fields__:
        if name not in _HARMLESS and name not in config and getattr(given, name) != getattr(defaults, name):
            raise _unsayable(api, given.grammar.param if name == "grammar" and given.grammar is not None else _NAMES.get(name, name))
    for name in Rendering.__struct_fields__:
        usual = name == "add_generation_prompt" and input.rendering.continue_final_message
        if name not in rendering and not usual and getattr(input.rendering, name) != getattr(Rendering(), name):
            raise _unsayable(api, "chat_template_kwargs" if name == "variables" else name)
    for name, value in (
        ("echo", input.echo),
        ("truncate_prompt_tokens", input.truncate_prompt_tokens is not None),
        ("workflow", request.workflow is not None),
        ("truncation", input.truncate and "truncation" not in config),
    ):
        if value:
            raise _unsayable(api, name)
    return input


def unsayable_grammar(api: str, param: str) -> UnsupportedParameterError:
    return _unsayable(api, param)


def unsayable_part(api: str, part: Mapping[str, Any], why: str = "") -> UnsupportedParameterError:
    kind = str(part.get("type"))[:50]
    return UnsupportedParameterError(
        f"A part of type '{kind}': the server of this model is asked through its {api} API, which has no {why or 'such thing'}",
        param="messages",
        code="unsupported_value",
    )


def _unsayable(api: str, param: str, message: str | None = None) -> UnsupportedParameterError:
    text = message or f"{param}: the server of this model is asked through its {api} API, which has no such thing"
    return UnsupportedParameterError(text, param=param, code="unsupported_value")


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
