"""Bodies of `/v1/responses` at random: none of them is the server's fault."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from litestar.testing import TestClient

from mm_gateway.core import ChoiceFinished, TextDelta, Usage
from tests.support.scripted_backend import ScriptedBackend, app_over

ANSWER = [TextDelta(0, "a"), ChoiceFinished(0, "stop"), Usage(1, 1)]
BODY: dict[str, Any] = {"model": "scripted", "input": "Hi", "store": False}
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
ITEM_FIELDS = ["type", "role", "content", "id", "call_id", "name", "arguments", "output", "text", "status"]
ITEM_VALUES = ["message", "function_call", "function_call_output", "item_reference", "input_text", "output_text", "user", "assistant", "c"]
VALUES = st.recursive(
    SCALARS | st.sampled_from(ITEM_VALUES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(ITEM_FIELDS) | st.text(max_size=8), inner, max_size=5),
)
FIELDS = [name for name in BODY] + ["instructions", "text", "tools", "tool_choice", "stream", "include", "metadata", "previous_response_id"]
BODIES = st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=8), VALUES, max_size=5)


@given(body=BODIES, filled=st.booleans())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_body_is_the_servers_fault(body: dict[str, Any], filled: bool) -> None:
    with TestClient(app_over(ScriptedBackend(ANSWER))) as client:
        content = json.dumps(BODY | body if filled else body).encode("utf-8", "surrogatepass")
        reply = client.post("/v1/responses", content=content, headers={"content-type": "application/json"})
    assert reply.status_code < 500
    if reply.status_code != 200:
        assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
