"""Models of the hub that no entry lists, over HTTP: a hub on loopback has them, the real engine answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from litestar.testing import AsyncTestClient

from mm_gateway.api.app import GatewayApp, create_app
from mm_gateway.catalog import build_catalog
from mm_gateway.configuration.loader import load_settings
from mm_gateway.errors import ConfigurationError
from tests.support.fake_hub import FakeHub, fake_hub, point_library_at
from tests.support.gguf_checkpoint import gguf_of, gguf_parts_of


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gpt2_checkpoint: Path) -> Iterator[FakeHub]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "made"))
    with fake_hub(monkeypatch, tmp_path / "cache") as hub:
        hub.add("o/m", gpt2_checkpoint)
        hub.add("o/m-2", gpt2_checkpoint)
        hub.add("p/m", gpt2_checkpoint)
        monkeypatch.setattr("mm_gateway.backends.hub_models.LISTING_S", 0.0)
        yield hub


@asynccontextmanager
async def gateway(folder: Path, gateway_yaml: str = "", allow: str = "['o/*']") -> AsyncIterator[AsyncTestClient[GatewayApp]]:
    (folder / "models.yaml").write_text(f"models: {{mock: {{model_name: mock, backend: mock}}}}\nallow: {allow}")
    (folder / "gateway.yaml").write_text(gateway_yaml)
    settings = load_settings(folder / "models.yaml", folder / "gateway.yaml", {"MM_GATEWAY_ADMIN_KEYS": "operator"})
    async with AsyncTestClient(create_app(settings, build_catalog(settings))) as client:
        yield client


async def ask(client: AsyncTestClient[GatewayApp], model: str, **headers: str) -> httpx.Response:
    return await client.post(
        "/v1/completions", json={"model": model, "prompt": "Hello", "max_tokens": 2, "ignore_eos": True}, headers=headers
    )


def chat(model: str) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}


async def states(client: AsyncTestClient[GatewayApp], **headers: str) -> dict[str, str]:
    cards = (await client.get("/v1/models", headers=headers)).json()["data"]
    return {card["id"]: card["state"] for card in cards if not card["id"].startswith("mm-orch/")}


async def test_a_model_that_is_allowed_answers_by_its_name_and_is_listed_once_it_is_downloaded(hub: FakeHub, tmp_path: Path) -> None:
    async with gateway(tmp_path) as client:
        assert await states(client) == {"mock": "ready"}
        reply = await ask(client, "o/m")
        assert reply.status_code == 200
        assert reply.json()["model"] == "o/m" and reply.json()["usage"]["completion_tokens"] == 2
        assert await states(client) == {"mock": "ready", "o/m": "ready"}
        assert (await client.get("/v1/models/o/m")).json()["id"] == "o/m"
        tokens = await client.post("/tokenize", json={"model": "o/m", "prompt": "Hello"})
        assert tokens.json()["count"] > 0


async def test_what_was_downloaded_before_is_listed_and_answers_without_the_hub(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway(tmp_path) as client:
        await ask(client, "o/m")
    point_library_at(monkeypatch, "http://127.0.0.1:9")
    async with gateway(tmp_path) as client:
        assert await states(client) == {"mock": "ready", "o/m": "cold"}
        assert (await ask(client, "o/m")).status_code == 200
        unreachable = await ask(client, "o/m-2")
        assert unreachable.status_code == 503
        assert "the hub cannot be reached" in unreachable.json()["error"]["message"]


async def test_other_names_are_not_found(hub: FakeHub, tmp_path: Path) -> None:
    async with gateway(tmp_path) as client:
        for name in (*["p/m", "m", "o/none", "o/../p", "o/m/..", "../m", "o/m/x", "o/..", "o/m:x", "/o/m", "o/", "o//m"], "o/m\n"):
            reply = await ask(client, name)
            assert reply.status_code == 404, name
            assert reply.json()["error"]["code"] == "model_not_found"
    assert {path.split("/main")[0] for _, path, _ in hub.requests} == {"/api/models/o/none/revision"}


async def test_names_that_clients_made_up_are_counted_under_none(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    operator = {"authorization": "Bearer operator"}
    async with gateway(tmp_path, f"storage: {{folder: {tmp_path / 'storage'}}}") as client:
        assert (await ask(client, "o/made-up-0")).status_code == 404
        point_library_at(monkeypatch, "http://127.0.0.1:9")  # nobody can say now which there are
        for number in range(1, 4):
            assert (await ask(client, f"o/made-up-{number}")).status_code == 503
        assert (await client.post("/v1/chat/completions", json=chat("mm-orch/chat-generate@o/made-up-4"))).status_code == 503
        assert (await ask(client, "mock")).status_code == 200
        assert "made-up" not in (await client.get("/metrics")).text
        rows = (await client.get("/admin/usage", params={"group_by": "model"}, headers=operator)).json()["data"]
        assert {row["model"]: row["requests"] for row in rows} == {"": 5, "mock": 1}
    assert "made-up" not in capsys.readouterr().out


async def test_none_are_allowed_by_default(hub: FakeHub, tmp_path: Path) -> None:
    async with gateway(tmp_path, allow="[]") as client:
        assert (await ask(client, "o/m")).status_code == 404
    assert not hub.requests


async def test_a_folder_of_that_name_is_never_read(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "o" / "secret").mkdir(parents=True)
    (tmp_path / "o" / "secret" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    async with gateway(tmp_path) as client:
        assert (await ask(client, "o/secret")).status_code == 404


async def test_they_share_the_room_of_all_models(hub: FakeHub, tmp_path: Path) -> None:
    async with gateway(tmp_path, "memory: {max_cached_models: 1}") as client:
        await ask(client, "o/m")
        await ask(client, "o/m-2")
        assert await states(client) == {"mock": "ready", "o/m": "cold", "o/m-2": "ready"}


async def test_a_gguf_file_is_named_after_a_colon(hub: FakeHub, tmp_path: Path, qwen2_checkpoint: Path) -> None:
    hub.add("o/g", {"q/m-F32.gguf": gguf_of(qwen2_checkpoint, tmp_path)})
    async with gateway(tmp_path) as client:
        assert (await ask(client, "o/g:q/none.gguf")).status_code == 404
        assert (await ask(client, "o/g:../q/m-F32.gguf")).status_code == 404
        assert (await ask(client, "o/g:q/m-F32.gguf")).status_code == 200
        assert await states(client) == {"mock": "ready", "o/g:q/m-F32.gguf": "ready"}
        unnamed = await ask(client, "o/g")
        assert unnamed.status_code == 503 and "o/g has its weights in GGUF files" in unnamed.json()["error"]["message"]


async def test_a_gguf_file_in_parts_is_named_by_one_of_them_and_listed_by_the_first(
    hub: FakeHub, tmp_path: Path, qwen2_checkpoint: Path
) -> None:
    hub.add("o/g", gguf_parts_of(qwen2_checkpoint, tmp_path, "m"))
    async with gateway(tmp_path) as client:
        assert (await ask(client, "o/g:m-00001-of-00004.gguf")).status_code == 404
        assert (await ask(client, "o/g:m-00001-of-00003.gguf")).status_code == 200
        assert await states(client) == {"mock": "ready", "o/g:m-00001-of-00003.gguf": "ready"}


async def test_the_operator_loads_and_unloads_them(hub: FakeHub, tmp_path: Path) -> None:
    async with gateway(tmp_path) as client:
        headers = {"authorization": "Bearer operator"}
        assert (await client.post("/admin/models/o/m/load", headers=headers)).json()["state"] == "ready"
        assert (await client.post("/admin/models/o/m/unload", headers=headers)).json()["state"] == "cold"
        assert (await client.post("/admin/models/o/none/load", headers=headers)).status_code == 404


async def test_a_workflow_answers_with_one(hub: FakeHub, tmp_path: Path) -> None:
    async with gateway(tmp_path) as client:
        body = {"model": "mm-orch/chat-generate@o/m", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
        reply = await client.post("/v1/chat/completions", json=body)
        assert reply.status_code == 200, reply.text


async def test_a_key_for_certain_models_opens_only_those(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("- {key: one, models: [o/m]}\n- {key: all}")
    async with gateway(tmp_path, "server: {api_keys_file: keys}") as client:
        assert (await ask(client, "o/m", authorization="Bearer one")).status_code == 200
        assert (await ask(client, "o/m-2", authorization="Bearer one")).status_code == 404
        assert (await ask(client, "o/m-2", authorization="Bearer all")).status_code == 200
        assert await states(client, authorization="Bearer one") == {"o/m": "ready"}


@pytest.mark.parametrize("allow", ["o/*", "[../*]", "['o/../*']", "[o/m/x]", "['/*']", "[1]", "['']", "['~/*']"])
async def test_patterns_that_are_none_are_named(tmp_path: Path, allow: str) -> None:
    with pytest.raises(ConfigurationError, match=r"models\.yaml: allow: got .*allowed is a list of ORGANISATION/NAME"):
        async with gateway(tmp_path, allow=allow):
            pass
