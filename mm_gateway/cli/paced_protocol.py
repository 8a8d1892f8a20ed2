"""uvicorn's HTTP protocol in small pieces of work: what clients do at one moment takes many turns of the event loop, not a long one."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from mm_gateway.cli.turns import ProtocolTurns

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

PIECE_BYTES = 4 * 2**10
"""What is parsed at a time: in chunks of one byte it holds 680 of them."""


class PacedProtocol(HttpToolsProtocol):
    """Parses large bodies piece by piece, and begins and ends requests in turns that all connections share.

    The application begins when the body is there, or HIGH_WATER_LIMIT bytes of it, since it refuses some large ones unread: a request
    that never comes to its end costs it nothing.

    Args:
        turns: of all connections. max_body_bytes: of what announces more, the application hears at once. Others: uvicorn's.
    """

    def __init__(
        self,
        *,
        turns: ProtocolTurns,
        max_body_bytes: int,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._turns = turns
        self._max_body_bytes = max_body_bytes
        self._unread = memoryview(b"")
        """What has arrived and waits for its turn to be parsed."""
        self._has_turn = False
        self._waiting_app: ASGI3Application | None = None
        """Answers the request whose body is not there yet."""
        self._begun: RequestResponseCycle | None = None
        """The request that the application has got, or gets in its turn; `cycle` may be one that came after it and waits in `pipeline`."""

    def connection_lost(self, exc: Exception | None) -> None:
        begun = self._answering() and self._waiting_app is None
        self._forget_request()
        self._unset_keepalive_if_required()
        if begun:  # the application has something to give up
            for cycle in self._unanswered():
                cycle.disconnected = True
            self._turns.ends.add(functools.partial(self._end, exc))
        else:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._unread and len(data) <= PIECE_BYTES and not self.pipeline:
            self._read(data)
            return
        self._unread = memoryview(bytes(self._unread) + data if self._unread else data)
        self.transport.pause_reading()  # not through `flow`, which is for those who wait for the application
        self._go_on()

    def on_response_complete(self) -> None:
        super().on_response_complete()  # which reads on
        if self._unread and not self.transport.is_closing():
            self.transport.pause_reading()
            self._go_on()

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        if self._waiting_app is not None and len(self.cycle.body) > HIGH_WATER_LIMIT:
            self._begin(self._waiting_app, self.cycle)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if self._waiting_app is not None:
            self._begin(self._waiting_app, self.cycle)

    def shutdown(self) -> None:
        super().shutdown()
        if self._waiting_app is not None:  # from now on it is a request that has the grace to come to its end, and ends after it
            self._begin(self._waiting_app, self.cycle)

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _unanswered(self) -> list[RequestResponseCycle]:
        """Requests whose heads are there and whose replies are not, the one that the application has first."""
        cycles = dict.fromkeys((self._begun, *(cycle for cycle, _ in reversed(self.pipeline)), self.cycle))
        return [cycle for cycle in cycles if cycle is not None and not cycle.response_complete]

    def _end(self, exc: Exception | None) -> None:
        if self._begun is not None:
            self._begun.message_event.set()
        super().connection_lost(exc)

    def _forget_request(self) -> None:
        """It does not come to its end, and what came after it is not answered."""
        self._waiting_app = None
        self.pipeline.clear()
        self._unread = memoryview(b"")

    def _read(self, data: bytes | memoryview) -> None:
        super().data_received(data)  # type: ignore[arg-type]  # the parser takes any buffer

    def _go_on(self) -> None:
        """Parse more in a turn of its own. Not while requests wait for their replies: what is parsed then would wait with them, and there
        is no end to what a client can send."""
        if self._unread and not self.pipeline and not self._has_turn:
            self._has_turn = True
            self._turns.reads.add(self._read_on)

    def _read_on(self) -> None:
        self._has_turn = False
        piece, self._unread = self._unread[:PIECE_BYTES], self._unread[PIECE_BYTES:]
        if not self.transport.is_closing():
            self._read(piece)
        if self.transport.is_closing():
            self._unread = memoryview(b"")
        elif self._unread:
            self._go_on()
        elif not self.flow.read_paused:
            self.transport.resume_reading()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """uvicorn's word that a head is there, and nothing before it left to answer."""
        if cycle is not self.cycle or not cycle.more_body or self._is_too_large():
            self._begin(app, cycle)
            return
        self._waiting_app = app
        if cycle.waiting_for_100_continue:
            cycle.waiting_for_100_continue = False
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _begin(self, app: ASGI3Application, cycle: RequestResponseCycle) -> None:
        self._waiting_app, self._begun = None, cycle
        turns = self._turns.lookups if cycle.scope["method"] in ("GET", "HEAD", "OPTIONS") else self._turns.requests
        turns.add(functools.partial(self._answer, app, cycle))

    def _answer(self, app: ASGI3Application, cycle: RequestResponseCycle) -> bool:
        """False: its client is gone."""
        if not cycle.disconnected:
            super()._start_asgi_task(cycle, app)
        return not cycle.disconnected

    def _is_too_large(self) -> bool:
        """The answer is no, and the client need not send it."""
        length = next((value for name, value in self.headers if name == b"content-length"), b"0")
        return int(length) > self._max_body_bytes
