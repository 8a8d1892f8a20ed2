"""uvicorn's server with an end that nothing can hold up: a grace for what runs, a word to those whose grace is over, status 0."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import signal
import socket
import sys
import threading
from types import FrameType

import uvicorn

from mm_gateway.api.app import GatewayApp
from mm_gateway.cli.acceptor import Acceptor
from mm_gateway.cli.connections import WaitingConnections
from mm_gateway.cli.held_bytes import HeldBytes
from mm_gateway.cli.http_protocol import EnvelopeProtocol
from mm_gateway.cli.systemd import Systemd
from mm_gateway.cli.turns import ProtocolTurns
from mm_gateway.configuration.server_settings import LimitSettings, ServerSettings
from mm_gateway.errors import ShuttingDownError

FAREWELL_S = 2.0
"""For the last words of streams that are ended, before their connections are closed."""
CLOSING_S = 15.0
"""For closing models, stores and providers; what takes longer is left behind."""

logger = logging.getLogger(__name__)


class GatewayServer(uvicorn.Server):
    """Serves until a signal. After the first, new requests get a 503, those that run have `shutdown_grace_s`, then an error that says
    why. The second ends the process at once. SIGHUP reads the files anew, unless it says that the terminal is gone.
    """

    def __init__(self, app: GatewayApp, settings: ServerSettings, limits: LimitSettings) -> None:
        super().__init__(uvicorn_config(app, settings, limits))
        self._app = app
        self._reloads: set[asyncio.Task[bool]] = set()
        self._grace_s = settings.shutdown_grace_s
        self._systemd = Systemd(os.environ)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            leave(128 + sig)
        # Not uvicorn's own: it would raise the signal again at the end, and so decide the exit status.
        self.should_exit = True
        self._app.state.draining = self._app.state.stopping = True
        self._systemd.tell("STOPPING=1")
        # A load, or a thread in a library's hands, may never end. A thread of its own, since the loop may be what hangs.
        last_resort = threading.Timer(self._grace_s + FAREWELL_S + CLOSING_S, self._give_up)
        last_resort.daemon = True
        last_resort.start()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])  # the application; uvicorn listens on nothing
        protocol = functools.partial(
            self.config.http_protocol_class, config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        terminal = sys.stderr.isatty()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._hang_up, terminal)
        self.servers = [Acceptor(listener, protocol, self.config.backlog) for listener in sockets or []]  # type: ignore[assignment]
        self._systemd.tell("READY=1")
        self._systemd.keep_alive(asyncio.get_running_loop())

    def _hang_up(self, terminal: bool) -> None:
        """terminal: it was started from one, whose end is told by the same signal."""
        if terminal and not sys.stderr.isatty():
            self.handle_exit(signal.SIGHUP, None)
            return
        task = asyncio.get_running_loop().create_task(self._app.state.reloader.reload_or_log())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        ending = asyncio.get_running_loop().call_later(self._grace_s, self._end_requests)
        try:
            await super().shutdown(sockets)
        finally:
            ending.cancel()

    def _end_requests(self) -> None:
        ended = self._app.state.admission.interrupt(ShuttingDownError("The server shut down before the reply was complete"))
        if ended:
            logger.warning("%d requests were ended: they took longer than server.shutdown_grace_s (%g s)", ended, self._grace_s)

    def _give_up(self) -> None:
        logger.error("closing took longer than %g s; what still runs is left behind", CLOSING_S)
        leave(0)


def uvicorn_config(app: GatewayApp, settings: ServerSettings, limits: LimitSettings) -> uvicorn.Config:
    """How uvicorn runs the application. How many requests it takes is the application's to bound, which refuses in the envelope."""
    return uvicorn.Config(
        app,
        http=functools.partial(  # type: ignore[arg-type]
            EnvelopeProtocol,
            settings=settings,
            waiting=WaitingConnections(limits.max_waiting_connections),
            turns=ProtocolTurns(),
            held=HeldBytes(limits.max_held_bytes),
        ),
        ws="none",
        log_level=settings.log_level,
        access_log=False,
        timeout_keep_alive=settings.keep_alive_timeout_s,  # type: ignore[arg-type] - it goes to call_later
        timeout_graceful_shutdown=settings.shutdown_grace_s + FAREWELL_S,  # type: ignore[arg-type] - it goes to wait_for
        server_header=False,
    )


def leave(status: int) -> None:
    """End the process. Not `sys.exit`, which would wait for every thread of a pool, and a thread may hang for ever."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
