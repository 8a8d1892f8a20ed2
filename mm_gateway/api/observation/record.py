"""The record of one request: who asked, for what, how it went, and when; metrics, logs, usage and the page are made of it."""

from __future__ import annotations

import logging
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from mm_gateway.configuration.price import Price, dearest
from mm_gateway.core import (
    ChoiceFinished,
    Embedding,
    FinishReason,
    GenerationEvent,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageSoFar,
)
from mm_gateway.timeline import Timeline

logger = logging.getLogger(__name__)

GAP_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds, in seconds, of the classes in which gaps between tokens are counted; one more class is above them."""

_OUTPUT = (TextDelta, ReasoningDelta, ToolCallDelta)


class RequestRecord:
    """One request, as far as it has come. Belongs to the event loop; its times are seconds of `time.monotonic`.

    Attributes:
        request_id: that of the header `x-request-id`.
        method: of HTTP.
        endpoint: the path as the table of endpoints has it; "" where there is none of the request's path.
        key: the principal: its key's name, or the beginning of the key's hash; "" where no key is asked for, or it was refused.
        model: name of the entry that answers, never an alias or a name that nothing has; "" until that is known.
        stream: the reply is sent as server-sent events.
        status: of HTTP; None until the reply begins. A stream that fails has 200 and an `error`.
        error: what ended the request, where it did not end well.
        error_code: the error's code, or its type where it has none, as the client is told; "" without an error.
        client_gone: the client hung up before the end.
        prompt_guess: tokens of the prompt, by the size of the body. price: of the model's tokens, at most.
            None: they cost nothing. prices: of all models that have one, by name.
        usage: tokens as the backend counted them at the end; None where it did not come so far.
        so_far: tokens as the backend told them on the way; None: it did not.
        pieces: of output that came. Several tokens may be one piece.
        finish_reasons: of the choices that ended.
        arrived_at: Unix seconds. arrived: the same on the clock of the others.
        begun: the request was admitted and handed to a backend. first_output, last_output: pieces of text, thought, call, or a vector.
        ended: the reply is out, or given up. Each of the four is None until then.
        outlived: its work goes on behind its reply, and whoever does it tells the observers once it has ended.
        timeline: where its time went, by what the backends tell.
        listener: told of every event of the backend, where it is to be traced.
        gaps: how many gaps between two pieces of one choice fell into each class of GAP_BOUNDS_S. gaps_s: their sum.
    """

    __slots__ = (
        "_last_piece",
        "arrived",
        "arrived_at",
        "begun",
        "client_gone",
        "ended",
        "endpoint",
        "error",
        "error_code",
        "finish_reasons",
        "first_output",
        "gaps",
        "gaps_s",
        "key",
        "last_output",
        "listener",
        "method",
        "model",
        "outlived",
        "pieces",
        "price",
        "prices",
        "prompt_guess",
        "request_id",
        "so_far",
        "status",
        "stream",
        "timeline",
        "usage",
    )

    def __init__(self, request_id: str, method: str) -> None:
        self.request_id = request_id
        self.method = method
        self.endpoint = self.key = self.model = ""
        self.stream = False
        self.status: int | None = None
        self.error: BaseException | None = None
        self.error_code = ""
        self.client_gone = self.outlived = False
        self.usage: Usage | None = None
        self.so_far: UsageSoFar | None = None
        self.pieces = self.prompt_guess = 0
        self.price: Price | None = None
        self.prices: Mapping[str, Price] = {}
        self.finish_reasons: list[FinishReason] = []
        self.arrived_at = time.time()
        self.arrived = time.monotonic()
        self.timeline = Timeline(request_id=request_id)
        self.listener: Callable[[GenerationEvent], None] | None = None
        self.begun: float | None = None
        self.first_output: float | None = None
        self.last_output: float | None = None
        self.ended: float | None = None
        self.gaps: list[int] | None = None
        self.gaps_s = 0.0
        self._last_piece: dict[int, float] = {}

    @property
    def price_paid(self) -> Price | None:
        """Of the tokens of whoever answered: of a group's member; where several had a part, of the dearest."""
        members = self.timeline.members
        return dearest([self.prices.get(member, Price()) for member in members]) if members else self.price

    @property
    def prompt_tokens(self) -> int:
        """As counted at the end, else as told on the way, else 0."""
        told = self.usage or self.so_far
        return told.prompt_tokens if told is not None else 0

    @property
    def output_tokens(self) -> int:
        """As counted at the end; of a request that was broken off, what was told on the way, and at least one a piece that came."""
        if self.usage is not None:
            return self.usage.completion_tokens
        return max(self.pieces, self.so_far.completion_tokens if self.so_far is not None else 0)

    @property
    def duration_s(self) -> float:
        """From its arrival to the end, or until now."""
        return (time.monotonic() if self.ended is None else self.ended) - self.arrived

    @property
    def time_to_first_token_s(self) -> float | None:
        return None if self.first_output is None else self.first_output - self.arrived

    def observe(self, event: GenerationEvent) -> None:
        """One event of its backend, when it comes."""
        if self.listener is not None:
            self.listener(event)
        if isinstance(event, _OUTPUT):
            self._piece(event.index)
        elif isinstance(event, Embedding):
            self.last_output = time.monotonic()
            self.first_output = self.first_output or self.last_output
        elif isinstance(event, ChoiceFinished):
            self.finish_reasons.append(event.finish_reason)
        elif isinstance(event, Usage):
            self.usage = event
        elif isinstance(event, UsageSoFar):
            self.so_far = event

    def failed(self, error: BaseException, code: str) -> None:
        """It ends with this error, which the client is told by this code."""
        self.error, self.error_code = error, code

    def _piece(self, choice: int) -> None:
        now = self.last_output = time.monotonic()
        self.pieces += 1
        before = self._last_piece.get(choice)
        self._last_piece[choice] = now
        if before is None:
            if self.first_output is None:
                self.first_output = now
            return
        if self.gaps is None:
            self.gaps = [0] * (len(GAP_BOUNDS_S) + 1)
        self.gaps[bisect_left(GAP_BOUNDS_S, now - before)] += 1
        self.gaps_s += now - before


class Observer(Protocol):
    """Told of every request once, on the event loop, when its reply has ended. It must not block, nor keep what it is given for long."""

    def finished(self, record: RequestRecord) -> None: ...


def tell(observers: Iterable[Observer], record: RequestRecord) -> None:
    """Hand a record that is complete to each observer. One that fails is logged, and harms neither the request nor the others."""
    for observer in observers:
        try:
            observer.finished(record)
        except Exception:
            logger.exception("%s failed on request %s", type(observer).__name__, record.request_id)
