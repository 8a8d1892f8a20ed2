"""Files of a running gateway change: what is valid takes effect at once, no stream ends, and what is broken stays as it was."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from litestar.testing import AsyncTestClient

from mm_gateway.api.app import GatewayApp, create_app
from mm_gateway.catalog import Catalog, build_catalog
from mm_gateway.configuration.api_key import hashed
from mm_gateway.configuration.loader import load_settings
from mm_gateway.errors import StorageError
from tests.support.served import served, until

ADMIN = {"authorization": "Bearer operator"}
MOCK = {"model_name": "mock", "backend": "mock"}


def write(path: Path, content: Any) -> None:
    """As editors do: a new file takes the place of the old one."""
    draft = path.with_suffix(".draft")
    draft.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    draft.replace(path)


def write_models(folder: Path, **entries: Any) -> None:
    write(folder / "models.yaml", {"models": entries})


def write_keys(folder: Path, *keys: str, **more: Any) -> None:
    write(folder / "keys.yaml", [{"key": hashed(key), "name": f"of {key}", **more} for key in keys])


def gateway(folder: Path, *, interval_s: float = 0, **server: Any) -> tuple[GatewayApp, Catalog]:
    """Over the files of a folder; without a key file there are no keys."""
    section = {"admin_keys": ["operator"], "reload_interval_s": interval_s, **server}
    if (folder / "keys.yaml").exists():
        section["api_keys_file"] = "keys.yaml"
    write(folder / "gateway.yaml", {"server": section, "memory": {"max_cached_models": 3}})
    loaded = load_settings(folder / "models.yaml", folder / "gateway.yaml", {})
    catalog = build_catalog(loaded)
    return create_app(loaded, catalog), catalog


def chat(model: str, tokens: int = 3, delay_s: float = 0) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": f"!mock delay={delay_s}"}], "max_tokens": tokens, "stream": True}


@asynccontextmanager
async def client_of(app: GatewayApp) -> AsyncIterator[httpx.AsyncClient]:
    with served(app) as port:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20, trust_env=False) as client:
            yield client


async def models_of(client: httpx.AsyncClient, key: str = "x") -> list[str]:
    cards = (await client.get("/v1/models", headers={"authorization": f"Bearer {key}"})).json()["data"]
    return [card["id"] for card in cards if card["backend"] != "workflow"]


async def test_a_stream_goes_on_over_reloads_that_change_and_remove_its_model(tmp_path: Path) -> None:
    write_models(tmp_path, old=MOCK, same=MOCK)
    app, _ = gateway(tmp_path)
    async with client_of(app) as client, client.stream("POST", "/v1/chat/completions", json=chat("old", 40, 0.02)) as stream:
        lines = stream.aiter_lines()
        await anext(lines)
        write_models(tmp_path, old={**MOCK, "delay_s": 0.001}, same=MOCK)
        assert (await client.post("/admin/reload", headers=ADMIN)).json()["changed"] == ["old"]
        write_models(tmp_path, new=MOCK, same=MOCK)
        reply = (await client.post("/admin/reload", headers=ADMIN)).json()
        assert (reply["added"], reply["changed"], reply["removed"]) == (["new"], [], ["old"])
        assert await models_of(client) == ["new", "same"]
        assert (await client.post("/v1/chat/completions", json=chat("old"))).status_code == 404
        assert (await client.post("/v1/chat/completions", json=chat("new"))).status_code == 200
        rest = [line async for line in lines if line.startswith("data: ")]
        assert rest[-1] == "data: [DONE]"
        assert json.loads(rest[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "stop"


async def test_a_local_model_whose_entry_changed_is_loaded_anew_and_the_old_one_leaves_after_its_last_request(
    tmp_path: Path, llama_checkpoint: Path
) -> None:
    local = {"model_name": str(llama_checkpoint), "device": "cpu"}
    write_models(tmp_path, m={**local, "pin": True}, same=MOCK)
    app, catalog = gateway(tmp_path)
    manager = catalog._manager
    assert manager is not None
    async with client_of(app) as client:
        body = {"model": "m", "prompt": "a b c", "max_tokens": 60, "stream": True, "ignore_eos": True}
        async with client.stream("POST", "/v1/completions", json=body) as stream:
            lines = stream.aiter_lines()
            await anext(lines)
            write_models(tmp_path, m={**local, "max_context_length": 64, "dtype": "fp32"}, same=MOCK)
            assert (await client.post("/admin/reload", headers=ADMIN)).json()["changed"] == ["m"]
            fresh = await client.post("/v1/completions", json={"model": "m", "prompt": "a b c", "max_tokens": 2})
            assert fresh.status_code == 200
            card = (await client.get("/v1/models/m")).json()
            assert card["context_length"] == 64 and card["details"]["pinned"] is False
            assert [line async for line in lines if line.startswith("data: ")][-1] == "data: [DONE]"
        await until(lambda: manager.stats().resident == 1)
        assert len(manager._cache.entries(lambda _: True)) == 1
        # Nothing but a name and a TTL is different: what is in memory stays there.
        write_models(tmp_path, m={**local, "max_context_length": 64, "dtype": "fp32", "aliases": ["n"], "ttl_s": 100}, same=MOCK)
        assert (await client.post("/admin/reload", headers=ADMIN)).json()["changed"] == ["m"]
        assert (await client.get("/v1/models/n")).json()["state"] == "ready"
        write_models(tmp_path, same=MOCK)
        await client.post("/admin/reload", headers=ADMIN)
        await until(lambda: not manager.stats().resident and not manager._cache.entries(lambda _: True))


@pytest.mark.parametrize("interval_s", [0.0, 0.05])
async def test_a_pipe_in_place_of_the_models_is_refused_and_nobody_waits_for_it(tmp_path: Path, interval_s: float) -> None:
    write_models(tmp_path, m=MOCK)
    app, _ = gateway(tmp_path, interval_s=interval_s)
    async with client_of(app) as client:
        (tmp_path / "models.yaml").unlink()
        os.mkfifo(tmp_path / "models.yaml")
        async with asyncio.timeout(15):
            broken = await client.post("/admin/reload", headers=ADMIN)
            assert broken.status_code == 400
            assert "models.yaml is no file; a folder, a pipe or a device is not read" in broken.json()["error"]["message"]
            assert await models_of(client) == ["m"]
            (tmp_path / "models.yaml").unlink()
            write_models(tmp_path, n=MOCK)
            assert (await client.post("/admin/reload", headers=ADMIN)).status_code == 200
        assert await models_of(client) == ["n"]


async def test_a_broken_file_is_reported_and_the_others_count(tmp_path: Path) -> None:
    write_models(tmp_path, m=MOCK)
    write_keys(tmp_path, "one")
    app, _ = gateway(tmp_path)
    async with AsyncTestClient(app) as client:
        write(tmp_path / "models.yaml", "models: {m: {model_name: mock, backend: mokc}}")
        write_keys(tmp_path, "two")
        broken = await client.post("/admin/reload", headers=ADMIN)
        assert (broken.status_code, broken.json()["error"]["code"]) == (400, "invalid_configuration")
        assert "models.yaml: model m: backend: got 'mokc'" in broken.json()["error"]["message"]
        assert await models_of(client, "two") == ["m"]  # type: ignore[arg-type]
        assert (await client.get("/v1/models", headers={"authorization": "Bearer one"})).status_code == 401
        reloader = app.state.reloader
        assert (reloader.reloads, reloader.failures, len(reloader.errors)) == (1, 1, 1)
        write_models(tmp_path, n=MOCK)
        write(tmp_path / "keys.yaml", "- {key: three, models: [unknown]}")
        broken = await client.post("/admin/reload", headers=ADMIN)
        assert "'unknown' is not among the models: n" in broken.json()["error"]["message"]
        assert "added: n, removed: m" in broken.json()["error"]["message"]
        assert await models_of(client, "two") == ["n"]  # type: ignore[arg-type]


async def test_what_takes_a_restart_is_named(tmp_path: Path) -> None:
    write_models(tmp_path, m=MOCK)
    app, _ = gateway(tmp_path)
    async with AsyncTestClient(app) as client:
        write(tmp_path / "gateway.yaml", {"server": {"admin_keys": ["operator"], "reload_interval_s": 0, "port": 1}})
        reply = await client.post("/admin/reload", headers=ADMIN)
        assert (reply.status_code, reply.json()["restart"]) == (200, ["server.port"])
        assert (await client.post("/admin/reload")).status_code == 401


async def test_files_are_watched_through_replacements_and_the_links_of_kubernetes(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    for version, name in (("..1", "a"), ("..2", "b")):
        (mount / version).mkdir(parents=True)
        write_models(mount / version, **{name: MOCK})
    (mount / "..data").symlink_to("..1")
    (mount / "models.yaml").symlink_to("..data/models.yaml")
    app, _ = gateway(mount, interval_s=0.02)
    async with AsyncTestClient(app) as client:

        async def served_now(*names: str) -> None:
            for _ in range(1000):
                if await models_of(client) == [*names]:  # type: ignore[arg-type]
                    return
                await asyncio.sleep(0.01)
            raise AssertionError(f"never served: {names}")

        await served_now("a")
        (mount / "..data_tmp").symlink_to("..2")
        os.rename(mount / "..data_tmp", mount / "..data")
        await served_now("b")
        write_models(mount / "..2", c=MOCK)
        await served_now("c")
        (mount / "..2" / "models.yaml").write_text("models: {")  # broken, in place
        await until(lambda: app.state.reloader.failures == 1)
        (mount / "..2" / "models.yaml").unlink()
        await until(lambda: app.state.reloader.failures == 2)
        await served_now("c")
        (mount / "..2" / "models.yaml").write_text("models: {d: {model_name: mock, backend: mock}}")
        await served_now("d")


async def test_a_reload_that_storage_fails_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_models(tmp_path, m=MOCK)
    write_keys(tmp_path, "one")
    app, _ = gateway(tmp_path, interval_s=0.02)
    async with AsyncTestClient(app) as client:
        prepare, failed = app.state.ledger.prepare, False

        async def failing_once(keys: Any) -> None:
            nonlocal failed
            if not failed:
                failed = True
                raise StorageError("the disk is gone")
            await prepare(keys)

        monkeypatch.setattr(app.state.ledger, "prepare", failing_once)
        write_keys(tmp_path, "two")
        await until(lambda: app.state.reloader.reloads >= 1)
        assert failed and app.state.reloader.failures == 1
        assert (await client.get("/v1/models", headers={"authorization": "Bearer two"})).status_code == 200


async def test_what_changes_while_the_gateway_starts_is_taken_over(tmp_path: Path) -> None:
    write_models(tmp_path, m=MOCK)
    write_keys(tmp_path, "one")
    app, _ = gateway(tmp_path, interval_s=0.02)
    write_keys(tmp_path, "three")
    async with AsyncTestClient(app) as client:
        await until(lambda: app.state.reloader.reloads >= 1)
        assert (await client.get("/v1/models", headers={"authorization": "Bearer three"})).status_code == 200


ENTRIES = st.dictionaries(
    st.sampled_from("abcd"), st.sampled_from([MOCK, {**MOCK, "max_context_length": 64}, {**MOCK, "backend": "nothing"}]), max_size=4
)
EDITS = st.lists(
    st.one_of(
        ENTRIES.map(lambda entries: ("models", entries)),
        st.lists(st.sampled_from(["k1", "k2", "k3"]), max_size=3).map(lambda keys: ("keys", keys)),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(EDITS)
def test_after_any_edits_the_last_valid_of_each_file_is_served(tmp_path: Path, edits: list[tuple[str, Any]]) -> None:
    asyncio.run(_edit(tmp_path, edits))


async def _edit(folder: Path, edits: list[tuple[str, Any]]) -> None:
    models: dict[str, Any] = {"a": MOCK}
    keys = {"k1"}
    write_models(folder, **models)
    write_keys(folder, *keys)
    app, catalog = gateway(folder)
    async with AsyncTestClient(app) as client:
        for what, content in edits:
            if what == "models":
                valid = bool(content) and all(entry["backend"] == "mock" for entry in content.values())
                write_models(folder, **content)
                before = {name: catalog.resolve(name) for name in models}
                kept = {name for name in content if models.get(name) == content[name]} if valid else set(models)
                models = content if valid else models
            else:
                valid = bool(content) and len(set(content)) == len(content)
                write_keys(folder, *content)
                before, kept = {name: catalog.resolve(name) for name in models}, set(models)
                keys = set(content) if valid else keys
            reply = await client.post("/admin/reload", headers=ADMIN)
            # A file that was broken before may still be.
            assert reply.status_code == 200 or not valid or app.state.reloader.errors
            assert valid or reply.status_code == 400
            assert all(catalog.resolve(name) is before[name] for name in kept & before.keys())
            for key in ("k1", "k2", "k3"):
                found = await client.get("/v1/models", headers={"authorization": f"Bearer {key}"})
                assert found.status_code == (200 if key in keys else 401)
            listed = await models_of(client, min(keys))  # type: ignore[arg-type]
            assert listed == sorted(models)  # as safe_dump writes them
            for name, entry in models.items():
                assert catalog.resolve(name).info().context_length == entry.get("max_context_length", 32768)
