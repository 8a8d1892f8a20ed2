"""uvicorn's HTTP protocol with bounds: of what a client may send before there is a request, of the time it may take for everything,
and of the work that one turn of the event loop does for all of them.

What it answers by itself is in the envelope.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import Any, Literal

import uvicorn
from uvicorn.server import ServerState

from mm_gateway.cli.connections import WaitingConnections
from mm_gateway.cli.held_bytes import HeldBytes
from mm_gateway.cli.http_1_0 import UntilCloseCycle
from mm_gateway.cli.paced_protocol import PacedProtocol
from mm_gateway.cli.turns import ProtocolTurns
from mm_gateway.configuration.server_settings import ServerSettings

MAX_HEAD_BYTES = 64 * 2**10
MIN_BODY_BYTES_PER_S = 4096
"""Slower is no line that anybody has; 16 MiB may take an hour."""


class EnvelopeProtocol(PacedProtocol):
    """Refuses what is no HTTP, and lines without end, which the parser itself would collect: heads, and trailers and sizes of chunks.

    MAX_HEAD_BYTES bounds each. A head, a body, and a reader that is behind have deadlines.

    Args:
        settings: the deadlines. waiting: where the connection is listed while it owes a request. held: counts what it has sent and got
        no answer to. Others: those of PacedProtocol.
    """

    def __init__(
        self,
        *,
        settings: ServerSettings,
        waiting: WaitingConnections,
        held: HeldBytes,
        turns: ProtocolTurns,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(
            turns=turns,
            max_body_bytes=settings.max_body_bytes,
            config=config,
            server_state=server_state,
            app_state=app_state,
            _loop=_loop,
        )
        self._settings = settings
        self._waiting = waiting
        self._held = held
        self._in_head = False
        self._line_bytes = 0  # of the head so far; elsewhere what came since the last piece of a body
        self._body_bytes = 0  # of this request, framing included
        self._owes: Literal["head", "body", "request", "nothing"] = "head"
        """What the client has to send: `request`: another one, or to hang up; uvicorn's keep-alive timer is for that."""
        self._part = 0
        """Counts the changes of `_owes`, since one body may follow another."""
        self._timed_part = -1
        self._deadline: asyncio.TimerHandle | None = None
        self._write_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._held.release(self)
        self._owe("nothing")
        self._watch()
        self._stop_write_deadline()

    def _read(self, data: bytes | memoryview) -> None:
        self._line_bytes += len(data)
        self._body_bytes += len(data)
        super()._read(data)
        if self.transport.is_closing():
            return
        if self._line_bytes > MAX_HEAD_BYTES:
            self._refuse(431, "Request Header Fields Too Large", f"The request's headers exceed {MAX_HEAD_BYTES} bytes")
            return
        if self._owes == "request":  # empty lines, which the parser passes over; uvicorn's timer has stopped
            self._owe("head")
        if self._owes == "head" or (self._owes == "body" and not self.cycle.response_complete):
            self._held.add(self, len(data))
        # Here and not as the parts begin: most requests come whole, and start no timer.
        self._watch()

    def on_message_begin(self) -> None:
        self._in_head = True
        self._owe("head")
        super().on_message_begin()

    def on_body(self, body: bytes) -> None:
        self._line_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._line_bytes = 0
        self._owe("nothing")
        self._held.complete(self)
        super().on_message_complete()
        if self.cycle.response_complete:  # it was refused before its body was there, which has stopped uvicorn's keep-alive timer
            self._owe("head")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # else it is a trailer of a chunked body, which nobody reads
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._line_bytes = self._body_bytes = 0
        self._owe("body")
        super().on_headers_complete()
        if self.scope["http_version"] == "1.0" and self.cycle is not None:
            self.cycle.__class__ = UntilCloseCycle  # uvicorn makes the cycle, and takes no other class for it

    def on_response_complete(self) -> None:
        self._held.release(self)
        super().on_response_complete()
        if self.transport.is_closing():
            # What the client does not take would keep the connection.
            self._start_write_deadline()
        elif self._owes == "nothing" and not self._answering():
            self._owe("request")
        elif self._owes == "head":  # the next one has begun, and has its own deadline
            self._unset_keepalive_if_required()
        self._watch()

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():  # closing would wait until the client takes it
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start_write_deadline()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self._stop_write_deadline()

    def give_up(self) -> None:
        """Others need its place."""
        self._owe("nothing")
        self._watch()
        self.transport.abort()

    def refuse_for_room(self) -> None:
        """As `_refuse`, for HeldBytes."""
        self._refuse(
            429,
            "Too Many Requests",
            f"The server is busy: the requests that it holds exceed {self._held.bound} bytes. Please try again later",
            kind="rate_limit_error",
            code="rate_limit_exceeded",
        )

    def _owe(self, what: Literal["head", "body", "request", "nothing"]) -> None:
        self._owes = what
        self._part += 1

    def _watch(self) -> None:
        """Start and stop the deadline, and be listed, as the part in which the request is asks for."""
        if self._timed_part == self._part:
            return
        if self._owes == "head" and self._answering():
            return  # a pipelined request, which has time until the one before is answered
        self._timed_part = self._part
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        address = self.client[0] if self.client else ""
        if self._owes == "nothing":
            self._waiting.discard(self, address)
            return
        if self._owes == "head":
            self._deadline = self.loop.call_later(self._settings.head_timeout_s, self._head_is_late)
        elif self._owes == "body":
            self._await_body(self.loop.time(), self._settings.body_timeout_s)
        self._waiting.add(self, address)

    def _head_is_late(self) -> None:
        if self._in_head or self._line_bytes:
            self._refuse(408, "Request Timeout", f"The request's headers took longer than {self._settings.head_timeout_s:g} s")
        else:
            self.transport.abort()

    def _await_body(self, since: float, seconds: float) -> None:
        self._deadline = self.loop.call_later(seconds, self._check_body, since)

    def _check_body(self, since: float) -> None:
        if self.flow.read_paused:  # it is we who do not read
            self._body_bytes = 0
            self._await_body(self.loop.time(), self._settings.body_timeout_s)
            return
        left = since + self._settings.body_timeout_s + self._body_bytes / MIN_BODY_BYTES_PER_S - self.loop.time()
        if left > 0:
            self._await_body(since, left)
        else:
            self._refuse(
                408,
                "Request Timeout",
                f"The request's body took longer than {self._settings.body_timeout_s:g} s and came slower than {MIN_BODY_BYTES_PER_S} "
                "bytes a second",
            )

    def _start_write_deadline(self) -> None:
        self._stop_write_deadline()
        self._write_deadline = self.loop.call_later(self._settings.write_timeout_s, self.transport.abort)

    def _stop_write_deadline(self) -> None:
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None

    def _unsupported_upgrade_warning(self) -> None:
        """There are no web sockets here; the request is answered like any other."""

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "Bad Request", msg)

    def _refuse(self, status: int, reason: str, message: str, *, kind: str = "invalid_request_error", code: str | None = None) -> None:
        unanswered = self._unanswered()
        self._forget_request()
        for cycle in unanswered:
            # The requests before, or this one, whose body broke: to the application, their client is gone.
            cycle.disconnected = True
            cycle.message_event.set()
        if any(cycle.response_started for cycle in unanswered):  # what follows would be taken for a part of that reply
            self.transport.close()
            return
        error = {"message": message, "type": kind, "param": None, "code": code}
        body = json.dumps({"error": error}).encode()
        head = f"HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n"
        if status == 429:
            head += "retry-after: 1\r\nretry-after-ms: 1000\r\n"
        head += f"x-request-id: req_{secrets.token_hex(16)}\r\nopenai-processing-ms: 0\r\n\r\n"
        self.transport.write(head.encode() + body)
        self.transport.close()
        self._start_write_deadline()
