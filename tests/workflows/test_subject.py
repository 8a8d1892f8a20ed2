"""What a workflow is asked has a bound, before any of its stages looks at it."""

from __future__ import annotations

import pytest
from litestar.testing import AsyncTestClient

from mm_gateway.api.app import create_app
from mm_gateway.catalog import build_catalog
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import Settings
from mm_gateway.core.limits import MAX_SUBJECT_CHARACTERS

MOCK = Settings(models={"mock": ModelConfig(model_name="mock", backend="mock")}, default_model="mock")


@pytest.mark.parametrize("model", ["mm-orch/search-qa", "mm-orch/lesson-pack"])
async def test_a_question_or_topic_that_is_none_is_refused_by_its_place(model: str) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": "x" * (MAX_SUBJECT_CHARACTERS + 1)}]}
    async with AsyncTestClient(create_app(MOCK, build_catalog(MOCK))) as client:
        reply = await client.post("/v1/chat/completions", json=body)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "messages[0].content"
    assert str(MAX_SUBJECT_CHARACTERS) in reply.json()["error"]["message"]
