"""A hub on loopback that speaks the part of the hub's API that huggingface_hub calls: search, repositories and their trees, files with
entity tags and ranges, large ones behind a redirect to a store of their own, gated repositories.

https://huggingface.co/docs/hub/api
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import huggingface_hub.constants
import pytest

LARGE = (".safetensors", ".bin", ".gguf")


@dataclass
class Repository:
    """files: content by name. info: further fields of the hub's answer. sizes: said of a file in place of its own."""

    files: dict[str, bytes]
    gated: bool = False
    info: dict[str, Any] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    @property
    def commit(self) -> str:
        return hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()

    def size(self, name: str) -> int:
        return self.sizes.get(name, len(self.files[name]))


class FakeHub(ThreadingHTTPServer):
    """repositories: by name. requests: method, path and headers of what came. token: opens gated repositories.

    break_after: bytes after which the next download of a large file is cut off, once for each entry.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.break_after: list[int] = []
        self.token = "hf_right"

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, name: str, files: dict[str, bytes] | Path, **fields: Any) -> Repository:
        """A repository with these files, or those of a folder."""
        if isinstance(files, Path):
            files = {path.name: path.read_bytes() for path in files.iterdir() if path.is_file()}
        repository = self.repositories[name] = Repository(files, **fields)
        return repository

    def downloads(self, part: str = "/store/") -> list[tuple[str, str | None]]:
        """Path and range of every GET of a large file; part: of other paths."""
        return [(path, headers.get("range")) for method, path, headers in self.requests if method == "GET" and part in path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> FakeHub:
        assert isinstance(self.server, FakeHub)
        return self.server

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.hub.requests.append((self.command, self.path, headers))
        url = urlsplit(self.path)
        parts = url.path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self._api("/".join(parts[2:]), parse_qs(url.query))
        elif "resolve" in parts:
            place = parts.index("resolve")
            self._resolve("/".join(parts[:place]), parts[place + 1], "/".join(parts[place + 2 :]))
        elif parts[0] == "store":
            self._store(parts[1])
        else:
            self._answer(404)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        return

    def _api(self, rest: str, query: dict[str, list[str]]) -> None:
        if not rest:
            return self._json(self._found(query))
        name, _, tree = rest.partition("/tree/")
        name, _, revision = name.partition("/revision/")
        repository = self._repository(name, (tree or revision).split("?")[0] or "main")
        if repository is None:
            return None
        if not tree:
            return self._json(self._info(name, repository) | {"siblings": [{"rfilename": file} for file in repository.files]})
        return self._json([self._entry(repository, file) for file in repository.files])

    def _found(self, query: dict[str, list[str]]) -> list[dict[str, Any]]:
        words = query.get("search", [""])[0].lower()
        kind = query.get("pipeline_tag", [None])[0]
        found = [self._info(name, repository) for name, repository in self.hub.repositories.items() if words in name.lower()]
        found = [info for info in found if kind in (None, info.get("pipeline_tag"))]
        return sorted(found, key=lambda info: -info["downloads"])[: int(query.get("limit", ["1000"])[0])]

    def _info(self, name: str, repository: Repository) -> dict[str, Any]:
        own = {"_id": name, "id": name, "sha": repository.commit, "gated": "manual" if repository.gated else False, "tags": []}
        return own | {"downloads": 0, "likes": 0} | repository.info

    def _entry(self, repository: Repository, file: str) -> dict[str, Any]:
        content, size = repository.files[file], repository.size(file)
        entry = {"type": "file", "path": file, "size": size, "oid": hashlib.sha1(content).hexdigest()}
        if file.endswith(LARGE):
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": size, "pointerSize": 134}
        return entry

    def _resolve(self, name: str, revision: str, file: str) -> None:
        repository = self._repository(name, revision)
        if repository is None:
            return
        if repository.gated and self.headers.get("authorization") != f"Bearer {self.hub.token}":
            return self._answer(403, {"X-Error-Code": "GatedRepo", "X-Repo-Commit": repository.commit})
        content = repository.files.get(file)
        if content is None:
            return self._answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": repository.commit})
        if not file.endswith(LARGE):
            return self._answer(200, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": repository.commit}, content)
        digest = hashlib.sha256(content).hexdigest()
        linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(repository.size(file)), "X-Repo-Commit": repository.commit}
        # The store is another host, to which the library takes no token.
        return self._answer(302, linked | {"Location": f"http://localhost:{self.hub.server_port}/store/{digest}"})

    def _store(self, digest: str) -> None:
        files = (content for repository in self.hub.repositories.values() for content in repository.files.values())
        content = next(content for content in files if hashlib.sha256(content).hexdigest() == digest)
        start = int(self.headers.get("range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        if self.command == "GET" and self.hub.break_after:
            return self._break_off(206 if start else 200, headers, content[start:], self.hub.break_after.pop(0))
        return self._answer(206 if start else 200, headers | {"Accept-Ranges": "bytes"}, content[start:])

    def _break_off(self, status: int, headers: dict[str, str], content: bytes, after: int) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:after])
        self.wfile.flush()
        self.close_connection = True

    def _repository(self, name: str, revision: str) -> Repository | None:
        """The one of that name; where there is none, the answer has been given."""
        repository = self.hub.repositories.get(name)
        if repository is None:
            self._answer(404, {"X-Error-Code": "RepoNotFound"})
            return None
        if revision not in ("main", repository.commit):
            self._answer(404, {"X-Error-Code": "RevisionNotFound"})
            return None
        return repository

    def _json(self, content: object) -> None:
        self._answer(200, {"Content-Type": "application/json"}, json.dumps(content).encode())

    def _answer(self, status: int, headers: dict[str, str] | None = None, content: bytes = b"") -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextmanager
def fake_hub(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[FakeHub]:
    """The hub that huggingface_hub asks in this process, and the cache that it fills."""
    hub = FakeHub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    # huggingface_hub reads the environment once, at import.
    point_library_at(monkeypatch, hub.address)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield hub
    hub.shutdown()
    thread.join()
    hub.server_close()


def point_library_at(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
