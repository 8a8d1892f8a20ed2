"""Keys with limits and models of their own, the gateway's bounds, and CORS, over a scripted model."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from litestar import Litestar, get
from litestar.connection import ASGIConnection
from litestar.testing import AsyncTestClient

from mm_gateway.api.access.keys import Keys, RequireKey, principal
from mm_gateway.configuration.api_key import ApiKey, digest_of, hashed, new_key, parse_key
from mm_gateway.configuration.server_settings import LimitSettings
from mm_gateway.core import ChoiceFinished, TextDelta, Usage
from mm_gateway.errors import EngineError
from tests.support.scripted_backend import ScriptedBackend, Step, app_over
from tests.support.served import post, raw_reply, served, until

CHAT: dict[str, Any] = {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}]}
ANSWER: list[Step] = [TextDelta(0, "a"), ChoiceFinished(0, "stop"), Usage(10, 20)]
ALICE = {"authorization": "Bearer alice-key"}
BOB = {"authorization": "Bearer bob-key"}


def key(text: str, **entry: Any) -> ApiKey:
    return ApiKey(digest=digest_of(text), **entry)


def limits_of(reply: Any) -> dict[str, str]:
    return {name.removeprefix("x-ratelimit-"): value for name, value in reply.headers.items() if name.startswith("x-ratelimit-")}


def test_a_key_is_known_by_its_hash_alone() -> None:
    made = new_key()
    assert made != new_key() and len(made) > 40
    assert hashed(made) == hashed(hashed(made))
    assert parse_key(hashed(made)) == digest_of(made)
    for wrong in ("", "two words", "sha256:12", "sha256:" + "g" * 64):
        with pytest.raises(ValueError):
            parse_key(wrong)


async def test_a_hashed_key_opens() -> None:
    async with AsyncTestClient(app_over(ScriptedBackend(ANSWER), api_keys=(hashed("alice-key"),))) as client:
        assert (await client.get("/v1/models", headers=ALICE)).status_code == 200
        assert (await client.get("/v1/models", headers={"authorization": f"Bearer {hashed('alice-key')}"})).status_code == 401


async def test_a_request_knows_its_principal() -> None:
    @get("/whose", sync_to_thread=False)
    def whose(request: ASGIConnection) -> str:
        return principal(request)

    for keys, whom in (((key("alice-key", name="alice"),), "alice"), ((key("alice-key"),), digest_of("alice-key").hex()[:16]), ((), "")):
        async with AsyncTestClient(Litestar([whose], guards=[RequireKey(Keys(keys))])) as client:
            assert (await client.get("/whose", headers=ALICE)).text == whom


async def test_requests_per_minute_are_each_keys_own() -> None:
    keys = (key("alice-key", name="alice", requests_per_minute=2), key("bob-key", name="bob"))
    app = app_over(ScriptedBackend(ANSWER), keys=keys, limits=LimitSettings(requests_per_minute=60))
    async with AsyncTestClient(app) as client:
        for left in ("1", "0"):
            reply = await client.post("/v1/chat/completions", json=CHAT, headers=ALICE)
            assert reply.status_code == 200
            assert limits_of(reply)["limit-requests"] == "2"
            assert limits_of(reply)["remaining-requests"] == left
        refused = await client.post("/v1/chat/completions", json=CHAT, headers=ALICE)
        assert refused.status_code == 429
        error = refused.json()["error"]
        assert (error["type"], error["code"]) == ("requests", "rate_limit_exceeded")
        assert 15_000 < int(refused.headers["retry-after-ms"]) <= 30_000
        assert int(refused.headers["retry-after"]) == -(-int(refused.headers["retry-after-ms"]) // 1000)
        assert limits_of(refused)["remaining-requests"] == "0"
        assert (await client.get("/v1/models", headers=ALICE)).status_code == 200  # looking is free
        other = await client.post("/v1/chat/completions", json=CHAT, headers=BOB)
        assert limits_of(other) == {
            "limit-requests": "60",
            "remaining-requests": "59",
            "reset-requests": limits_of(other)["reset-requests"],
        }


@pytest.mark.parametrize(
    ("script", "status", "used"),
    [
        (ANSWER, 200, 30),  # usage, not the estimate
        ([EngineError("broke")], 500, 0),  # nothing was generated
        ([TextDelta(0, "a"), TextDelta(0, "b"), EngineError("broke")], 500, 2),  # what there was, and the prompt as guessed
    ],
    ids=["finished", "failed", "failed in the middle"],
)
async def test_tokens_are_put_right_when_a_reply_ends(script: list[Step], status: int, used: int) -> None:
    app = app_over(ScriptedBackend(script), limits=LimitSettings(tokens_per_minute=60))
    prompt = len(json.dumps(CHAT, separators=(",", ":"))) // 4 + 1
    async with AsyncTestClient(app) as client:
        reply = await client.post(
            "/v1/chat/completions", content=json.dumps({**CHAT}, separators=(",", ":")), headers={"content-type": "application/json"}
        )
    assert reply.status_code == status
    expected = 60 - used - (prompt if used == 2 else 0)
    assert 0 <= int(limits_of(reply)["remaining-tokens"]) - expected <= 10  # a second gives one back


async def test_a_stream_shows_what_was_taken_at_its_begin_and_the_next_reply_what_was_used() -> None:
    app = app_over(ScriptedBackend([ANSWER[0], 0.1, *ANSWER[1:]]), limits=LimitSettings(tokens_per_minute=60))
    body = {**CHAT, "max_tokens": 25}
    async with AsyncTestClient(app) as client:
        first = await client.post("/v1/chat/completions", json={**body, "stream": True})
        assert first.text.endswith("data: [DONE]\n\n")
        assert int(limits_of(first)["remaining-tokens"]) < 20
        assert 30 <= int(limits_of(await client.get("/v1/models"))["remaining-tokens"]) <= 40
        again = await client.post("/v1/chat/completions", json={**body, "max_tokens": 35})
        assert again.status_code == 429
        assert again.json()["error"]["type"] == "tokens"
        assert 0 < int(again.headers["retry-after-ms"]) < 30_000
        large = await client.post("/v1/chat/completions", json={**body, "max_tokens": 100})
        assert (large.status_code, large.headers["x-should-retry"]) == (429, "false")
        assert "retry-after" not in large.headers


async def test_a_cancelled_stream_pays_for_what_it_got() -> None:
    backend = ScriptedBackend([TextDelta(0, "a"), TextDelta(0, "b"), 30.0])
    body = json.dumps({**CHAT, "stream": True, "max_tokens": 5000}).encode()
    with served(app_over(backend, limits=LimitSettings(tokens_per_minute=6000))) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post("/v1/chat/completions", body))
        head = (await reader.readuntil(b'"b"')).decode()
        assert "x-ratelimit-remaining-tokens: 9" in head  # 6000 - 5000 - prompt
        writer.close()
        await until(lambda: backend.closed)
        _, headers, _ = await raw_reply(port, b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n")
    assert int(headers["x-ratelimit-remaining-tokens"]) > 5900


async def test_without_limits_replies_say_nothing_of_them() -> None:
    async with AsyncTestClient(app_over(ScriptedBackend(ANSWER))) as client:
        assert limits_of(await client.post("/v1/chat/completions", json=CHAT)) == {}


async def test_a_key_opens_only_its_models() -> None:
    one, two = ScriptedBackend(ANSWER, "one"), ScriptedBackend(ANSWER, "two")
    app = app_over(one, two, keys=(key("alice-key", models=("one",)), key("bob-key")))
    async with AsyncTestClient(app) as client:
        for headers, models in ((ALICE, ["one", "an-alias"]), (BOB, ["one", "two", "an-alias"])):
            listed = (await client.get("/v1/models", headers=headers)).json()["data"]
            assert [model["id"] for model in listed] == models
        for name in ("two", "nowhere"):
            for reply in (
                await client.post("/v1/chat/completions", json={**CHAT, "model": name}, headers=ALICE),
                await client.get(f"/v1/models/{name}", headers=ALICE),
            ):
                assert reply.status_code == 404
                assert reply.json()["error"]["message"] == f"The model `{name}` does not exist. Configured models: one"
        assert (await client.post("/v1/chat/completions", json={**CHAT, "model": "an-alias"}, headers=ALICE)).status_code == 200
    assert two.started == 0


@pytest.mark.parametrize(
    ("limits", "script", "says"),
    [
        (LimitSettings(max_queued_requests=2), [60.0], "waiting for their first token"),
        (LimitSettings(max_requests=2), [TextDelta(0, "a"), 60.0], "being answered"),
    ],
    ids=["queued", "live"],
)
async def test_beyond_a_bound_of_the_gateway_requests_are_refused_until_one_ends(
    limits: LimitSettings, script: list[Step], says: str
) -> None:
    backend = ScriptedBackend(script)
    request = post("/v1/chat/completions", json.dumps({**CHAT, "stream": True}).encode())
    with served(app_over(backend, limits=limits)) as port:
        writers = []
        for count in (1, 2):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            writers.append(writer)
            await until(lambda count=count: backend.started == count)
        status, headers, body = await raw_reply(port, request)
        assert status == 429
        error = json.loads(body)["error"]
        assert says in error["message"]
        assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
        assert int(headers["retry-after"]) >= 1 and int(headers["retry-after-ms"]) >= 1
        assert (await raw_reply(port, b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"))[0] == 200
        writers[0].close()
        await until(lambda: backend.closed == 1)
        backend.script = ANSWER
        await asyncio.sleep(0.05)
        assert (await raw_reply(port, post("/v1/chat/completions", json.dumps(CHAT).encode())))[0] == 200
        writers[1].close()


async def test_requests_that_have_begun_do_not_count_as_queued() -> None:
    backend = ScriptedBackend([TextDelta(0, "a"), 60.0])
    request = post("/v1/chat/completions", json.dumps({**CHAT, "stream": True}).encode())
    with served(app_over(backend, limits=LimitSettings(max_queued_requests=1))) as port:
        writers = []
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            await reader.readuntil(b'"content":"a"')
            writers.append(writer)
        for writer in writers:
            writer.close()
        await until(lambda: backend.closed == 3)


async def test_browsers_of_allowed_origins_may_call() -> None:
    app = app_over(ScriptedBackend(ANSWER), api_keys=("alice-key",), cors_origins=("https://good.example",))
    preflight = {"access-control-request-method": "POST", "access-control-request-headers": "authorization, content-type"}
    async with AsyncTestClient(app) as client:
        asked = await client.options("/v1/chat/completions", headers={"origin": "https://good.example", **preflight})
        assert asked.status_code == 204
        assert asked.headers["access-control-allow-origin"] == "https://good.example"
        assert "authorization" in asked.headers["access-control-allow-headers"].lower()
        bad = await client.options("/v1/chat/completions", headers={"origin": "https://bad.example", **preflight})
        assert "access-control-allow-origin" not in bad.headers
        for headers, status in ((ALICE, 200), ({}, 401)):
            reply = await client.post("/v1/chat/completions", json=CHAT, headers={"origin": "https://good.example", **headers})
            assert reply.status_code == status
            assert reply.headers["access-control-allow-origin"] == "https://good.example"
            assert {"x-request-id", "retry-after", "x-ratelimit-remaining-tokens"} <= {
                name.strip() for name in reply.headers["access-control-expose-headers"].split(",")
            }
        stranger = await client.post("/v1/chat/completions", json=CHAT, headers={"origin": "https://bad.example", **ALICE})
        assert "access-control-allow-origin" not in stranger.headers


async def test_cors_is_off_by_default() -> None:
    async with AsyncTestClient(app_over(ScriptedBackend(ANSWER))) as client:
        reply = await client.get("/v1/models", headers={"origin": "https://good.example"})
        assert not any(name.startswith("access-control") for name in reply.headers)
