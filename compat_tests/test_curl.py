"""curl, as the README shows it, and bad requests that no SDK would send."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

from compat_tests.support.gateways import Gateway, free_port, start_gateway

JSON = ("-H", "Content-Type: application/json")


def curl(*arguments: str) -> tuple[int, dict[str, str], str]:
    """Status, headers and body."""
    done = subprocess.run(["curl", "-sS", "-i", "--max-time", "30", *arguments], capture_output=True, check=True)
    head, _, body = done.stdout.decode().replace("HTTP/1.1 100 Continue\r\n\r\n", "").partition("\r\n\r\n")
    status, *lines = head.split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(status.split()[1]), headers, body


def error_of(body: str) -> dict[str, object]:
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def test_a_chat_streams_line_by_line(gateway: Gateway) -> None:
    data = '{"model": "mock", "messages": [{"role": "user", "content": "Hello!"}], "stream": true, "max_tokens": 2}'
    status, headers, body = curl("-N", f"{gateway.address}/v1/chat/completions", *JSON, "-d", data)
    assert status == 200
    assert headers["content-type"].startswith("text/event-stream")
    events = [line.removeprefix("data: ") for line in body.split("\n\n") if line]
    assert events[-1] == "[DONE]"
    deltas = [json.loads(event)["choices"][0]["delta"] for event in events[:-1]]
    assert deltas[0] == {"role": "assistant", "content": "", "refusal": None}
    assert deltas[-1] == {}


def test_a_stream_that_waits_gets_heartbeats(gateway: Gateway) -> None:
    data = '{"model": "mock", "messages": [{"role": "user", "content": "!mock load=1.7 tokens=1"}], "stream": true}'
    _, _, body = curl("-N", f"{gateway.address}/v1/chat/completions", *JSON, "-d", data)
    assert body.startswith(": mock: loading\n\n")
    assert body.endswith("data: [DONE]\n\n")


def test_bad_requests_get_the_envelope(gateway: Gateway, tmp_path: Path) -> None:
    url = f"{gateway.address}/v1/chat/completions"
    large = tmp_path / "large.json"
    large.write_bytes(b'{"model": "' + b"x" * 50_000_000 + b'"}')
    for expected, arguments, param in [
        (400, (*JSON, "-d", "{not json"), None),
        (400, (*JSON, "-d", "[]"), None),
        (400, (*JSON, "-d", '{"model": "mock", "messages": []}'), "messages"),
        (400, (*JSON, "-d", '{"model": "mock", "messages": "hi"}'), "messages"),
        (400, (*JSON, "-d", '{"model": "mock", "messages": [{"role": "user", "content": 1}]}'), "messages[0].content"),
        (400, (*JSON, "-d", '{"model": "mock", "messages": [{"role": "user", "content": "a"}], "temperature": 3}'), "temperature"),
        (400, (*JSON, "-d", '{"model": "mock", "messages": [{"role": "user", "content": "a"}], "tools": [{}]}'), "tools[0].type"),
        (400, (*JSON, "-d", '{"model": "mock", "messages": [{"role": "user", "content": "a"}], "nonsense": 1}'), "nonsense"),
        (404, (*JSON, "-d", '{"model": "nope", "messages": [{"role": "user", "content": "a"}]}'), "model"),
        (405, ("-X", "GET"), None),
        (413, (*JSON, "-d", f"@{large}"), None),
        (415, ("-d", "model=mock"), None),
    ]:
        status, headers, body = curl(url, *arguments)
        assert status == expected, body
        assert error_of(body)["param"] == param
        assert len(body) < 4000
        assert "x-request-id" in headers
    assert curl(f"{gateway.address}/nowhere")[0] == 404
    assert curl("-I", f"{gateway.address}/health")[0] == 200


def test_a_key_is_asked_for_where_keys_are_set(tmp_path: Path) -> None:
    guarded = start_gateway(tmp_path, {"mock": {"model_name": "mock", "backend": "mock"}}, free_port(), MM_GATEWAY_API_KEYS="one,two")
    try:
        url = f"{guarded.address}/v1/models"
        assert error_of(curl(url)[2])["code"] == "invalid_api_key"
        assert curl(url, "-H", "Authorization: Bearer wrong")[0] == 401
        assert curl(url, "-H", "Authorization: Bearer two")[0] == 200
        assert curl(f"{guarded.address}/health")[0] == 200
    finally:
        guarded.process.send_signal(signal.SIGTERM)
        guarded.process.wait(timeout=20)


def test_sigterm_lets_a_running_stream_finish(tmp_path: Path) -> None:
    stopping = start_gateway(tmp_path, {"slow": {"model_name": "mock", "backend": "mock", "delay_s": 0.1}}, free_port())
    data = '{"model": "slow", "messages": [{"role": "user", "content": "!mock tokens=15"}], "stream": true}'
    command = ["curl", "-sSN", f"{stopping.address}/v1/chat/completions", *JSON, "-d", data]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as stream:
        assert stream.stdout is not None
        stream.stdout.readline()
        stopping.process.send_signal(signal.SIGTERM)
        rest = stream.stdout.read().decode()
    assert rest.endswith("data: [DONE]\n\n")
    assert "error" not in rest
    stopping.process.wait(timeout=20)
    assert "Traceback" not in stopping.log.read_text()
