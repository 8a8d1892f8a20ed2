"""SIGTERM and SIGINT to a real process: running replies get their grace, then a word, and nothing keeps the process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.served import post, raw_reply

ROOT = Path(__file__).parents[2]
BODY = {"model": "mock", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1000}

HANGING = """
import asyncio, sys, threading
from mm_gateway.catalog import Catalog
from mm_gateway.cli import gateway_server, server
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.server_settings import ServerSettings
from mm_gateway.configuration.settings import Settings
from mm_gateway.work_pools import MODELS

gateway_server.CLOSING_S = 0.5

class Hanging(Catalog):
    async def close(self):
        await MODELS.run(threading.Event().wait)  # as a library does that waits for a device for ever

server.build_catalog = lambda settings: Hanging({})
server.serve(Settings(server=ServerSettings(port=0, shutdown_grace_s=0.2), models={"m": ModelConfig(model_name="m")}))
"""


@contextmanager
def process(*arguments: str, grace_s: float = 0.5) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A gateway, and its port."""
    environment = {**os.environ, "MM_GATEWAY_SERVER_SHUTDOWN_GRACE_S": str(grace_s), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *(arguments or ("-m", "mm_gateway.main", "serve", "--port", "0"))]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as server:
        assert server.stderr is not None
        port = 0
        for line in server.stderr:
            if line.startswith("mm_gateway serves http"):
                port = int(line.rpartition(":")[2].partition("/")[0])
            if "startup complete" in line:
                break
        try:
            yield server, port
        finally:
            server.kill()


async def health(port: int) -> int | None:
    try:
        return (await raw_reply(port, b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))[0]
    except (OSError, asyncio.IncompleteReadError):
        return None


async def started_stream(port: int, path: str, body: dict[str, object]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Whoever loses the writer hangs up."""
    while await health(port) is None:  # it says that it is ready just before it listens
        pass
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(post(path, json.dumps({**body, "stream": True}).encode()))
    await reader.readuntil(b"data: ")
    return reader, writer


def slow(model_delay_s: float = 0.2) -> dict[str, object]:
    return {**BODY, "messages": [{"role": "user", "content": f"!mock delay={model_delay_s}"}]}


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
async def test_a_reply_that_ends_within_the_grace_is_whole(sig: signal.Signals) -> None:
    with process(grace_s=20) as (server, port):
        reader, writer = await started_stream(port, "/v1/chat/completions", {**slow(0.05), "max_tokens": 10})
        server.send_signal(sig)
        assert b"data: [DONE]" in await reader.read()
        writer.close()
        assert server.wait(20) == 0


async def test_beyond_the_grace_each_stream_ends_with_an_error_in_its_own_format_and_status_0() -> None:
    with process() as (server, port):
        chat, chat_writer = await started_stream(port, "/v1/chat/completions", slow())
        responses, responses_writer = await started_stream(
            port, "/v1/responses", {"model": "mock", "input": "!mock delay=0.2", "max_output_tokens": 1000, "store": False}
        )
        whole, whole_writer = await asyncio.open_connection("127.0.0.1", port)
        whole_writer.write(post("/v1/chat/completions", json.dumps(slow()).encode()))
        await whole_writer.drain()
        await health(port)  # what was sent before has arrived then
        server.terminate()
        async with asyncio.timeout(30):
            ended = [line for line in (await chat.read()).decode().splitlines() if line.startswith("data: ")]
            failed = (await responses.read()).decode()
            head, _, body = (await whole.read()).partition(b"\r\n\r\n")
        for writer in (chat_writer, responses_writer, whole_writer):
            writer.close()
        assert ended[-1] == "data: [DONE]"
        error = json.loads(ended[-2].removeprefix("data: "))["error"]
        assert "shut down before the reply was complete" in error["message"]
        assert "event: response.failed" in failed and "shut down before" in failed
        assert b" 503 " in head.splitlines()[0] and "shut down before" in json.loads(body)["error"]["message"]
        assert server.wait(20) == 0


async def test_a_second_signal_ends_at_once() -> None:
    with process(grace_s=600) as (server, port):
        reader, writer = await started_stream(port, "/v1/chat/completions", slow())
        server.terminate()
        while await health(port) is not None:  # until it listens no more
            pass
        server.terminate()
        assert server.wait(10) == 128 + signal.SIGTERM
        await reader.read()
        writer.close()


def test_a_thread_that_hangs_does_not_keep_the_process() -> None:
    with process("-c", HANGING) as (server, _):
        server.terminate()
        began = time.monotonic()
        assert server.wait(20) == 0
        assert time.monotonic() - began < 15
        assert server.stderr is not None and "what still runs is left behind" in server.stderr.read()
