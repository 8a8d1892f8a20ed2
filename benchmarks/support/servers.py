"""Starts and stops the servers of a comparison, each in its own process group on a free port; knows nothing of what they are asked."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PORT = "{port}"


@dataclass(frozen=True)
class ServerCommand:
    """How to start one server.

    Attributes:
        name: as it stands in the tables. command: `{port}` in an argument is replaced by the port.
        model: what requests name. environment: added to this process's own.
    """

    name: str
    command: tuple[str, ...]
    model: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def shown(self) -> str:
        """The command without folders, as the documentation gives it."""
        return " ".join(part.rsplit("/", 1)[-1] if part.startswith("/") else part for part in self.command)


def gateway_of(name: str, models: Mapping[str, object], folder: Path) -> ServerCommand:
    """A gateway with these entries, which it reads from a file in a folder that is there; it logs no requests."""
    file = folder.resolve() / f"{name}.yaml"
    file.write_text(json.dumps({"models": models}))
    command = (sys.executable, "-m", "mm_gateway.main", "serve", "--models", str(file), "--port", PORT)
    return ServerCommand(name, command, "mock", {"MM_GATEWAY_SERVER_REQUEST_LOG": "off"})


class ServerError(Exception):
    """A server did not start or died; the message ends with the tail of its log."""


@dataclass(frozen=True)
class RunningServer:
    """A server that answers. Attributes: base_url: up to and including /v1. pid: of its first process."""

    base_url: str
    pid: int
    model: str


def free_port() -> int:
    """A TCP port of the loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running(
    server: ServerCommand, *, health: str = "/health", ready_timeout_s: float = 180.0, log_path: Path | None = None
) -> Iterator[RunningServer]:
    """The server, ready; its whole process group is gone afterwards.

    Args:
        log_path: what it writes goes there; None: only an error shows the end of it.

    Raises:
        ServerError: it cannot be run, ended, or was not ready in time.
    """
    port = free_port()
    with tempfile.TemporaryFile() if log_path is None else log_path.open("w+b") as log:
        try:
            process = subprocess.Popen(
                [part.replace(PORT, str(port)) for part in server.command],
                env=os.environ | server.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise ServerError(f"{server.name} cannot be run: {error}") from error
        try:
            if problem := _wait_until_ready(process, port, health, ready_timeout_s):
                log.seek(0)
                tail = log.read()[-3000:].decode(errors="replace")
                raise ServerError(f"{server.name} {problem}: {' '.join(server.command)}\n{tail}")
            yield RunningServer(f"http://127.0.0.1:{port}/v1", process.pid, server.model)
        finally:
            _stop(process)


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, health: str, timeout_s: float) -> str | None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            return f"ended with status {process.returncode}"
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", health)
            if connection.getresponse().status == 200:
                return None
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.1)
    return f"was not ready after {timeout_s:.0f} s"


def _stop(process: subprocess.Popen[bytes], grace_s: float = 10.0) -> None:
    # The leader may be gone while workers of its group live on, so the group is signalled in any case.
    for sig in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sig)
        except ProcessLookupError:
            break
        try:
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            continue
    process.wait(grace_s)
