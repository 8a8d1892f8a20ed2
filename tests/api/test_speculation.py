"""`speculation: false` at every endpoint that generates text, and what usage says of guesses."""

from __future__ import annotations

from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from mm_gateway.core import ChoiceFinished, TextDelta, Usage
from tests.support.scripted_backend import ScriptedBackend, app_over

ANSWER = [TextDelta(0, "a"), ChoiceFinished(0, "stop"), Usage(1, 6, accepted_tokens=4, rejected_tokens=3)]
HI: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HI},
    "/v1/completions": {"prompt": "Hi"},
    "/v1/responses": {"input": "Hi", "store": False},
    "/v1/messages": {"messages": HI, "max_tokens": 9},
}


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(("sent", "meant"), [({}, True), ({"speculation": None}, True), ({"speculation": False}, False)])
async def test_a_request_may_turn_guesses_off(path: str, sent: dict[str, Any], meant: bool) -> None:
    backend = ScriptedBackend(ANSWER)
    async with AsyncTestClient(app_over(backend)) as client:
        reply = await client.post(path, json={"model": "scripted"} | BODIES[path] | sent)
    assert reply.status_code == 200, reply.text
    assert backend.requests[0].config.speculation is meant
    if path in ("/v1/chat/completions", "/v1/completions"):
        details = reply.json()["usage"]["completion_tokens_details"]
        assert (details["accepted_prediction_tokens"], details["rejected_prediction_tokens"]) == (4, 3)


PARTS = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]


@pytest.mark.parametrize(("content", "meant"), [("x = 1", "x = 1"), (PARTS, "a\nb"), ("", "")])
async def test_a_prediction_goes_to_the_model(content: Any, meant: str) -> None:
    backend = ScriptedBackend(ANSWER)
    body = {"model": "scripted", "messages": HI, "prediction": {"type": "content", "content": content}}
    async with AsyncTestClient(app_over(backend)) as client:
        reply = await client.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200, reply.text
    assert backend.requests[0].config.prediction == meant


@pytest.mark.parametrize(
    ("prediction", "param"),
    [
        ({}, "prediction.type"),
        ({"type": "content"}, "prediction.content"),
        ({"type": "text", "content": "x"}, "prediction.type"),
        ({"type": "content", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, "prediction.content[0]"),
        ("x", "prediction"),
    ],
)
async def test_what_is_no_prediction_is_refused(prediction: Any, param: str) -> None:
    async with AsyncTestClient(app_over(ScriptedBackend(ANSWER))) as client:
        reply = await client.post("/v1/chat/completions", json={"model": "scripted", "messages": HI, "prediction": prediction})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param), reply.text
