"""Tells systemd that the gateway serves, stops, and is alive (https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html).

The protocol is a datagram to a socket that an environment variable names, which is less than a package for it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Mapping

logger = logging.getLogger(__name__)


class Systemd:
    """The service manager; nobody where the environment names none.

    Args:
        environ: NOTIFY_SOCKET, and of a unit with WatchdogSec= WATCHDOG_USEC and WATCHDOG_PID.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address  # a name of Linux's that is no file
        microseconds = environ.get("WATCHDOG_USEC", "")
        ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._watchdog_s = int(microseconds) / 1e6 if microseconds.isdecimal() and ours else 0.0

    def tell(self, state: str) -> None:
        """Something such as `READY=1`. What prevents it is logged: a gateway that serves is better than none."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
                to.setblocking(False)
                to.sendto(state.encode(), self._address)
        except OSError as error:
            logger.warning("systemd at NOTIFY_SOCKET could not be told %s: %s", state, error)

    def keep_alive(self, loop: asyncio.AbstractEventLoop) -> None:
        """Tell it twice in each interval of its watchdog, from the event loop: where that hangs, nobody is served, and it may act."""
        if self._watchdog_s and self._address:
            self.tell("WATCHDOG=1")
            loop.call_later(self._watchdog_s / 2, self.keep_alive, loop)
