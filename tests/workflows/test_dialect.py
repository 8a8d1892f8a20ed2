"""vLLM's fields that a workflow cannot serve are refused by their name, since the prompt is the workflow's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from mm_gateway.api.app import create_app
from mm_gateway.catalog import build_catalog
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import Settings

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
async def client() -> AsyncIterator[AsyncTestClient]:
    settings = Settings(models={"mock": ModelConfig(model_name="mock", backend="mock")})
    async with AsyncTestClient(create_app(settings, build_catalog(settings))) as client:
        yield client


@pytest.mark.parametrize(
    ("workflow", "fields"),
    [
        ("chat-generate", {"chat_template_kwargs": {"enable_thinking": False}}),
        ("chat-generate", {"add_generation_prompt": False}),
        ("chat-generate", {"continue_final_message": True}),
        ("chat-generate", {"truncate_prompt_tokens": 5}),
        ("chat-generate", {"echo": True}),
        ("chat-generate", {"documents": [{"text": "a"}]}),
        ("chat-generate", {"prompt_logprobs": 1}),
        ("chat-generate", {"return_token_ids": True}),
        ("lesson-pack", {"min_tokens": 5}),
        ("lesson-pack", {"stop_token_ids": [1]}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value,
)
async def test_what_is_the_workflows_own_is_refused_by_name(client: AsyncTestClient, workflow: str, fields: dict[str, Any]) -> None:
    body = {"model": f"mm-orch/{workflow}@mock", "messages": [{"role": "user", "content": "Rome"}], **fields}
    reply = await client.post("/v1/chat/completions", json=body)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, next(iter(fields))), reply.text
