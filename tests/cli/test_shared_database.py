"""Processes over one PostgreSQL: one of them is killed, or the server is, under load; nothing that was acknowledged is lost."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.postgres import PostgresServer

ROOT = Path(__file__).parents[2]
ADMIN = {"authorization": "Bearer operator"}


def command(folder: Path, url: str) -> tuple[list[str], dict[str, str]]:
    (folder / "models.yaml").write_text("models: {one: {model_name: x, backend: mock}, other: {model_name: x, backend: mock}}")
    (folder / "gateway.yaml").write_text("server: {request_log: 'off'}")
    files = ["--models", str(folder / "models.yaml"), "--config", str(folder / "gateway.yaml")]
    settings = {"MM_GATEWAY_STORAGE_URL": url, "MM_GATEWAY_ADMIN_KEYS": "operator", "PYTHONPATH": str(ROOT)}
    return [sys.executable, "-m", "mm_gateway.main", "serve", "--port", "0", *files], {**os.environ, **settings}


@contextmanager
def gateway(folder: Path, url: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A process, and its address."""
    arguments, environment = command(folder, url)
    said = folder / f"stderr-{time.monotonic_ns()}"
    with said.open("wb") as stderr, subprocess.Popen(arguments, stderr=stderr, cwd=folder, env=environment) as process:
        try:
            deadline = time.monotonic() + 120
            while "startup complete" not in (text := said.read_text()):
                assert process.poll() is None and time.monotonic() < deadline, text
                time.sleep(0.05)
            found = re.search(r"http://127\.0\.0\.1:\d+", text)
            assert found is not None
            yield process, found[0]
        finally:
            process.kill()


@dataclass(frozen=True)
class Acknowledged:
    """A response that a client was told is stored."""

    id: str
    by: str


class Load:
    """Clients that store responses until the end of the block. addresses: of gateways, by the model that each is asked for."""

    def __init__(self, addresses: dict[str, str], clients: int = 3) -> None:
        self.stored: list[Acknowledged] = []
        self.refused: list[httpx.Response] = []
        self.wrong: list[str] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=row) for row in list(addresses.items()) * clients]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def count(self, by: str) -> int:
        return sum(stored.by == by for stored in self.stored)

    def wait_for(self, count: int, by: str) -> None:
        deadline = time.monotonic() + 60
        while self.count(by) < count:
            assert time.monotonic() < deadline, (self.wrong, [reply.text for reply in self.refused[-3:]])
            time.sleep(0.02)

    def _run(self, model: str, address: str) -> None:
        with httpx.Client(base_url=address, trust_env=False, timeout=30) as client:
            while not self._over.is_set():
                try:
                    reply = client.post("/v1/responses", json={"model": model, "input": "Hi"})
                except httpx.TransportError:
                    return  # it was killed
                if reply.status_code == 200:
                    if reply.json()["store"]:
                        self.stored.append(Acknowledged(reply.json()["id"], model))
                elif reply.status_code == 503 and "retry-after" in reply.headers:
                    self.refused.append(reply)
                    time.sleep(0.05)
                else:
                    self.wrong.append(reply.text)


def missing(address: str, stored: list[Acknowledged]) -> list[Acknowledged]:
    with httpx.Client(base_url=address, trust_env=False, timeout=30) as client:
        return [one for one in stored if client.get(f"/v1/responses/{one.id}").status_code != 200]


def usage(address: str, model: str) -> int:
    """Requests that were counted."""
    reply = httpx.get(f"{address}/admin/usage?group_by=&model={model}", headers=ADMIN, trust_env=False, timeout=30)
    return sum(row["requests"] for row in reply.json()["data"])


def test_what_a_killed_gateway_acknowledged_is_read_through_another(tmp_path: Path, database_url: str) -> None:
    with ExitStack() as stack:
        (killed, one), (_, other) = (stack.enter_context(gateway(tmp_path, database_url)) for _ in range(2))
        with Load({"one": one, "other": other}, clients=2) as load:
            load.wait_for(20, "one")
            # The last moment's usage goes with a process that is killed: what is seen elsewhere by now stays.
            before, deadline = load.count("one"), time.monotonic() + 30
            while usage(other, "one") < before:
                assert time.monotonic() < deadline
            killed.kill()
            load.wait_for(load.count("other") + 10, "other")
        assert not load.wrong and not load.refused
        assert missing(other, load.stored) == []
        assert usage(other, "one") >= before
        assert usage(other, "other") == load.count("other")


def test_a_server_that_is_killed_and_starts_again_is_used_again(tmp_path: Path, postgres: PostgresServer, database_url: str) -> None:
    with gateway(tmp_path, database_url) as (process, address):
        with Load({"one": address}) as load:
            load.wait_for(20, "one")
            postgres.stop(signal.SIGQUIT)
            try:
                deadline = time.monotonic() + 30
                while len(load.refused) < 5:
                    assert time.monotonic() < deadline
                    time.sleep(0.02)
                chat = {"model": "other", "messages": [{"role": "user", "content": "Hi"}]}
                assert httpx.post(f"{address}/v1/chat/completions", json=chat, trust_env=False, timeout=30).status_code == 200
            finally:
                postgres.start()
            load.wait_for(load.count("one") + 20, "one")
        assert not load.wrong and process.poll() is None
        assert all(reply.json()["error"]["code"] == "storage_unavailable" for reply in load.refused)
        assert missing(address, load.stored) == []
        assert usage(address, "one") >= load.count("one") and usage(address, "other") == 1  # what was used meanwhile is written too


def test_a_database_that_is_not_there_is_said_before_the_port_opens(tmp_path: Path) -> None:
    arguments, environment = command(tmp_path, "postgresql://gateway:secret-word@127.0.0.1:1/gateway")
    done = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "storage.url: the database 127.0.0.1:1/gateway cannot be used: " in done.stderr and "Connection refused" in done.stderr
    assert "serves" not in done.stderr and "Traceback" not in done.stderr and "secret-word" not in done.stderr + done.stdout
