"""Bodies of agents with something odd in them: whatever stands where, the answer is a reply or an error of the client's."""

from __future__ import annotations

import asyncio
import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from mm_gateway.api.app import create_app
from mm_gateway.backends.mock.backend import MockBackend
from mm_gateway.catalog import Catalog
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.search_settings import SearchSettings
from mm_gateway.configuration.server_settings import ServerSettings
from mm_gateway.configuration.settings import Settings, StorageSettings

CASES = 60
F = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}
ITEMS: list[Any] = [
    {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
    {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm"}]},
    {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c1", "output": "1"},
    {"type": "shell_call", "call_id": "c2", "action": {"commands": ["ls"]}},
    {"type": "shell_call_output", "call_id": "c2", "output": [{"stdout": "a", "outcome": {"type": "exit", "exit_code": 1}}]},
    {"type": "apply_patch_call", "call_id": "c3", "operation": {"type": "update_file", "path": "a", "diff": "@@"}},
    {"type": "apply_patch_call_output", "call_id": "c3", "status": "completed"},
    {"role": "assistant", "content": [{"type": "output_text", "text": "Hello."}]},
]
TOOLS: list[Any] = [
    F,
    {"type": "namespace", "name": "n", "tools": [F]},
    {"type": "shell"},
    {"type": "web_search", "filters": {"allowed_domains": ["a"]}},
]
RESPONSE = {"model": "mock", "input": ITEMS, "tools": TOOLS, "max_output_tokens": 40, "text": {"format": {"type": "text"}}}
MESSAGE: dict[str, Any] = {
    "model": "mock",
    "max_tokens": 40,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {"role": "user", "content": [{"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm", "signature": "mmg2.AAAA"},
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "1"}]}]},
    ],
    "tools": [{"name": "f", "input_schema": F["parameters"]}, {"type": "web_search_20250305", "name": "web_search", "max_uses": 1}],
    "thinking": {"type": "adaptive"},
}
BODIES = {
    "/v1/responses": [
        RESPONSE,
        RESPONSE | {"stream": True},
        RESPONSE | {"background": True},
        RESPONSE | {"background": True, "stream": True},
        RESPONSE | {"input": [*ITEMS, {"type": "compaction_trigger"}]},
    ],
    "/v1/responses/compact": [RESPONSE],
    "/v1/messages": [MESSAGE, MESSAGE | {"stream": True}],
}
ODD: list[Any] = [
    *(None, True, 0, -1, 1e308, 2**70, "", "\ud800", "\x00", [], {}, [[]], {"a": None}, [None], "auto", {"type": []}, {"type": {}}),
    *({"type": "compaction_trigger"}, {"type": "compaction", "encrypted_content": "AAAA"}, {"type": "compaction", "encrypted_content": []}),
    *({"type": "item_reference", "id": "msg_" + "0" * 36}, {"type": "reasoning", "encrypted_content": "AQ=="}, "resp_" + "0" * 32),
    *(
        {"type": "image", "source": {"type": "base64", "data": "!"}},
        {"type": "input_image", "image_url": 5},
        {"role": "user"},
        "x" * 70_000,
    ),
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    for name in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[name], (*path, name))


def mutated(body: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """Something is left out, is odd, comes twice, or stands in the place of something else."""
    body = copy.deepcopy(body)
    for _ in range(chance.choice((1, 1, 2, 3))):
        *path, last = chance.choice(list(places(body)))
        parent: Any = body
        for name in path:
            parent = parent[name]
        match chance.randrange(4):
            case 0:
                del parent[last]
            case 1:
                parent[last] = copy.deepcopy(chance.choice(ODD))
            case 2 if isinstance(parent, list):
                parent.append(copy.deepcopy(parent[last]))
            case _:
                parent[last] = [copy.deepcopy(parent[last])]
        if not body:
            break
    return body


@pytest.mark.parametrize("path", BODIES)
async def test_whatever_stands_where_is_no_fault_of_the_server(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(*_: Any) -> list[Any]:
        return []

    monkeypatch.setattr("mm_gateway.backends.searching.Searcher.search", nothing)
    search = SearchSettings(provider="searxng", searxng_url="http://127.0.0.1:9")
    settings = Settings(storage=StorageSettings(folder=str(tmp_path)), search=search, server=ServerSettings(request_log="off"))
    mock = MockBackend("mock", ModelConfig(model_name="mock", backend="mock"), created=0)
    app = create_app(settings, Catalog({"mock": mock}))
    chance = random.Random(path)
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client, asyncio.timeout(60):
        for _ in range(CASES):
            body = json.dumps(mutated(chance.choice(BODIES[path]), chance)).encode()
            reply = await client.post(path, content=body, headers={"content-type": "application/json"})
            assert reply.status_code in (200, 400, 404, 429), (reply.text, body)
            assert "server_error" not in reply.text and "api_error" not in reply.text, (reply.text, body)
    await app.state.background.close(0)
    await app.state.responses.close()
