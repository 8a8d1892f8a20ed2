"""What an operator sees of requests and ends, over real sockets, and what came and left."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
from litestar.testing import AsyncTestClient

from mm_gateway.api.app import create_app
from mm_gateway.api.observation.recent import MAX_RECENT
from mm_gateway.catalog import build_catalog
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.server_settings import ServerSettings
from mm_gateway.configuration.settings import Settings
from mm_gateway.core import ChoiceFinished, TextDelta, Usage
from tests.support.scripted_backend import ScriptedBackend, app_over
from tests.support.served import served, until

KEY = {"authorization": "Bearer operator"}
CHAT = {"model": "an-alias", "messages": [{"role": "user", "content": "a secret"}]}
ENDLESS = [TextDelta(0, "one"), TextDelta(0, " two"), 60.0, Usage(1, 1)]


async def test_a_running_request_is_shown_and_ended_with_an_error_that_says_so() -> None:
    backend = ScriptedBackend(ENDLESS)
    with served(app_over(backend, admin_keys=("operator",))) as port:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as http:
            async with http.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True}) as reply:
                lines = reply.aiter_lines()
                while "two" not in await anext(lines):
                    pass
                listed = (await http.get("/admin/requests", headers=KEY)).json()
                (entry,) = listed["running"]
                assert entry["id"] == reply.headers["x-request-id"]
                assert (entry["endpoint"], entry["model"], entry["state"]) == ("/v1/chat/completions", "scripted", "running")
                assert (entry["stream"], entry["output_tokens"], listed["totals"]["output_tokens"]) == (True, 2, 2)
                assert 0 < entry["time_to_first_token_s"] <= entry["duration_s"]
                assert "secret" not in str(listed)
                ended = await http.delete(f"/admin/requests/{entry['id']}", headers=KEY)
                assert (ended.status_code, ended.json()["id"]) == (200, entry["id"])
                rest = [line async for line in lines]
            assert any('"code":"request_cancelled"' in line for line in rest)
            listed = (await http.get("/admin/requests", headers=KEY)).json()
            assert listed["running"] == []
            assert [(old["id"], old["error"], old["state"]) for old in listed["recent"]] == [(entry["id"], "request_cancelled", "finished")]
            assert (listed["totals"]["requests"], listed["totals"]["failed"]) == (1, 1)
            again = await http.delete(f"/admin/requests/{entry['id']}", headers=KEY)
            assert (again.status_code, backend.closed) == (404, 1)


async def test_a_whole_reply_that_is_ended_keeps_the_status_of_the_error() -> None:
    app = app_over(ScriptedBackend(ENDLESS), admin_keys=("operator",))
    with served(app) as port:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as http:
            asked = asyncio.create_task(http.post("/v1/chat/completions", json=CHAT))
            await until(lambda: any(ticket.record.first_output for ticket in app.state.admission.tickets))
            running = (await http.get("/admin/requests", headers=KEY)).json()["running"]
            await http.delete(f"/admin/requests/{running[0]['id']}", headers=KEY)
            reply = await asked
    assert (reply.status_code, reply.headers["x-should-retry"]) == (503, "false")
    assert reply.json()["error"]["code"] == "request_cancelled"


async def test_what_has_ended_is_summed_up_and_only_the_newest_is_kept() -> None:
    backend = ScriptedBackend([TextDelta(0, "tea"), ChoiceFinished(0, "stop"), Usage(5, 4)])
    async with AsyncTestClient(app_over(backend, admin_keys=("operator",))) as client:
        for _ in range(MAX_RECENT + 3):
            await client.post("/v1/chat/completions", json=CHAT)
        await client.post("/v1/chat/completions", json=CHAT | {"model": "nobody"})
        await client.get("/v1/models")
        listed = (await client.get("/admin/requests", headers=KEY)).json()
    assert listed["totals"] == {
        "requests": MAX_RECENT + 4,
        "failed": 1,
        "prompt_tokens": 5 * (MAX_RECENT + 3),
        "output_tokens": 4 * (MAX_RECENT + 3),
    }
    assert len(listed["recent"]) == MAX_RECENT
    newest, before = listed["recent"][:2]
    assert (newest["status"], newest["error"], newest["model"]) == (404, "model_not_found", "")
    assert (before["status"], before["error"], before["prompt_tokens"], before["output_tokens"]) == (200, "", 5, 4)


async def test_only_an_admin_key_opens_them() -> None:
    async with AsyncTestClient(app_over(ScriptedBackend([]), admin_keys=("operator",))) as client:
        for method, path in (("GET", "requests"), ("DELETE", "requests/req_1"), ("GET", "events"), ("GET", "models")):
            assert (await client.request(method, f"/admin/{path}")).status_code == 401


async def test_models_are_listed_with_the_memory_of_their_devices_and_what_came_and_left(llama_checkpoint: Path) -> None:
    entry = ModelConfig(model_name="llama", path=str(llama_checkpoint), device="cpu")
    settings = Settings(models={"llama": entry}, server=ServerSettings(admin_keys=("operator",), api_keys=("user",)))
    async with AsyncTestClient(create_app(settings, build_catalog(settings))) as client:
        listed = (await client.get("/admin/models", headers=KEY)).json()
        assert (listed["data"][0]["state"], listed["memory"]) == ("cold", [])
        await client.post("/admin/models/llama/load", headers=KEY)
        listed = (await client.get("/admin/models", headers=KEY)).json()
        (memory,) = listed["memory"]
        assert memory["device"] == "cpu" and 0 < memory["used_bytes"] < memory["budget_bytes"]
        assert memory["used_bytes"] == listed["data"][0]["details"]["footprint_bytes"]
        await client.post("/admin/models/llama/unload", headers=KEY)
        events = (await client.get("/admin/events", headers=KEY)).json()["data"]
    assert [(event["kind"], event["model"], event["reason"]) for event in events] == [
        ("evicted", "llama", "asked"),
        ("loaded", "llama", None),
    ]
    assert events[0]["bytes"] == events[1]["bytes"] == memory["used_bytes"] and events[1]["seconds"] > 0
