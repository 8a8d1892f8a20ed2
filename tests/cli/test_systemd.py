"""What systemd is told, over a real socket of its kind, by a real server."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mm_gateway.cli.systemd import Systemd

MODELS = '{"models": {"mock": {"model_name": "mock", "backend": "mock"}}}'


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(30)
        yield listener


def test_a_server_says_that_it_is_ready_alive_and_stopping(manager: socket.socket, tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text(MODELS)
    server = subprocess.Popen(
        [sys.executable, "-m", "mm_gateway.main", "serve", "--models", str(tmp_path / "models.yaml"), "--port", "0"],
        env=os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000", "XDG_DATA_HOME": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert [manager.recv(100) for _ in range(4)] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1", b"WATCHDOG=1"]
        server.send_signal(signal.SIGTERM)
        while (told := manager.recv(100)) == b"WATCHDOG=1":
            pass
        assert told == b"STOPPING=1"
        assert server.wait(20) == 0
    finally:
        server.kill()


def test_it_goes_to_names_of_linux_that_are_no_file() -> None:
    name = f"mm-gateway-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name)
        listener.settimeout(5)
        Systemd({"NOTIFY_SOCKET": "@" + name}).tell("READY=1")
        assert listener.recv(100) == b"READY=1"


async def test_nobody_is_told_where_nobody_asks_and_another_process_has_the_watchdog(manager: socket.socket, tmp_path: Path) -> None:
    Systemd({}).tell("READY=1")
    Systemd({"NOTIFY_SOCKET": str(tmp_path / "gone")}).tell("READY=1")
    other = Systemd({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"})
    other.keep_alive(asyncio.get_running_loop())
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(100)
