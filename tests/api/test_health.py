"""A gateway says whether it lives, and apart from that whether it should get requests now."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from mm_gateway.api.app import GatewayApp, create_app
from mm_gateway.catalog import Catalog
from mm_gateway.configuration.server_settings import LimitSettings, ServerSettings
from mm_gateway.configuration.settings import Settings, StorageSettings
from mm_gateway.core import ChoiceFinished, TextDelta, Usage
from tests.support.scripted_backend import ScriptedBackend
from tests.support.served import until

ADMIN = {"authorization": "Bearer operator"}
CHAT = {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}], "stream": True}


@pytest.fixture
def app(tmp_path: Path) -> GatewayApp:
    backend = ScriptedBackend([TextDelta(0, "a"), 0.3, TextDelta(0, "b"), ChoiceFinished(0, "stop"), Usage(1, 2)])
    settings = Settings(
        server=ServerSettings(admin_keys=("operator",)),
        limits=LimitSettings(max_requests=1),
        storage=StorageSettings(folder=str(tmp_path)),
    )
    return create_app(settings, Catalog({backend.name: backend}))


@pytest.fixture
async def client(app: GatewayApp) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:  # type: ignore[arg-type]
        yield client


async def readiness(client: httpx.AsyncClient) -> tuple[int, list[str]]:
    reply = await client.get("/health/ready")
    assert reply.json()["ready"] is (reply.status_code == 200)
    return reply.status_code, reply.json()["reasons"]


async def running(app: GatewayApp, client: httpx.AsyncClient) -> asyncio.Task[httpx.Response]:
    task = asyncio.create_task(client.post("/v1/chat/completions", json=CHAT))
    await until(lambda: any(ticket.record.pieces for ticket in app.state.admission.tickets))
    return task


async def test_it_is_ready_where_nothing_is_wrong(client: httpx.AsyncClient) -> None:
    assert await readiness(client) == (200, [])
    assert (await client.get("/health/live")).json()["status"] == "ok"


async def test_a_drained_gateway_finishes_what_runs_and_takes_nothing_new_until_it_is_told_to(
    app: GatewayApp, client: httpx.AsyncClient
) -> None:
    stream = await running(app, client)
    assert (await client.post("/admin/drain", headers=ADMIN)).json() == {"object": "drain", "draining": True, "running": 1}
    status, [*reasons] = await readiness(client)
    assert status == 503 and "drains" in reasons[0]
    assert (await client.get("/health/live")).status_code == 200
    assert (await stream).text.rstrip().endswith("[DONE]")
    refused = await client.post("/v1/chat/completions", json=CHAT)
    assert refused.status_code == 503 and "retry-after" in refused.headers
    assert (await client.delete("/admin/drain", headers=ADMIN)).json() == {"object": "drain", "draining": False, "running": 0}
    assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200
    assert await readiness(client) == (200, [])


async def test_a_drain_is_the_operators_and_a_shutdown_is_not_taken_back(app: GatewayApp, client: httpx.AsyncClient) -> None:
    assert (await client.post("/admin/drain")).status_code == 401
    app.state.draining = app.state.stopping = True
    assert (await client.delete("/admin/drain", headers=ADMIN)).status_code == 503
    assert app.state.draining


async def test_it_is_not_ready_while_it_is_full(app: GatewayApp, client: httpx.AsyncClient) -> None:
    stream = await running(app, client)
    status, reasons = await readiness(client)
    assert (status, reasons) == (503, ["The server is busy: 1 requests are being answered"])
    await stream
    assert await readiness(client) == (200, [])


def databases(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.suffix not in ("-wal", "-shm") and path.read_bytes()[:6] == b"SQLite"]


async def test_it_is_not_ready_while_it_cannot_use_its_storage(app: GatewayApp, client: httpx.AsyncClient, tmp_path: Path) -> None:
    assert await readiness(client) == (200, [])
    [file] = databases(tmp_path)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    status, [reason] = await readiness(client)
    assert status == 503 and "storage" in reason.lower()
    other.execute("ROLLBACK")
    other.close()
    assert await readiness(client) == (200, [])


async def test_who_may_ask_without_a_key_is_told_no_path(client: httpx.AsyncClient, tmp_path: Path) -> None:
    (tmp_path / "gateway.sqlite").write_text("no database " * 100)
    status, [reason] = await readiness(client)
    assert status == 503 and reason.startswith("storage") and str(tmp_path) not in reason


async def test_heads_of_probes_have_the_same_status(client: httpx.AsyncClient) -> None:
    statuses: list[Any] = [(await client.head(path)).status_code for path in ("/health/live", "/health/ready")]
    assert statuses == [200, 200]
