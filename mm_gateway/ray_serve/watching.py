"""Looks after the replicas: how many run, and, for whoever is not part of the cluster, whether it is there."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable

from mm_gateway.ray_serve.placement import Sight
from mm_gateway.ray_serve.replicas import Replicas

logger = logging.getLogger(__name__)

INTERVAL_S = 1.0
CONNECT_S = 2.0
"""In which a cluster that is there takes a connection."""
LOST_AFTER_S = 5.0
"""Without the cluster's control service."""
BACK_AFTER_S = 3.0
"""With it again: Ray ends a process whose cluster goes while it connects."""


class Watch:
    """Looks once a second, from a thread of its own, since whoever looks may hang.

    Args:
        name: of the thread. look: what to do; an error is logged.
    """

    def __init__(self, name: str, look: Callable[[], None]) -> None:
        self._look = look
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when the thread has ended, or hangs."""
        self._ended.set()
        self._thread.join(INTERVAL_S + CONNECT_S)

    def _run(self) -> None:
        while not self._ended.wait(INTERVAL_S):
            try:
                self._look()
            except Exception as error:  # noqa: BLE001 - whatever it is, the next look may do
                logger.warning("Ray: %s", error)


class ClusterSight:
    """Sees the cluster go, and takes it back when it is there again; `look` is for a Watch.

    Args:
        replicas: told when it is gone. address: HOST:PORT of the cluster's control service.
        leave: disconnect from it. enter: connect anew, and tell the replicas.
    """

    def __init__(self, replicas: Replicas, address: str, leave: Callable[[], None], enter: Callable[[], None]) -> None:
        self._replicas = replicas
        self._address = address
        self._leave = leave
        self._enter = enter
        self._connected = True
        self._last_seen = self._there_since = time.monotonic()

    def look(self) -> None:
        there = answers(self._address)
        now = time.monotonic()
        if there:
            self._last_seen = now
        else:
            self._there_since = now
        if self._connected and now - self._last_seen > LOST_AFTER_S:
            logger.error("Ray: the cluster at %s is lost. Requests for its models get a 503 until it is back", self._address)
            self._connected = False
            self._replicas.lost(f"the Ray cluster at {self._address} is not there now")
            self._leave()
        elif not self._connected and now - self._there_since > BACK_AFTER_S:
            self._enter()
            self._connected = True
            logger.warning("Ray: the cluster at %s is back", self._address)


def counted(replicas: Replicas, sight: Sight) -> Watch:
    """A watch that tells the replicas how many of them run."""
    told = ""

    def see() -> None:
        nonlocal told
        if not replicas.connected:
            return
        now = sight.look()
        if now is None:
            return
        replicas.count(now)
        if bool(now.why) != bool(told):
            told = now.why
            if told:
                logger.warning("Ray: %d replicas of the models have no place: %s", now.waiting, told)
            else:
                logger.warning("Ray: all replicas of the models have a place")

    return Watch("ray-replicas", see)


def answers(address: str) -> bool:
    """Whether anything listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host.strip("[]"), int(port)), CONNECT_S):
        return True
    return False
