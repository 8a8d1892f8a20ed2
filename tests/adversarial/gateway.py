"""Starts the gateway that is attacked, in a process of its own, with a web site that misbehaves, and watches it."""

from __future__ import annotations

import contextlib
import gzip
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import msgspec
import psutil

from benchmarks.support.servers import PORT, ServerCommand, running
from tests.adversarial.attack import ADMIN_KEY
from tests.adversarial.prober import PROBE_TIMEOUT_S, Observation

KV_BYTES_PER_TOKEN = 12 * 1024
"""Of tiny-chat: 6 layers, keys and values, 256 numbers of 4 bytes."""

TEMPLATES = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}x",
    "wide": "{{ '%1000000000d' % 1 }}{{ 'x' * 3000000000 }}",
    "deep": "{% macro f(n) %}{{ f(n + 1) }}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "power": "{{ 9 ** 9 ** 9 }}",
    "doubling": "{% set t = namespace(x='xxxxxxxx') %}{% for i in range(60) %}{% set t.x = t.x ~ t.x %}{% endfor %}{{ t.x | length }}",
}


@dataclass
class Watch:
    """What the prober has seen so far; its thread appends, a test reads."""

    observations: list[Observation] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def read(self, lines: Iterator[bytes]) -> None:
        for line in lines:
            with self.changed:
                self.observations.append(msgspec.json.decode(line, type=Observation))
                self.changed.notify_all()

    def between(self, started_s: float, ended_s: float) -> list[Observation]:
        """All that were under way in that time. Waits for a probe that began after it, so that none is missing."""

        def complete() -> bool:
            return any(one.kind == "probe" and one.started_s >= ended_s for one in reversed(self.observations))

        with self.changed:
            assert self.changed.wait_for(complete, 2 * PROBE_TIMEOUT_S), "the prober is gone"
            return [one for one in self.observations if one.started_s + one.seconds >= started_s and one.started_s <= ended_s]


@dataclass(frozen=True)
class Gateway:
    """A gateway that answers, under watch. log: what it wrote."""

    port: int
    process: psutil.Process
    prober: psutil.Process
    watch: Watch
    site: str
    storage: Path
    log: Path

    def memory_mib(self) -> float:
        return self.process.memory_info().rss / 2**20

    def cpu_s(self) -> float:
        """Of the gateway with its workers, the prober, and this process: what the test itself takes of the machine."""
        total = sum(psutil.Process().cpu_times()[:2]) + sum(self.prober.cpu_times()[:2])
        for process in (self.process, *self.process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += sum(process.cpu_times()[:4])
        return total


@contextlib.contextmanager
def attacked_gateway(folder: Path) -> Iterator[Gateway]:
    """A gateway with the mock, tiny-chat, and tiny-chat under conditions that are hard."""
    site = ThreadingHTTPServer(("127.0.0.1", 0), _Site)
    site.daemon_threads = True
    threading.Thread(target=site.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{site.server_port}"
    log = folder / "gateway.log"
    try:
        with running(_command(folder, address), log_path=log) as server:
            port = int(server.base_url.rpartition(":")[2].partition("/")[0])
            prober = subprocess.Popen(
                [sys.executable, "-m", "tests.adversarial.prober", str(port), str(server.pid)], stdout=subprocess.PIPE
            )
            watch = Watch()
            assert prober.stdout is not None
            reader = threading.Thread(target=watch.read, args=(prober.stdout,))
            reader.start()
            try:
                yield Gateway(port, psutil.Process(server.pid), psutil.Process(prober.pid), watch, address, folder / "storage", log)
            finally:
                prober.kill()
                prober.wait()
                reader.join()
                prober.stdout.close()
    finally:
        site.shutdown()
        site.server_close()


def _command(folder: Path, site: str) -> ServerCommand:
    tiny = {"model_name": "tiny-chat", "path": "builtin:tiny-chat", "device": "cpu"}
    models = {
        "tiny-chat": {**tiny, "preload": True},
        "mock": {"model_name": "mock", "backend": "mock"},
        # Room for one context and a little.
        "tight": {**tiny, "max_context_length": 512, "kv_cache_bytes": 600 * KV_BYTES_PER_TOKEN},
        "brief": {**tiny, "ttl_s": 0.5},
    }
    for name, template in TEMPLATES.items():
        (folder / f"{name}.jinja").write_text(template)
        models[name] = {**tiny, "chat_template": f"{name}.jinja"}
    gateway = {
        "server": {"log_level": "info"},
        "memory": {"max_cached_models": 12, "budget_bytes": "4GiB"},
        "storage": {"folder": str(folder / "storage")},
        "search": {"provider": "searxng", "searxng_url": site, "allow_private_addresses": True},
    }
    (folder / "models.yaml").write_bytes(msgspec.yaml.encode({"default_model": "tiny-chat", "models": models}))
    (folder / "gateway.yaml").write_bytes(msgspec.yaml.encode(gateway))
    command = [sys.executable, "-m", "mm_gateway.main", "serve", "--port", PORT]
    environment = {
        "MM_GATEWAY_MODELS": str(folder / "models.yaml"),
        "MM_GATEWAY_CONFIG": str(folder / "gateway.yaml"),
        "MM_GATEWAY_ADMIN_KEYS": ADMIN_KEY,
        "PYTHONPATH": os.pathsep.join(sys.path[:1] + os.environ.get("PYTHONPATH", "").split(os.pathsep)),
    }
    return ServerCommand("the gateway under attack", tuple(command), "tiny-chat", environment)


class _Site(BaseHTTPRequestHandler):
    """A SearXNG server whose every result is a page of this site, named by the question's first word."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/search":
            word = parse_qs(url.query)["q"][0].split()[0][:20]
            if word == "silent":
                time.sleep(30)
            result = {"url": f"http://{self.headers['host']}/{word}", "title": "A page", "content": "of some use"}
            return self._reply(msgspec.json.encode({"query": word, "results": [result]}), "application/json")
        name = url.path.strip("/")
        if name == "slow":
            self._head("text/html", {})
            with contextlib.suppress(OSError):
                for _ in range(300):
                    self.wfile.write(b"<p>drip</p>")
                    time.sleep(0.1)
            return None
        if name == "bomb":
            return self._reply(gzip.compress(b"<p>word</p>" * 10_000_000, 1), "text/html", {"content-encoding": "gzip"})
        return self._reply(_page(name), "application/pdf" if name == "pdf" else "text/html; charset=utf-8")

    def _reply(self, body: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self._head(kind, {"content-length": str(len(body)), **(headers or {})})
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def _head(self, kind: str, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in {"content-type": kind, **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def _page(name: str) -> bytes:
    """Up to 1.9 MB, below the limit of a page."""
    match name:
        case "attributes":
            inner = "<p " + " ".join(f"a{i}=''" for i in range(150_000)) + ">x</p>"
        case "tags":
            inner = "<div><b><i>" * 100_000
        case "cells":
            inner = "<table><tr>" + "<td>x<td>y" * 50_000 + "</table>"
        case "line":
            inner = "<p>" + "x" * 1_900_000
        case "links":
            inner = "".join(f"<a href='/p{i}'>link {i}</a> " for i in range(50_000))
        case "entities":
            inner = "<p>" + "&amp;&#x1F600;&nosuch" * 80_000
        case "pdf":
            return b"%PDF-1.7\n" + b"1 0 obj << /Kids [1 0 R] /Parent 1 0 R >> endobj\n" * 30_000 + b"startxref 9\n%%EOF"
        case _:
            inner = "<article><h1>A page</h1>" + "<p>A sentence about something that somebody might ask for.</p>" * 20 + "</article>"
    return f"<html><head><title>A page</title></head><body>{inner}</body></html>".encode()
