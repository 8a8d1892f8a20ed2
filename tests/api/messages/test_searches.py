"""Anthropic's `web_search` by the gateway's own search: blocks, citations, usage, and what is left out where there is no web."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from anthropic import AsyncAnthropic, BadRequestError
from anthropic.types import Message

from mm_gateway.core import ChatInput
from mm_gateway.errors import SearchError
from tests.api.test_searches import SEARCH, Turns, calling, gateway, saying

WEB = {"type": "web_search_20250305", "name": "web_search"}
F = {"name": "f", "input_schema": {"type": "object", "properties": {}}}


async def asked(client: Any, status: int = 200, **fields: Any) -> Any:
    body = {"model": "scripted", "max_tokens": 99, "messages": [{"role": "user", "content": "How tall?"}], "tools": [WEB]} | fields
    found = await client.post("/v1/messages", json=body)
    assert found.status_code == status, found.text
    if status == 200:
        Message.model_validate(found.json())
    return found


async def test_what_was_found_is_told_in_blocks_read_and_cited(tmp_path: Path) -> None:
    backend = Turns(calling(SEARCH, text="I look. "), saying("It is 300 m tall ", "[1", "]."))
    async with gateway(backend, tmp_path) as client:
        found = (await asked(client)).json()
        first, use, result, text = found["content"]
        assert first == {"type": "text", "text": "I look. "}
        assert use == {"type": "server_tool_use", "id": use["id"], "name": "web_search", "input": {"query": "tall towers"}}
        assert use["id"].startswith("srvtoolu_") and (result["type"], result["tool_use_id"]) == ("web_search_tool_result", use["id"])
        assert [(entry["type"], entry["title"]) for entry in result["content"]] == [
            ("web_search_result", "Towers"),
            ("web_search_result", "Gone"),
        ]
        (cited,) = text["citations"]
        assert (cited["type"], cited["title"]) == ("web_search_result_location", "Towers") and "300 m" in cited["cited_text"]
        assert found["stop_reason"] == "end_turn" and found["usage"]["server_tool_use"] == {
            "web_search_requests": 1,
            "web_fetch_requests": 0,
        }
        # What was found comes back with the conversation; the model has read it, and reads the text that it led to.
        later = [
            {"role": "user", "content": "How tall?"},
            {"role": "assistant", "content": found["content"]},
            {"role": "user", "content": "And?"},
        ]
        reply = await asked(client, messages=later)
        assert reply.headers["x-mm-gateway-ignored"] == "messages[1].content[1], messages[1].content[2]"
    second = backend.requests[1].input
    assert isinstance(second, ChatInput) and "[1] Towers" in second.messages[-1].content
    last = backend.requests[-1].input
    assert isinstance(last, ChatInput) and last.messages[1].content == "I look. It is 300 m tall [1]."


async def test_anthropics_client_streams_a_search(tmp_path: Path) -> None:
    backend = Turns(calling(SEARCH), saying("It is 300 m tall [1]."))
    async with (
        gateway(backend, tmp_path) as client,
        AsyncAnthropic(base_url=str(client.base_url), api_key="none", max_retries=0) as anthropic,
    ):
        messages: Any = [{"role": "user", "content": "How tall?"}]
        tools: Any = [WEB | {"max_uses": 2, "allowed_callers": ["direct"]}]
        async with anthropic.messages.stream(model="scripted", max_tokens=99, messages=messages, tools=tools) as stream:
            types = [event.type async for event in stream]
            final = await stream.get_final_message()
    assert "citation" in types
    assert [block.type for block in final.content] == ["server_tool_use", "web_search_tool_result", "text"]
    use, result, text = final.content
    assert use.input == {"query": "tall towers"} and len(result.content) == 2 and text.citations[0].title == "Towers"  # type: ignore[union-attr]
    assert final.usage.server_tool_use is not None and final.usage.server_tool_use.web_search_requests == 1


async def test_a_search_that_fails_is_told_and_gone_on_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def failing(*_: Any) -> Any:
        raise SearchError("no answer", retryable=False)

    monkeypatch.setattr("mm_gateway.backends.searching.Searcher.search", failing)
    async with gateway(Turns(calling(SEARCH), saying("I do not know.")), tmp_path) as client:
        content = (await asked(client)).json()["content"]
    assert content[1]["content"] == {"type": "web_search_tool_result_error", "error_code": "unavailable"}
    assert content[2]["text"] == "I do not know."


@pytest.mark.parametrize(
    ("fields", "found"),
    [({"allowed_domains": ["example.org"]}, 0), ({"blocked_domains": ["127.0.0.1"]}, 0), ({"blocked_domains": ["example.org"]}, 2)],
)
async def test_domains_are_allowed_and_blocked(tmp_path: Path, fields: dict[str, Any], found: int) -> None:
    async with gateway(Turns(calling(SEARCH), saying("Yes.")), tmp_path) as client:
        content = (await asked(client, tools=[WEB | fields])).json()["content"]
    assert len(content[1]["content"]) == found


async def test_there_are_no_more_searches_than_allowed_and_the_choice_can_force_one(tmp_path: Path) -> None:
    backend = Turns(calling(SEARCH), saying("Yes."))
    async with gateway(backend, tmp_path) as client:
        choice = {"type": "tool", "name": "web_search"}
        await asked(client, tools=[WEB | {"max_uses": 1}, F], tool_choice=choice)
    first, second = (request.input for request in backend.requests)
    assert isinstance(first, ChatInput) and first.tools is not None and first.tools.only == "web_search"
    assert isinstance(second, ChatInput) and second.tools is not None and [tool.name for tool in second.tools.tools] == ["f"]


async def test_without_a_web_it_is_left_out_and_named_and_wrong_fields_are_refused(tmp_path: Path) -> None:
    backend = Turns(saying("Yes."))
    async with gateway(backend, tmp_path, web=False) as client:
        assert (await asked(client, tools=[WEB, F])).headers["x-mm-gateway-ignored"] == "tools[0]"
    async with gateway(backend, tmp_path) as client:
        reply = await asked(client, tools=[WEB | {"user_location": {"type": "approximate", "city": "Paris"}}])
        assert reply.headers["x-mm-gateway-ignored"] == "tools[0].user_location"
        async with AsyncAnthropic(base_url=str(client.base_url), api_key="none", max_retries=0) as anthropic:
            for fields in ({"allowed_domains": ["a"], "blocked_domains": ["b"]}, {"max_uses": 0}, {"allowed_domains": "a"}):
                tools: Any = [WEB | fields]
                with pytest.raises(BadRequestError, match=r"domains|max_uses"):
                    await anthropic.messages.create(
                        model="scripted", max_tokens=9, messages=[{"role": "user", "content": "Hi"}], tools=tools
                    )
        counted = await client.post("/v1/messages/count_tokens", json={"model": "scripted", "messages": [], "tools": [WEB]})
        assert counted.status_code == 400
