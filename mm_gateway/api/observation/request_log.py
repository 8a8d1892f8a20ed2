"""One line a request on stdout, as text or JSON: who asked what, how it ended, where its time went. Never what was asked or answered."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime
from typing import Literal, TextIO

import msgspec

from mm_gateway.api.observation.record import RequestRecord
from mm_gateway.work_pools import LOGS

READS = ("GET", "HEAD")
"""What machines and the page look at every few seconds is logged only where it fails, unless it is of clients' own."""
INTERVAL_S = 0.1
"""Lines are written so often, on a thread: a terminal or a pipe that is slow must not be what tokens wait for."""
MAX_LINES = 20_000
"""That wait to be written; beyond it the log says how many are missing."""


class LogLine(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A request as JSON; what does not apply is left out. Times are seconds."""

    time: str
    """Of its arrival, UTC."""
    request_id: str
    method: str
    endpoint: str
    """As the table of endpoints has it; "" where the path is not served."""
    status: int | None
    duration_s: float
    """Until the reply was out."""
    model: str = ""
    members: list[str] = []
    """Where the model is a group: who answered."""
    key: str = ""
    stream: bool = False
    error: str = ""
    """Its code, or its type where it has none."""
    client_gone: bool = False
    finish_reasons: list[str] = []
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    accepted_tokens: int = 0
    """Of the output, those that were guessed."""
    rejected_tokens: int = 0
    """Tokens that were guessed, and are not in the output."""
    usage_is_partial: bool = False
    """It was broken off: output_tokens counts the pieces that came."""
    first_token_s: float | None = None
    spans_s: dict[str, float] = {}
    """load, render, queue, prefill, decode, stage, search, fetch, upstream: what the request waited for, added up by name."""


def line_of(record: RequestRecord) -> LogLine:
    """A request that has ended."""
    usage = record.usage
    return LogLine(
        time=datetime.fromtimestamp(record.arrived_at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        request_id=record.request_id,
        method=record.method,
        endpoint=record.endpoint,
        status=record.status,
        duration_s=round(record.duration_s, 4),
        model=record.model,
        members=[*record.timeline.members],
        key=record.key,
        stream=record.stream,
        error=record.error_code,
        client_gone=record.client_gone,
        finish_reasons=[*record.finish_reasons],
        prompt_tokens=record.prompt_tokens,
        output_tokens=record.output_tokens,
        cached_tokens=usage.cached_tokens if usage is not None else 0,
        reasoning_tokens=usage.reasoning_tokens if usage is not None else 0,
        accepted_tokens=usage.accepted_tokens if usage is not None else 0,
        rejected_tokens=usage.rejected_tokens if usage is not None else 0,
        usage_is_partial=usage is None and record.begun is not None,
        first_token_s=None if record.time_to_first_token_s is None else round(record.time_to_first_token_s, 4),
        spans_s={name: round(seconds, 4) for name, seconds in record.timeline.seconds.items()},
    )


def as_text(line: LogLine) -> str:
    """For people: the fields that are always there, then the others by name. Nothing in it breaks a line."""
    words = [line.time, line.request_id, line.method, line.endpoint or "-", str(line.status or "-"), f"{line.duration_s:.3f}s"]
    if line.first_token_s is not None:
        words.append(f"first={line.first_token_s:.3f}s")
    words += [f"{name}={seconds:.3f}s" for name, seconds in line.spans_s.items()]
    for name in ("model", "key", "error"):
        if value := getattr(line, name):
            words.append(f"{name}={_word(value)}")
    words += [f"member={_word(member)}" for member in line.members]
    for name in ("prompt_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "accepted_tokens", "rejected_tokens"):
        if count := getattr(line, name):
            words.append(f"{name.removesuffix('_tokens')}={count}{'+' if name == 'output_tokens' and line.usage_is_partial else ''}")
    if line.finish_reasons:
        words.append(f"finish={','.join(line.finish_reasons)}")
    words += [name for name in ("stream", "client_gone") if getattr(line, name)]
    return " ".join(words)


class RequestLog:
    """An observer. kind: how lines are written. out: where to; None: stdout, as it is when they are written."""

    def __init__(self, kind: Literal["text", "json"], out: TextIO | None = None) -> None:
        self._write = as_text if kind == "text" else _as_json
        self._out = out
        self._lines: list[str] = []
        self._missing = 0
        self._flush: asyncio.TimerHandle | None = None

    def finished(self, record: RequestRecord) -> None:
        if record.method in READS and not record.endpoint.startswith("/v1") and (record.status or 500) < 400:
            return
        if len(self._lines) >= MAX_LINES:
            self._missing += 1
            return
        self._lines.append(self._write(line_of(record)))
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(INTERVAL_S, self._start_flush)

    def close(self) -> None:
        """Write what is left."""
        if self._flush is not None:
            self._flush.cancel()
        self._put(self._taken())

    def _start_flush(self) -> None:
        writing = asyncio.ensure_future(LOGS.run(self._put, self._taken()))
        writing.add_done_callback(self._flushed)

    def _flushed(self, writing: asyncio.Future[None]) -> None:
        # An error of the stream is nobody's here: who closes stdout does not want the log.
        if not writing.cancelled():
            writing.exception()
        self._flush = asyncio.get_running_loop().call_later(INTERVAL_S, self._start_flush) if self._lines else None

    def _taken(self) -> str:
        lines, self._lines = self._lines, []
        if self._missing:
            lines.append(f"{self._missing} lines of the request log are missing here: they came faster than they could be written")
            self._missing = 0
        return "".join(f"{line}\n" for line in lines)

    def _put(self, text: str) -> None:
        if text:
            out = self._out or sys.stdout
            out.write(text)
            out.flush()


def _as_json(line: LogLine) -> str:
    return msgspec.json.encode(line).decode()


def _word(text: str) -> str:
    """A name in one word: quoted where it is none, or could pass for more than it is."""
    plain = text.isprintable() and not any(character in ' "=' for character in text)
    return text if plain else json.dumps(text)
