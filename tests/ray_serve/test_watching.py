"""The cluster is seen to go and to come back."""

from __future__ import annotations

import socket

import pytest

from mm_gateway.ray_serve import watching
from mm_gateway.ray_serve.replicas import Replicas
from mm_gateway.ray_serve.watching import ClusterSight, Watch


def _listener(port: int = 0) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen()
    return listener


def test_a_cluster_is_left_when_it_is_gone_for_long_and_entered_when_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now, done = [0.0], list[str]()
    monkeypatch.setattr(watching.time, "monotonic", lambda: now[0])
    with _listener() as cluster:
        port = cluster.getsockname()[1]
        sight = ClusterSight(Replicas(may_be_none=False), f"127.0.0.1:{port}", lambda: done.append("left"), lambda: done.append("entered"))
        sight.look()
    for now[0] in (1.0, watching.LOST_AFTER_S):  # it may only be starting anew
        sight.look()
    assert done == []
    now[0] = watching.LOST_AFTER_S + 1
    sight.look()
    sight.look()
    assert done == ["left"]
    with _listener(port):
        sight.look()
        sight.look()
        assert done == ["left"]  # it may go again at once
        now[0] += watching.BACK_AFTER_S + 1
        sight.look()
        sight.look()
    assert done == ["left", "entered"]


def test_an_entry_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def enter() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise RuntimeError("still starting")

    monkeypatch.setattr(watching, "INTERVAL_S", 0.01)
    monkeypatch.setattr(watching, "LOST_AFTER_S", -1.0)
    with _listener() as cluster:
        address = f"127.0.0.1:{cluster.getsockname()[1]}"
        sight = ClusterSight(Replicas(may_be_none=False), address, lambda: None, enter)
        sight.look()  # lost at once
        monkeypatch.setattr(watching, "LOST_AFTER_S", 60.0)
        monkeypatch.setattr(watching, "BACK_AFTER_S", -1.0)
        watch = Watch("test", sight.look)
        watch.start()
        while len(tries) < 3:
            pass
        watch.stop()
    assert len(tries) == 3
