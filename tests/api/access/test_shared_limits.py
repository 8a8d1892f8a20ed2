"""Gateways over one database hold limits and budgets together, and what needs the database while it is away is told so."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import httpx
import pytest
from litestar.testing import AsyncTestClient

from mm_gateway.api.access.ledger import Ledger
from mm_gateway.api.app import GatewayApp, create_app
from mm_gateway.catalog import Catalog
from mm_gateway.configuration.api_key import ApiKey, digest_of
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.price import Price
from mm_gateway.configuration.server_settings import ServerSettings
from mm_gateway.configuration.settings import LimitSettings, Settings, StorageSettings
from mm_gateway.core import ChoiceFinished, TextDelta, Usage
from mm_gateway.storage import postgres_server as module
from mm_gateway.storage.usage_store import UsageStore, Used, UsedFor
from tests.support.postgres import PostgresServer
from tests.support.scripted_backend import ScriptedBackend, Step
from tests.support.served import until

ALICE, ADMIN = {"authorization": "Bearer alice-key"}, {"authorization": "Bearer operator"}
CHAT: dict[str, Any] = {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}]}
ANSWER: list[Step] = [TextDelta(0, "a"), ChoiceFinished(0, "stop"), Usage(10, 20)]

Client = AsyncTestClient[GatewayApp]


@asynccontextmanager
async def gateways(url: str, count: int = 2, script: list[Step] = ANSWER, **limits: Any) -> AsyncIterator[list[Client]]:
    """Several, each with connections of its own, as processes have."""
    key = ApiKey(digest=digest_of("alice-key"), name="alice", **limits)
    async with AsyncExitStack() as stack:
        clients: list[Client] = []
        for number in range(count):
            storage = StorageSettings(url=f"{url}-{number}")
            settings = Settings(server=ServerSettings(admin_keys=("operator",)), keys=(key,), limits=LimitSettings(), storage=storage)
            models = {"scripted": ModelConfig(model_name="x", price=Price(output=1.0))}
            app = create_app(settings, Catalog({"scripted": ScriptedBackend(script)}, models=models))
            clients.append(await stack.enter_async_context(AsyncTestClient(app)))
        yield clients


async def comes_to(status: int, request: Callable[[], Awaitable[httpx.Response]]) -> None:
    """Ask again until it is answered so."""
    async with asyncio.timeout(20):
        while (await request()).status_code != status:  # noqa: ASYNC110 - what changes is elsewhere
            await asyncio.sleep(0.05)


async def ask(client: Client, **fields: Any) -> httpx.Response:
    return await client.post("/v1/chat/completions", json=CHAT | fields, headers=ALICE)


@contextmanager
def away(server: PostgresServer) -> Iterator[None]:
    server.stop(signal.SIGQUIT)
    try:
        yield
    finally:
        server.start()


async def test_requests_per_minute_are_those_of_all_gateways(database_url: str) -> None:
    async with gateways(database_url, requests_per_minute=6) as clients:
        began = time.monotonic()
        replies = await asyncio.gather(*(ask(clients[number % 2]) for number in range(20)))
        most = 6 + (time.monotonic() - began) / 10
    let_in = [reply for reply in replies if reply.status_code == 200]
    assert 6 <= len(let_in) <= most
    refused = next(reply for reply in replies if reply.status_code == 429)
    assert refused.json()["error"]["type"] == "requests" and 0 < float(refused.headers["retry-after-ms"]) <= 10_000
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"


async def test_tokens_per_minute_that_one_gives_back_another_may_use(database_url: str) -> None:
    async with gateways(database_url, tokens_per_minute=1000) as (one, other):
        assert (await ask(one, max_tokens=900)).status_code == 200  # and used 30 of them
        await comes_to(200, lambda: ask(other, max_tokens=900))
        assert (await ask(one, max_tokens=990)).status_code == 429


async def test_a_budget_is_that_of_all_gateways(database_url: str) -> None:
    async with gateways(database_url, script=[0.3, *ANSWER], tokens_per_day=100) as clients:
        replies = await asyncio.gather(*(ask(clients[number % 2], max_tokens=20) for number in range(12)))
        let_in = sum(reply.status_code == 200 for reply in replies)
        # Each reserves its 20 tokens and what its body may be: the third or fourth fills it.
        assert 2 <= let_in <= 4
        refused = next(reply for reply in replies if reply.status_code == 429)
        assert "reserved by requests that run" in refused.json()["error"]["message"] and refused.headers["retry-after"] == "1"
        async with asyncio.timeout(20):
            while (refused := await ask(clients[0])).headers.get("x-should-retry") != "false":  # noqa: ASYNC110 - what changes is elsewhere
                await asyncio.sleep(0.05)
        assert "100 tokens per day, 120 used" in refused.json()["error"]["message"]  # the fourth began at 90
        assert (await ask(clients[1])).headers["x-should-retry"] == "false"
        (row,) = (await clients[1].get("/admin/usage?group_by=key", headers=ADMIN)).json()["data"]
        assert (row["key"], row["prompt_tokens"] + row["output_tokens"]) == ("alice", 120)


async def test_keys_made_at_one_gateway_open_the_others_and_are_disabled_there(database_url: str) -> None:
    async with gateways(database_url) as (one, other):
        made = (await one.post("/admin/keys", json={"name": "bob"}, headers=ADMIN)).json()
        bob = {"authorization": f"Bearer {made['key']}"}
        await comes_to(200, lambda: other.post("/v1/chat/completions", json=CHAT, headers=bob))
        await other.patch("/admin/keys/bob", json={"disabled": True}, headers=ADMIN)
        await comes_to(401, lambda: one.post("/v1/chat/completions", json=CHAT, headers=bob))


async def test_what_one_gateway_stores_another_continues_and_reads(database_url: str) -> None:
    async with gateways(database_url) as (one, other):
        created = (await one.post("/v1/responses", json={"model": "scripted", "input": "Hi"}, headers=ALICE)).json()
        read = await other.get(f"/v1/responses/{created['id']}", headers=ALICE)
        assert read.json()["output"] == created["output"]
        body = {"model": "scripted", "input": "more", "previous_response_id": created["id"]}
        assert (await other.post("/v1/responses", json=body, headers=ALICE)).status_code == 200


async def test_while_the_database_is_away_only_what_needs_it_is_refused(
    postgres: PostgresServer, database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.1)
    key = ApiKey(digest=digest_of("bob-key"), name="bob", tokens_per_day=1_000_000)
    bob = {"authorization": "Bearer bob-key"}
    async with gateways(database_url, count=1, requests_per_minute=1000) as (client,):
        client.app.state.client_keys.replace("file", [*client.app.state.client_keys.of("file"), key])
        created = (await client.post("/v1/responses", json={"model": "scripted", "input": "Hi"}, headers=ALICE)).json()
        with caplog.at_level(logging.ERROR), away(postgres):
            replies = [
                await client.post("/v1/chat/completions", json=CHAT, headers=bob),
                await client.post("/v1/responses", json={"model": "scripted", "input": "Hi"}, headers=ALICE),
                await client.get(f"/v1/responses/{created['id']}", headers=ALICE),
                await client.get("/admin/usage", headers=ADMIN),
                await client.post("/admin/keys", json={"name": "x"}, headers=ADMIN),
            ]
            for reply in replies:
                assert (reply.status_code, reply.json()["error"]["code"]) == (503, "storage_unavailable"), reply.text
                assert int(reply.headers["retry-after"]) >= 1
            message = {"model": "scripted", "max_tokens": 5, "messages": CHAT["messages"]}
            theirs = await client.post("/v1/messages", json=message, headers=bob)
            assert (theirs.status_code, theirs.json()["type"]) == (529, "error") and "retry-after" in theirs.headers
            assert [(await ask(client)).status_code for _ in range(3)] == [200, 200, 200]
            stateless = {"model": "scripted", "input": "Hi", "store": False}
            assert (await client.post("/v1/responses", json=stateless, headers=ALICE)).status_code == 200
            ready = await client.get("/health/ready")
            assert ready.status_code == 200 and ready.json()["ready"] and "storage" in ready.text.lower()
            await until(lambda: client.app.state.client_keys.may_lack)
            unknown = await client.post("/v1/chat/completions", json=CHAT, headers={"authorization": "Bearer elsewhere"})
            assert unknown.status_code == 503 and "retry-after" in unknown.headers
        await comes_to(200, lambda: client.get(f"/v1/responses/{created['id']}", headers=ALICE))
        await until(lambda: not client.app.state.client_keys.may_lack)
        assert (await client.post("/v1/chat/completions", json=CHAT, headers=bob)).status_code == 200
        unknown = await client.post("/v1/chat/completions", json=CHAT, headers={"authorization": "Bearer elsewhere"})
        assert unknown.status_code == 401
        rows = (await client.get("/admin/usage?group_by=key,endpoint", headers=ADMIN)).json()["data"]
        requests = {(row["key"], row["endpoint"]): row["requests"] for row in rows}
        # What was used meanwhile was kept, and is written.
        assert requests[("alice", "/v1/chat/completions")] == 3 and requests[("alice", "/v1/responses")] >= 2
        assert "secret-word" not in caplog.text


async def test_a_row_that_cannot_be_written_is_lost_alone(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    for settings in (StorageSettings(url=database_url), StorageSettings(folder=None)):
        ledger = Ledger(settings)
        rows = {UsedFor("k", "2026-11-29", model, "/e"): Used(requests=1) for model in ("a", "broken \ud800", "b")}
        for what, much in rows.items():
            ledger._pending.setdefault(what.key, {})[what] = much
        with caplog.at_level(logging.ERROR):
            await ledger.write()
        store = UsageStore(settings.place("usage.sqlite"))
        assert sorted(row.model or "" for row in store.report(["model"], key="k")) == ["a", "b"]
        assert "usage is lost, since it cannot be written" in caplog.text
        store.close()
        await ledger.close()
        caplog.clear()
