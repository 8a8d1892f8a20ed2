"""One line a request, which says how it went and never what was said."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import subprocess
import sys
import threading
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar.testing import AsyncTestClient

from mm_gateway.api.app import GatewayApp
from mm_gateway.api.observation import request_log
from mm_gateway.api.observation.record import RequestRecord
from mm_gateway.api.observation.request_log import LogLine, RequestLog, as_text
from mm_gateway.cli.log import log_to_stderr
from mm_gateway.configuration.api_key import ApiKey, digest_of
from mm_gateway.core import ChoiceFinished, TextDelta, Usage
from mm_gateway.errors import EngineError
from tests.support.scripted_backend import ScriptedBackend, Step, app_over
from tests.support.served import until

CHAT = "/v1/chat/completions"
SCRIPT: list[Step] = [TextDelta(0, "a secret answer"), ChoiceFinished(0, "stop"), Usage(7, 3, cached_tokens=2)]
KEYS = (ApiKey(digest=digest_of("hidden"), name="ann"),)


async def logged(app: GatewayApp, capsys: pytest.CaptureFixture[str], *requests: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The lines of requests, and their ids."""
    async with AsyncTestClient(app) as client:
        replies = [await client.request(**request) for request in requests]
    return capsys.readouterr().out.splitlines(), [reply.headers["x-request-id"] for reply in replies]


def chat(content: str = "a secret question", key: str = "hidden", **fields: Any) -> dict[str, Any]:
    body = {"model": "an-alias", "messages": [{"role": "user", "content": content}], **fields}
    return {"method": "POST", "url": CHAT, "json": body, "headers": {"authorization": f"Bearer {key}"}}


async def test_what_the_page_asks_every_second_is_logged_only_where_it_fails(capsys: pytest.CaptureFixture[str]) -> None:
    app = app_over(ScriptedBackend(SCRIPT), admin_keys=("operator",), request_log="json")
    looks = [{"method": "GET", "url": path} for path in ("/admin/requests", "/admin/events", "/admin/models", "/page/main.js")]
    opened = [look | {"headers": {"authorization": "Bearer operator"}} for look in looks]
    lines, ids = await logged(app, capsys, *opened, looks[0])
    assert [(line["request_id"], line["status"]) for line in map(json.loads, lines)] == [(ids[-1], 401)]


async def test_json_has_a_line_a_request_that_its_id_finds(capsys: pytest.CaptureFixture[str]) -> None:
    app = app_over(ScriptedBackend(SCRIPT), keys=KEYS, request_log="json")
    lines, ids = await logged(app, capsys, chat(), chat(stream=True), chat(key="wrong"), {"method": "GET", "url": "/health"})
    whole, stream, refused = (json.loads(line) for line in lines)
    assert [whole["request_id"], stream["request_id"], refused["request_id"]] == ids[:3]
    fields = ("method", "endpoint", "status", "model", "key", "prompt_tokens", "cached_tokens", "output_tokens", "finish_reasons")
    assert [whole[name] for name in fields] == ["POST", CHAT, 200, "scripted", "ann", 7, 2, 3, ["stop"]]
    assert 0 < whole["first_token_s"] <= whole["duration_s"] < 5
    assert stream["stream"] and "stream" not in whole
    assert (refused["status"], refused["error"]) == (401, "invalid_api_key") and "key" not in refused
    assert not any(secret in line for line in lines for secret in ("secret", "hidden", "wrong"))


async def test_text_is_one_line_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    app = app_over(ScriptedBackend([TextDelta(0, "a"), EngineError("broken\nin two lines")]), keys=KEYS)
    [line], [id] = await logged(app, capsys, chat(stream=True))
    assert f" {id} POST {CHAT} 200 " in line
    assert line.endswith(" model=scripted key=ann error=server_error output=1+ stream")


async def test_it_can_be_off(capsys: pytest.CaptureFixture[str]) -> None:
    lines, _ = await logged(app_over(ScriptedBackend(SCRIPT), request_log="off"), capsys, chat())
    assert lines == []


@given(st.text(), st.text(), st.text())
def test_no_name_breaks_a_line_or_looks_like_another_field(model: str, key: str, error: str) -> None:
    line = LogLine(time="t", request_id="r", method="GET", endpoint="/", status=200, duration_s=1, model=model, key=key, error=error)
    text = as_text(line)
    assert len(text.splitlines()) == 1
    assert text.count(" model=") <= 1 + sum(" model=" in json.dumps(name) for name in (model, key, error))
    assert msgspec.json.decode(msgspec.json.encode(line), type=LogLine) == line


async def test_a_slow_reader_of_the_log_holds_up_nobody_and_is_told_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck(io.StringIO):
        may_write = threading.Event()

        def write(self, text: str) -> int:
            assert self.may_write.wait(10)
            return super().write(text)

    monkeypatch.setattr(request_log, "MAX_LINES", 3)
    out = Stuck()
    log = RequestLog("text", out)
    record = RequestRecord("req_1", "GET")
    record.ended = record.arrived
    log.finished(record)
    await asyncio.sleep(request_log.INTERVAL_S + 0.1)
    started = time.monotonic()
    for _ in range(5):
        log.finished(record)
    assert time.monotonic() - started < 0.1
    out.may_write.set()
    await until(lambda: out.getvalue().count("\n") == 5)
    assert out.getvalue().count("req_1") == 4 and "2 lines of the request log are missing" in out.getvalue()
    log.close()


def test_what_was_not_written_yet_is_written_when_the_server_ends() -> None:
    models = '{"models": {"mock": {"model_name": "mock", "backend": "mock"}}}'
    code = f"""
import os, sys, tempfile, pathlib, threading, time, httpx
folder = pathlib.Path(tempfile.mkdtemp()); (folder / "models.yaml").write_text({models!r})
from mm_gateway.cli import server
from mm_gateway.configuration.loader import load_settings
import signal
settings = load_settings(folder / "models.yaml", None, {{"MM_GATEWAY_PORT": "0", "MM_GATEWAY_STORAGE_FOLDER": str(folder)}})
listen = server._listen
def listening(settings):
    socket = listen(settings)
    def ask():
        port = socket.getsockname()[1]
        for _ in range(200):
            try:
                httpx.get(f"http://127.0.0.1:{{port}}/v1/models")
                break
            except httpx.HTTPError:
                time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)
    threading.Thread(target=ask, daemon=True).start()
    return socket
server._listen = listening
server.serve(settings)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert " GET /v1/models 200 " in done.stdout


async def test_what_else_is_logged_during_a_request_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.Logger("root")
    monkeypatch.setattr(logging, "root", root)
    monkeypatch.setattr(logging.Logger, "root", root)
    monkeypatch.setattr(sys, "stderr", written := io.StringIO())
    log_to_stderr("warning")
    monkeypatch.setattr("mm_gateway.api.errors.logger", root)
    async with AsyncTestClient(app_over(ScriptedBackend([RuntimeError("a fault of ours")]))) as client:
        body = {"model": "an-alias", "messages": [{"role": "user", "content": "Hi"}]}
        id = (await client.post(CHAT, json=body)).headers["x-request-id"]
    root.warning("outside")
    first, *_, last = written.getvalue().splitlines()
    assert f" ERROR {id} root: unexpected error" in first and last.endswith(" WARNING root: outside")
