"""A server that is asked to sum up a conversation: it is shown the tools, as in other turns, and told to call none."""

from __future__ import annotations

from typing import Any

import pytest

from mm_gateway.api.responses.compaction import ASKED
from tests.backends.upstream.test_media import sent_to


@pytest.mark.parametrize(("api", "choice"), [("responses", "none"), ("messages", {"type": "none"})])
async def test_it_is_shown_the_tools_and_calls_none(api: str, choice: Any) -> None:
    tools = [{"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}, "strict": False}]
    arrived, reply = await sent_to(api, "/v1/responses/compact", {"input": "Hi", "tools": tools})
    assert reply.status_code == 200 and reply.json()["output"][-1]["type"] == "compaction", reply.text
    assert (arrived["tool_choice"], arrived["tools"][0]["name"]) == (choice, "f")
    last = arrived["input" if api == "responses" else "messages"][-1]["content"]
    assert ASKED.content in (last if isinstance(last, str) else last[-1]["text"])
