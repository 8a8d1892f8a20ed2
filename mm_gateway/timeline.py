"""Where the time of one request goes: spans, told by whoever does the work to whoever follows the request. Knows nothing of either.

Who follows nothing (a program that uses an engine by itself) pays next to nothing: no timeline, no spans.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, Protocol

SpanName = Literal["load", "render", "grammar", "queue", "prefill", "decode", "stage", "search", "fetch", "upstream"]
"""load: until its model is in memory. render: template and tokenizer. grammar: until one is compiled. queue, prefill, decode: in the
engine, until its turn comes, its first token, its end. stage: of a workflow. search, fetch: asking a provider, reading pages. upstream:
another server's answer."""


class SpanFollower(Protocol):
    """Who is told of each span as it begins and ends, to trace it. Times are seconds of `time.monotonic`."""

    def begin(self, name: SpanName, started: float, attributes: Mapping[str, Any], parent: Any) -> Any:
        """Returns what `end`, `headers`, and `begin` of its children are given."""
        ...

    def end(self, span: Any, ended: float, attributes: Mapping[str, Any], error: BaseException | None) -> None: ...

    def headers(self, span: Any) -> dict[str, str]:
        """What tells another server which span its work belongs to."""
        ...


class Timeline:
    """The spans of one request. Belongs to its event loop.

    Attributes:
        request_id: names the request in logs.
        seconds: by name, the spans of that name that have ended, added up; those that ran side by side count each.
        members: of groups, by name, that answered the request or a part of it.
    """

    __slots__ = ("follower", "members", "request_id", "seconds")

    def __init__(self, follower: SpanFollower | None = None, request_id: str = "") -> None:
        self.follower = follower
        self.request_id = request_id
        self.seconds: dict[SpanName, float] = {}
        self.members: list[str] = []


_current: ContextVar[tuple[Timeline, Any] | None] = ContextVar("timeline", default=None)
"""The timeline of the request, and the stage that what begins now belongs to."""


class Span:
    """One that has begun. attributes: may be added to until it ends."""

    __slots__ = ("_name", "_started", "_timeline", "_told", "attributes")

    def __init__(self, timeline: Timeline, name: SpanName, attributes: dict[str, Any], parent: Any, started: float) -> None:
        self._timeline = timeline
        self._name: SpanName = name
        self._started = started
        self.attributes = attributes
        self._told = timeline.follower.begin(name, started, attributes, parent) if timeline.follower is not None else None

    def headers(self) -> dict[str, str]:
        """For a request to another server, which is part of it; often none."""
        return self._timeline.follower.headers(self._told) if self._timeline.follower is not None else {}

    def end(self, ended: float, error: BaseException | None = None) -> None:
        seconds = self._timeline.seconds
        seconds[self._name] = seconds.get(self._name, 0.0) + ended - self._started
        if self._timeline.follower is not None:
            self._timeline.follower.end(self._told, ended, self.attributes, error)

    @property
    def place(self) -> tuple[Timeline, Any]:
        """Where what belongs to it is put."""
        return self._timeline, self._told


NOBODY = Timeline()
"""Follows what no request is followed for."""


def follow(timeline: Timeline) -> None:
    """What begins from now on in this context, and in the tasks that it starts, belongs to this timeline."""
    _current.set((timeline, None))


def request_id() -> str:
    """Of the request of this context; "" outside of one."""
    current = _current.get()
    return current[0].request_id if current is not None else ""


def answered_by(member: str) -> None:
    """A member of a group begins to reply to the request of this context."""
    if (current := _current.get()) is not None and member not in current[0].members:
        current[0].members.append(member)


@contextmanager
def span(name: SpanName, **attributes: Any) -> Generator[Span]:
    """Something that takes time, within the request of this context. It may lie around the `yield` of an asynchronous generator."""
    timeline, parent = _current.get() or (NOBODY, None)
    begun = Span(timeline, name, attributes, parent, time.monotonic())
    try:
        yield begun
    except BaseException as error:
        begun.end(time.monotonic(), error)
        raise
    begun.end(time.monotonic())


def past(name: SpanName, started: float, ended: float, **attributes: Any) -> None:
    """A span that was measured elsewhere."""
    timeline, parent = _current.get() or (NOBODY, None)
    Span(timeline, name, attributes, parent, started).end(ended)


def stage(name: str) -> Callable[[str | None], None]:
    """A stage of a workflow begins; spans of this context belong to it until it ends.

    Returns:
        What ends it, told why it did less than it is for; None: it did not.
    """
    before = _current.get()
    timeline, parent = before or (NOBODY, None)
    begun = Span(timeline, "stage", {"stage": name}, parent, time.monotonic())
    _current.set(begun.place)

    def end(fault: str | None) -> None:
        _current.set(before)
        if fault is not None:
            begun.attributes["fault"] = fault
        begun.end(time.monotonic())

    return end
