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
