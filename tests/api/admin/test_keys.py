"""Keys made in a running gateway: they open at once, and stop opening at once; the command line does the same from outside."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from mm_gateway.api.access import made_keys
from mm_gateway.api.app import GatewayApp, create_app
from mm_gateway.catalog import build_catalog
from mm_gateway.configuration.api_key import ApiKey, digest_of
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.server_settings import ServerSettings
from mm_gateway.configuration.settings import Settings, StorageSettings
from mm_gateway.storage.key_store import KEYS_FILE, KeyStore

ADMIN = {"authorization": "Bearer operator"}
MOCK = ModelConfig(model_name="mock", backend="mock")


def gateway(folder: Path, keys: tuple[ApiKey, ...] = (), api_keys: tuple[str, ...] = ()) -> GatewayApp:
    settings = Settings(
        models={"mock": MOCK, "other": MOCK},
        server=ServerSettings(admin_keys=("operator",), api_keys=api_keys),
        keys=keys,
        storage=StorageSettings(folder=str(folder)),
    )
    return create_app(settings, build_catalog(settings))


def stored(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


async def made(client: Any, **fields: Any) -> dict[str, Any]:
    reply = await client.post("/admin/keys", json=fields, headers=ADMIN)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def status(client: Any, key: str, model: str = "mock") -> int:
    body = {"model": model, "prompt": "Hi", "max_tokens": 1}
    return (await client.post("/v1/completions", json=body, headers={"authorization": f"Bearer {key}"})).status_code


async def test_a_key_opens_from_its_making_to_its_end_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    async with AsyncTestClient(gateway(tmp_path)) as client:
        assert await status(client, "none") == 200  # no keys: open to everybody
        alice = await made(client, name="alice", models=["mock"], tokens_per_minute=1000)
        assert await status(client, "none") == 401
        assert (await status(client, alice["key"]), await status(client, alice["key"], "other")) == (200, 404)
        changed = await client.patch(f"/admin/keys/{alice['id']}", json={"models": None, "name": "al"}, headers=ADMIN)
        assert (changed.json()["models"], changed.json()["name"], changed.json()["tokens_per_minute"]) == (None, "al", 1000)
        assert await status(client, alice["key"], "other") == 200
        await client.patch("/admin/keys/al", json={"disabled": True}, headers=ADMIN)
        disabled = await client.get("/v1/models", headers={"authorization": f"Bearer {alice['key']}"})
        assert (disabled.status_code, disabled.json()["error"]["message"]) == (401, "This API key is disabled")
        await client.patch("/admin/keys/al", json={"disabled": False, "expires_at": time.time() - 1}, headers=ADMIN)
        assert await status(client, alice["key"]) == 401
        await client.patch("/admin/keys/al", json={"expires_at": None}, headers=ADMIN)
        assert await status(client, alice["key"]) == 200
        assert alice["key"].encode() not in stored(tmp_path)
    async with AsyncTestClient(gateway(tmp_path)) as client:  # as after a restart
        assert (await status(client, "none"), await status(client, alice["key"])) == (401, 200)
        listed = (await client.get("/admin/keys", headers=ADMIN)).json()["data"]
        assert [(key["name"], key["source"], key["id"]) for key in listed] == [("al", "made", alice["id"])]
        assert "key" not in listed[0] and listed[0]["used_today"]["tokens"] > 0
        assert (await client.delete("/admin/keys/al", headers=ADMIN)).json() == {"id": alice["id"], "deleted": True, "object": "api_key"}
        # It was the last one, which must not open the gateway.
        assert (await status(client, alice["key"]), await status(client, "none")) == (401, 401)


async def test_configured_keys_are_listed_and_cannot_be_changed_or_taken_for_another(tmp_path: Path) -> None:
    bob = ApiKey(digest=digest_of("bob-key"), name="bob")
    async with AsyncTestClient(gateway(tmp_path, (bob,), ("plain",))) as client:
        listed = (await client.get("/admin/keys", headers=ADMIN)).json()["data"]
        assert [(key["source"], key["name"]) for key in listed] == [("settings", digest_of("plain").hex()[:16]), ("file", "bob")]
        assert (await client.patch("/admin/keys/bob", json={"disabled": True}, headers=ADMIN)).status_code == 404
        taken = await client.post("/admin/keys", json={"name": "bob"}, headers=ADMIN)
        assert (taken.status_code, taken.json()["error"]["param"]) == (400, "name")
        await made(client, name="carol")
        assert (await client.post("/admin/keys", json={"name": "carol"}, headers=ADMIN)).status_code == 400
        await made(client, name="team/a")
        assert (await client.patch("/admin/keys/team%2Fa", json={"name": "team/b"}, headers=ADMIN)).status_code == 200
        assert (await client.delete("/admin/keys/team/b", headers=ADMIN)).status_code == 200
        unnamed = await made(client)
        assert unnamed["name"] == unnamed["id"]
        assert (await client.patch(f"/admin/keys/{unnamed['id']}", json={"name": "carol"}, headers=ADMIN)).status_code == 400


async def test_a_folder_that_is_deleted_makes_no_keys_that_would_be_lost(tmp_path: Path) -> None:
    async with AsyncTestClient(gateway(tmp_path)) as client:
        alice = await made(client, name="alice")
        shutil.rmtree(tmp_path)
        assert (await client.post("/admin/keys", json={"name": "bob"}, headers=ADMIN)).status_code == 503
        assert (await client.get("/admin/keys", headers=ADMIN)).status_code == 503
        assert (await status(client, alice["key"]), await status(client, "none")) == (200, 401)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"models": ["nothing"]}, "models[0]"),
        ({"models": []}, "models"),
        ({"tokens_per_day": 0}, "tokens_per_day"),
        ({"cost_per_day": -1}, "cost_per_day"),
        ({"limit": 1}, "limit"),
        ({"name": ""}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "\x1b[31mred"}, "name"),
        ({"name": " a"}, "name"),
        ({"expires_at": 1e308}, "expires_at"),
    ],
)
async def test_what_is_wrong_is_named(tmp_path: Path, body: dict[str, Any], param: str) -> None:
    async with AsyncTestClient(gateway(tmp_path)) as client:
        reply = await client.post("/admin/keys", json=body, headers=ADMIN)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)
        assert (await client.post("/admin/keys", json={})).status_code == 401
    assert not (tmp_path / KEYS_FILE).exists()


async def test_what_another_process_does_to_the_keys_counts_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made_keys, "LOOK_S", 0.01)
    async with AsyncTestClient(gateway(tmp_path)) as client:
        store = KeyStore(tmp_path / KEYS_FILE)
        store.add(ApiKey(digest=digest_of("from-outside"), name="outside"))

        async def becomes(*statuses: int) -> None:
            for _ in range(500):
                if (await status(client, "none"), await status(client, "from-outside")) == statuses:
                    return
                await asyncio.sleep(0.01)
            raise AssertionError(statuses)

        await becomes(401, 200)
        store.delete("outside")
        await becomes(401, 401)
        store.close()
