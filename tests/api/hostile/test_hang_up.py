"""A client that hangs up, over real sockets and a real engine whose forward passes the test lets through one by one."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mm_gateway.api.app import create_app
from mm_gateway.backends.local import LocalBackend
from mm_gateway.backends.upstream.backend import RemoteBackend
from mm_gateway.catalog import Catalog
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.server_settings import ServerSettings
from mm_gateway.configuration.settings import EngineSettings, Settings
from mm_gateway.runtime.inference_engine import InferenceEngine
from mm_gateway.runtime.model_loader import ModelLoader
from mm_gateway.runtime.real_model_manager import RealModelManager
from tests.support.served import post, raw_reply, served, until

STREAMS = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
PATIENT = Settings(server=ServerSettings(early_commit_s=0.2, heartbeat_s=0.1))


class Gates(ModelLoader):
    """The real loader, whose loads wait for `may_load`, and whose models compute a pass for each `permit` once `held`."""

    def __init__(self) -> None:
        super().__init__()
        self.may_load = threading.Event()
        self.held = threading.Event()
        self._permits = threading.Semaphore(0)

    def permit(self, passes: int = 1) -> None:
        self._permits.release(passes)

    def load(self, config: ModelConfig, **callbacks: Any) -> Any:
        assert self.may_load.wait(30)
        loaded = super().load(config, **callbacks)
        loaded.model.get_input_embeddings().register_forward_pre_hook(self._wait)
        return loaded

    def _wait(self, *_: object) -> None:
        if self.held.is_set():
            assert self._permits.acquire(timeout=30)


class Stand:
    """A gateway over one model with one running sequence at a time."""

    def __init__(self, folder: Path, **engine: Any) -> None:
        self.gates = Gates()
        self.config = ModelConfig(model_name="m", path=str(folder), model_type="gpt2", device="cpu", dtype="fp32")
        self.manager = RealModelManager(loader=self.gates, engine_settings=EngineSettings(max_running=1, **engine))
        catalog = Catalog({"m": LocalBackend("m", self.config, self.manager, 0)}, manager=self.manager)
        self.app = create_app(PATIENT, catalog)

    def engine(self) -> InferenceEngine:
        self.gates.may_load.set()
        with self.manager.acquire(self.config).result(30) as lease:
            return lease.engine

    def leases(self) -> int:
        return self.manager.status(self.config).leases

    def waiting(self) -> int:
        return self.manager.status(self.config).waiting


@contextmanager
def stand(folder: Path, **engine: Any) -> Iterator[tuple[Stand, int]]:
    found = Stand(folder, **engine)
    with served(found.app) as port:
        try:
            yield found, port
        finally:
            found.gates.may_load.set()
            found.gates.held.clear()
            found.gates.permit(1000)


async def ask(port: int, stream: bool, model: str = "m") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    body = {"model": model, "stream": stream, "max_tokens": 100, "ignore_eos": True, "messages": [{"role": "user", "content": "Hello"}]}
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(post("/v1/chat/completions", json.dumps(body).encode()))
    await writer.drain()
    return reader, writer


@STREAMS
async def test_while_the_model_loads(gpt2_checkpoint: Path, stream: bool) -> None:
    with stand(gpt2_checkpoint) as (stand_, port):
        _, writer = await ask(port, stream)
        await until(lambda: stand_.waiting() == 1)
        writer.close()
        await until(lambda: stand_.waiting() == 0)
        stand_.gates.may_load.set()
        assert (await raw_reply(port, b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"))[0] == 200


@STREAMS
async def test_in_the_engines_queue_in_prefill_and_while_decoding(gpt2_checkpoint: Path, stream: bool) -> None:
    with stand(gpt2_checkpoint) as (stand_, port):
        engine, gates = stand_.engine(), stand_.gates
        gates.held.set()
        first_reader, first = await ask(port, stream)
        await until(lambda: engine.stats().running == 1)
        _, second = await ask(port, stream)
        await until(lambda: stand_.leases() == 2)
        await asyncio.sleep(0.1)  # on its way from the lease to the engine
        gates.permit()
        await until(lambda: engine.stats().waiting == 1)
        second.close()  # in the queue
        await until(lambda: stand_.leases() == 1)
        gates.permit()
        await until(lambda: engine.stats().waiting == 0)
        while stream and b"data: " not in await asyncio.wait_for(first_reader.read(2000), 10):
            gates.permit()  # the first tokens may be no whole character yet
        assert engine.stats().completion_tokens >= 1
        first.close()  # while decoding
        await until(lambda: stand_.leases() == 0)
        steps = engine.stats().steps
        gates.permit()
        await until(lambda: engine.stats().running == 0)
        assert engine.stats().steps == steps
        _, third = await ask(port, stream)
        await until(lambda: engine.stats().running == 1)
        tokens = engine.stats().completion_tokens
        third.close()  # in prefill
        await until(lambda: stand_.leases() == 0)
        gates.permit()
        await until(lambda: engine.stats().running == 0)
        assert engine.stats().completion_tokens <= tokens + 1


async def test_a_stream_in_the_queue_is_told_its_place(gpt2_checkpoint: Path) -> None:
    with stand(gpt2_checkpoint) as (stand_, port):
        engine, gates = stand_.engine(), stand_.gates
        gates.held.set()
        writers = []
        readers = []
        for leases in (1, 2, 3):
            reader, writer = await ask(port, True)
            await until(lambda leases=leases: stand_.leases() == leases)
            readers.append(reader)
            writers.append(writer)
        for place, reader in ((1, readers[1]), (2, readers[2])):
            comment = b""
            while b"place %d of 2 in the queue" % place not in comment:
                gates.permit()
                comment = await asyncio.wait_for(reader.readuntil(b"\n\n"), 10)
        writers[1].close()
        await until(lambda: stand_.leases() == 2)
        while b"place 1 of 1" not in comment:
            gates.permit()
            comment = await asyncio.wait_for(readers[2].readuntil(b"\n\n"), 10)
        assert engine.stats().running == 1
        for writer in writers:
            writer.close()


async def test_a_full_queue_refuses_while_the_model_loads_and_in_the_engine(gpt2_checkpoint: Path) -> None:
    with stand(gpt2_checkpoint, max_waiting=1) as (stand_, port):
        body = json.dumps(
            {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 100, "ignore_eos": True}
        ).encode()
        _, first = await ask(port, False)
        await until(lambda: stand_.waiting() == 1)
        status, headers, answer = await raw_reply(port, post("/v1/chat/completions", body))
        assert (status, json.loads(answer)["error"]["code"]) == (429, "rate_limit_exceeded")
        assert int(headers["retry-after"]) >= 1
        stand_.gates.held.set()
        stand_.gates.may_load.set()
        stand_.gates.permit(50)  # for what an engine computes before it serves
        await until(lambda: stand_.leases() == 1)
        _, second = await ask(port, False)
        await until(lambda: stand_.leases() == 2)
        await asyncio.sleep(0.1)
        status, headers, answer = await raw_reply(port, post("/v1/chat/completions", body))
        assert status == 429, answer
        assert "queue is full" in json.loads(answer)["error"]["message"]
        assert 0 < int(headers["retry-after-ms"]) <= 1000 * int(headers["retry-after"])
        first.close()
        second.close()


@STREAMS
@pytest.mark.parametrize("begun", [False, True], ids=["before the first event", "after it"])
async def test_an_upstream_request_ends_with_its_clients(stream: bool, begun: bool) -> None:
    asked, left = asyncio.Event(), asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if begun:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
            writer.write(b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n')
        asked.set()
        await reader.read()  # until the other side goes
        left.set()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    upstream = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    config = ModelConfig(model_name="x", backend="remote", base_url=upstream)
    with served(create_app(PATIENT, Catalog({"far": RemoteBackend("far", config, 0)}))) as port:
        _, writer = await ask(port, stream, "far")
        await asked.wait()
        await asyncio.sleep(0.05)
        assert not left.is_set()
        writer.close()
        async with asyncio.timeout(10):
            await left.wait()
    server.close()
