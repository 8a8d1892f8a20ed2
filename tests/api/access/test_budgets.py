"""Budgets of keys by day and month: what was used counts across restarts and against requests at once, and the refusal is OpenAI's."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import anthropic
import httpx
import msgspec
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from litestar.testing import AsyncTestClient

from mm_gateway.api.access.ledger import Ledger
from mm_gateway.api.app import GatewayApp, create_app
from mm_gateway.api.observation.record import RequestRecord
from mm_gateway.catalog import Catalog
from mm_gateway.configuration.api_key import ApiKey, digest_of
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.price import Price
from mm_gateway.configuration.server_settings import ServerSettings
from mm_gateway.configuration.settings import Settings, StorageSettings
from mm_gateway.core import ChoiceFinished, TextDelta, Usage
from mm_gateway.errors import QuotaExceededError
from mm_gateway.storage import sqlite
from mm_gateway.storage.usage_store import USAGE_FILE, UsageStore, Used
from tests.support.scripted_backend import ScriptedBackend, Step
from tests.support.served import served

ALICE, ADMIN = {"authorization": "Bearer alice-key"}, {"authorization": "Bearer operator"}
CHAT: dict[str, Any] = {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}]}
ANSWER: list[Step] = [TextDelta(0, "a"), ChoiceFinished(0, "stop"), Usage(10, 20, cached_tokens=4, reasoning_tokens=5)]
PRICE = Price(input=1.0, cached_input=0.5, output=2.0)


def app(folder: Path, backend: ScriptedBackend, **budgets: Any) -> GatewayApp:
    key = ApiKey(digest=digest_of("alice-key"), name="alice", **budgets)
    chosen = Settings(server=ServerSettings(admin_keys=("operator",)), keys=(key,), storage=StorageSettings(folder=str(folder)))
    models = {"scripted": ModelConfig(model_name="x", price=PRICE)}
    return create_app(chosen, Catalog({backend.name: backend}, models=models))


async def test_a_budget_of_tokens_is_refused_in_every_envelope_and_survives_a_restart(tmp_path: Path) -> None:
    async with AsyncTestClient(app(tmp_path, ScriptedBackend(ANSWER), tokens_per_day=50)) as client:
        assert [(await client.post("/v1/chat/completions", json=CHAT, headers=ALICE)).status_code for _ in range(2)] == [200, 200]
    async with AsyncTestClient(app(tmp_path, ScriptedBackend(ANSWER), tokens_per_day=50)) as client:
        for path, body in (
            ("/v1/chat/completions", CHAT),
            ("/v1/chat/completions", {**CHAT, "stream": True}),
            ("/v1/completions", {"model": "scripted", "prompt": "Hi"}),
            ("/v1/responses", {"model": "scripted", "input": "Hi"}),
            ("/v1/embeddings", {"model": "scripted", "input": "Hi"}),
        ):
            refused = await client.post(path, json=body, headers=ALICE)
            assert refused.status_code == 429 and refused.headers["x-should-retry"] == "false", path
            error = refused.json()["error"]
            assert (error["type"], error["code"], error["param"]) == ("insufficient_quota", "insufficient_quota", None)
            assert "50 tokens per day, 60 used. It begins anew at 2" in error["message"]
        body = {"model": "scripted", "max_tokens": 5, "messages": CHAT["messages"]}
        refused = await client.post("/v1/messages", json=body, headers=ALICE)
        assert (refused.status_code, refused.json()["type"], refused.json()["error"]["type"]) == (429, "error", "rate_limit_error")
        usage = (await client.get("/admin/usage?group_by=key,model,endpoint&start=today", headers=ADMIN)).json()["data"]
    assert len(usage) == 1
    row = {name: value for name, value in usage[0].items() if value is not None}
    assert row.pop("cost") == pytest.approx(2 * (6 * 1.0 + 4 * 0.5 + 20 * 2.0) / 1e6)
    assert row == {
        **{"key": "alice", "model": "scripted", "endpoint": "/v1/chat/completions", "requests": 2},
        **{"prompt_tokens": 20, "cached_tokens": 8, "output_tokens": 40, "reasoning_tokens": 10},
    }


def test_official_clients_see_their_own_errors_and_do_not_try_again(tmp_path: Path) -> None:
    backend = ScriptedBackend(ANSWER)
    with served(app(tmp_path, backend, tokens_per_day=10)) as port:
        ours = openai.OpenAI(api_key="alice-key", base_url=f"http://127.0.0.1:{port}/v1")
        theirs = anthropic.Anthropic(api_key="alice-key", base_url=f"http://127.0.0.1:{port}")
        ours.chat.completions.create(model="scripted", messages=[{"role": "user", "content": "Hi"}])
        with pytest.raises(openai.RateLimitError) as refused:
            ours.chat.completions.create(model="scripted", messages=[{"role": "user", "content": "Hi"}])
        assert (refused.value.code, refused.value.type) == ("insufficient_quota", "insufficient_quota")
        with pytest.raises(anthropic.RateLimitError, match="You exceeded your current quota"):
            theirs.messages.create(model="scripted", max_tokens=5, messages=[{"role": "user", "content": "Hi"}])
    assert backend.started == 1


async def test_gateways_that_share_a_folder_hold_a_budget_together(tmp_path: Path) -> None:
    key = ApiKey(digest=b"k", name="k", tokens_per_day=100)
    one, other = (Ledger(StorageSettings(folder=str(tmp_path))) for _ in range(2))
    for ledger in (one, other):
        await ledger.prepare([key])
    record = RequestRecord("r", "POST")
    record.key, record.model, record.endpoint, record.begun, record.usage = "k", "m", "/e", 1.0, Usage(100, 1)
    one.finished(record)
    other.reserve(key, RequestRecord("r", "POST"), 1)
    await one.write()
    await other.write()
    with pytest.raises(QuotaExceededError, match="101 used"):
        other.reserve(key, RequestRecord("r", "POST"), 1)
    for ledger in (one, other):
        await ledger.close()


async def test_thousands_of_keys_are_read_anew_only_where_somebody_else_has_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    by_day = UsageStore.by_day

    def counted(store: UsageStore, keys: Iterable[str], since: str) -> dict[str, dict[str, Used]]:
        read.append(since)
        return by_day(store, keys, since)

    monkeypatch.setattr(UsageStore, "by_day", counted)
    key = ApiKey(digest=b"k", name="k", tokens_per_day=1000)
    one, other = (Ledger(StorageSettings(folder=str(tmp_path))) for _ in range(2))
    await one.prepare([key])
    record = RequestRecord("r", "POST")
    record.key, record.model, record.endpoint, record.begun, record.usage = "k", "m", "/e", 1.0, Usage(100, 1)
    for _ in range(3):
        one.finished(record)
        await one.write()
    assert len(read) == 1
    other.finished(record)
    await other.write()
    await one.write()
    assert len(read) == 2
    with pytest.raises(QuotaExceededError, match="404 used"):
        one.reserve(msgspec.structs.replace(key, tokens_per_day=400), RequestRecord("r", "POST"), 1)
    for ledger in (one, other):
        await ledger.close()


async def test_what_cannot_be_written_is_kept_and_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "WAIT_S", 0.1)
    ledger = Ledger(StorageSettings(folder=str(tmp_path)))
    assert await ledger.report([]) == []
    record = RequestRecord("r", "POST")
    record.key, record.model, record.endpoint, record.begun, record.usage = "k", "m", "/e", 1.0, Usage(100, 1)
    with closing(sqlite3.connect(tmp_path / USAGE_FILE, isolation_level=None)) as somebody:
        somebody.execute("BEGIN EXCLUSIVE")
        for _ in range(3):
            ledger.finished(record)
            await ledger.write()
    assert [(row.requests, row.tokens) for row in await ledger.report([])] == [(3, 303)]
    await ledger.close()


async def test_a_budget_of_money_and_one_of_a_month(tmp_path: Path) -> None:
    async with AsyncTestClient(app(tmp_path, ScriptedBackend(ANSWER), cost_per_month=60e-6)) as client:
        assert [(await client.post("/v1/chat/completions", json=CHAT, headers=ALICE)).status_code for _ in range(3)] == [200, 200, 429]
    async with AsyncTestClient(app(tmp_path, ScriptedBackend(ANSWER), tokens_per_month=61)) as client:
        assert [(await client.post("/v1/chat/completions", json=CHAT, headers=ALICE)).status_code for _ in range(2)] == [200, 429]


async def test_requests_at_once_do_not_pass_a_budget_together(tmp_path: Path) -> None:
    backend = ScriptedBackend([0.2, *ANSWER])
    body = {**CHAT, "max_tokens": 20}
    with served(app(tmp_path, backend, tokens_per_day=100)) as port:
        address = f"http://127.0.0.1:{port}/v1/chat/completions"
        async with httpx.AsyncClient(headers=ALICE, trust_env=False) as client:
            replies = await asyncio.gather(*(client.post(address, json=body) for _ in range(12)))
        let_in = sum(reply.status_code == 200 for reply in replies)
        # Each reserves its 20 tokens and what its body may be: the third or fourth fills it.
        assert let_in == backend.started and 2 <= let_in <= 4
        refused = next(reply for reply in replies if reply.status_code == 429)
        assert "reserved by requests that run" in refused.json()["error"]["message"] and refused.headers["retry-after"] == "1"


async def test_a_stream_that_is_broken_off_pays_for_what_came(tmp_path: Path) -> None:
    backend = ScriptedBackend([*(TextDelta(0, "a") for _ in range(5)), RuntimeError("broken"), *ANSWER])
    async with AsyncTestClient(app(tmp_path, backend)) as client:
        await client.post("/v1/chat/completions", json={**CHAT, "stream": True}, headers=ALICE)
        backend.script = [RuntimeError("at once")]
        await client.post("/v1/chat/completions", json=CHAT, headers=ALICE)
        (row,) = (await client.get("/admin/usage?group_by=", headers=ADMIN)).json()["data"]
    assert (row["requests"], row["output_tokens"]) == (2, 5)
    assert 0 < row["prompt_tokens"] < 40  # estimated, once


@pytest.mark.parametrize(
    ("query", "param"), [("group_by=week", "group_by"), ("start=soon", "start"), ("days=3", "days"), ("end=2026-02-30", "end")]
)
async def test_what_cannot_be_asked_of_usage_is_named(tmp_path: Path, query: str, param: str) -> None:
    async with AsyncTestClient(app(tmp_path, ScriptedBackend(ANSWER))) as client:
        reply = await client.get(f"/admin/usage?{query}", headers=ADMIN)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


DAY = 86400.0
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.integers(0, 40), st.integers(0, 60)),
        st.tuples(st.just("end"), st.integers(0, 5), st.integers(0, 1)),
        st.tuples(st.just("write"), st.just(0), st.just(0)),
        st.tuples(st.just("restart"), st.just(0), st.just(0)),
        st.tuples(st.just("later"), st.sampled_from([DAY, 40 * DAY]), st.just(0)),
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(EVENTS)
def test_a_budget_is_held_through_any_order_of_requests_writes_restarts_and_days(
    tmp_path_factory: pytest.TempPathFactory, events: list[Any]
) -> None:
    asyncio.run(_play(tmp_path_factory.mktemp("ledger"), events))


async def _play(folder: Path, events: list[Any]) -> None:
    now = 1_764_000_000.0  # noon
    clock: Callable[[], float] = lambda: now  # noqa: E731
    key = ApiKey(digest=b"k", name="k", tokens_per_day=100, tokens_per_month=150)
    chosen = StorageSettings(folder=str(folder))
    ledger = Ledger(chosen, clock)
    await ledger.prepare([key])
    running: list[tuple[RequestRecord, int, int]] = []
    day = month = 0
    for what, first, second in events:
        reserved = sum(held for _, held, _ in running)
        match what:
            case "begin":
                record = RequestRecord("r", "POST")
                record.key, record.model, record.endpoint, record.arrived_at = "k", "m", "/e", now
                record.prompt_guess = first
                fits = day + reserved < 100 and month + reserved < 150
                try:
                    ledger.reserve(key, record, second)
                except QuotaExceededError as error:
                    assert not fits and (error.retry_after_s is None) == (day >= 100 or month >= 150)
                    ledger.finished(record)
                    continue
                assert fits
                record.begun = 1.0
                running.append((record, first + second, first + second + 3))
            case "end" if running:
                record, _, used = running.pop(first % len(running))
                record.usage = Usage(used, 0)
                ledger.finished(record)
                day, month = day + used, month + used
            case "write":
                await ledger.write()
            case "restart" if not running:
                await ledger.close()
                ledger = Ledger(chosen, clock)
                await ledger.prepare([key])
            case "later" if not running:
                await ledger.write()
                now += first
                day, month = 0, 0 if first > DAY else month
            case _:
                pass
    await ledger.close()
