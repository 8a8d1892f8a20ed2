"""The operator's endpoints, over a catalog with a real manager and small real models."""

from __future__ import annotations

from pathlib import Path

from litestar.testing import AsyncTestClient

from mm_gateway.api.app import create_app
from mm_gateway.catalog import build_catalog
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.server_settings import ServerSettings
from mm_gateway.configuration.settings import MemorySettings, Settings

KEY = {"authorization": "Bearer operator"}


def settings(*, admin_keys: tuple[str, ...] = ("operator",), **models: Path) -> Settings:
    entries = {name.replace("__", "/"): ModelConfig(model_name=str(path), device="cpu") for name, path in models.items()}
    entries["mock"] = ModelConfig(model_name="mock", backend="mock")
    server = ServerSettings(admin_keys=admin_keys, api_keys=("user",))
    return Settings(models=entries, server=server, memory=MemorySettings(max_cached_models=1))


async def test_models_are_loaded_pinned_and_unloaded(llama_checkpoint: Path, gpt2_checkpoint: Path) -> None:
    chosen = settings(org__llama=llama_checkpoint, gpt2=gpt2_checkpoint)
    async with AsyncTestClient(create_app(chosen, build_catalog(chosen))) as client:
        loaded = await client.post("/admin/models/org/llama/load", headers=KEY)
        assert (loaded.status_code, loaded.json()["state"]) == (200, "ready")
        assert loaded.json()["details"]["footprint_bytes"] > 100_000
        assert loaded.json()["details"]["device"] == "cpu"
        pinned = await client.post("/admin/models/org/llama/pin", headers=KEY)
        assert pinned.json()["details"]["pinned"] is True
        crowded = await client.post("/admin/models/gpt2/load", headers=KEY)
        assert (crowded.status_code, crowded.headers["x-should-retry"]) == (503, "false")
        assert "pinned" in crowded.json()["error"]["message"]
        await client.post("/admin/models/org/llama/unpin", headers=KEY)
        assert (await client.post("/admin/models/gpt2/load", headers=KEY)).json()["state"] == "ready"
        assert (await client.get("/v1/models/org/llama", headers={"authorization": "Bearer user"})).json()["state"] == "cold"
        assert (await client.post("/admin/models/gpt2/unload", headers=KEY)).json()["state"] == "cold"
        assert (await client.post("/admin/models/gpt2/unload", headers=KEY)).status_code == 200


async def test_only_an_admin_key_opens_and_only_where_there_is_one() -> None:
    chosen = settings()
    async with AsyncTestClient(create_app(chosen, build_catalog(chosen))) as client:
        assert (await client.post("/admin/models/mock/load")).status_code == 401
        assert (await client.post("/admin/models/mock/load", headers={"authorization": "Bearer user"})).status_code == 401
        assert (await client.post("/admin/models/nothing/load", headers=KEY)).status_code == 404
        assert (await client.post("/admin/models/mock/load", headers=KEY)).status_code == 400
        assert (await client.post("/admin/models/mock/explode", headers=KEY)).status_code == 400
    chosen = settings(admin_keys=())
    async with AsyncTestClient(create_app(chosen, build_catalog(chosen))) as client:
        refused = await client.post("/admin/models/mock/load", headers=KEY)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "permission_denied")
