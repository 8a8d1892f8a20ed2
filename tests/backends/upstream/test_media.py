"""Images, files and audio on their way to servers of each API, from clients of each: what arrives there."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest

from mm_gateway.api.app import create_app
from mm_gateway.catalog import Catalog
from mm_gateway.configuration.settings import Settings
from tests.backends.upstream.test_dialects import _block, _message, _response, _text
from tests.support.served import served
from tests.support.upstream_server import upstream

ANSWERS = {
    "responses": _response(_text("A cat.")),
    "messages": _message(*_block(0, {"type": "text", "text": ""}, {"type": "text_delta", "text": "A cat."})),
}
DATA = base64.b64encode(b"pixels").decode()
PNG, WEB = f"data:image/png;base64,{DATA}", "https://example.org/a.png"
PDF = f"data:application/pdf;base64,{DATA}"
SEEN = {
    "responses": [
        {"type": "input_text", "text": "What is it?"},
        {"type": "input_image", "image_url": PNG, "detail": "auto"},
        {"type": "input_image", "image_url": WEB, "detail": "auto"},
        {"type": "input_file", "filename": "a.pdf", "file_data": PDF},
    ],
    "messages": [
        {"type": "text", "text": "What is it?"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": DATA}},
        {"type": "image", "source": {"type": "url", "url": WEB}},
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": DATA}, "title": "a.pdf"},
    ],
}
CHAT: list[Any] = [
    {"type": "text", "text": "What is it?"},
    {"type": "image_url", "image_url": {"url": PNG}},
    {"type": "image_url", "image_url": {"url": WEB, "detail": "auto"}},
    {"type": "file", "file": {"filename": "a.pdf", "file_data": PDF}},
]
SENT: dict[str, Any] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": CHAT}]},
    "/v1/responses": {"input": [{"role": "user", "content": SEEN["responses"]}]},
    "/v1/messages": {"max_tokens": 9, "messages": [{"role": "user", "content": SEEN["messages"]}]},
}


async def sent_to(api: str, path: str, body: dict[str, Any]) -> tuple[Any, Any]:
    """What arrived at the server, and what the client got."""
    async with upstream(ANSWERS[api], api=api) as (backend, seen):
        with served(create_app(Settings(), Catalog({"far": backend}))) as port:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                reply = await client.post(path, json={"model": "far", **body})
    return seen.requests[0][2] if seen.requests else None, reply


@pytest.mark.parametrize("path", SENT)
@pytest.mark.parametrize("api", SEEN)
async def test_images_and_files_arrive_in_the_words_of_the_server(api: str, path: str) -> None:
    arrived, reply = await sent_to(api, path, SENT[path])
    assert reply.status_code == 200 and "A cat." in reply.text, reply.text
    turns = arrived["input" if api == "responses" else "messages"]
    assert [turn["content"] for turn in turns] == [SEEN[api]]


@pytest.mark.parametrize("api", SEEN)
async def test_what_a_tool_shows_arrives_as_its_result(api: str) -> None:
    call = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_image", "image_url": PNG}]}
    body = {"input": [{"role": "user", "content": "Look."}, call, result], "tools": [{"type": "function", "name": "look"}]}
    arrived, reply = await sent_to(api, "/v1/responses", body)
    assert reply.status_code == 200, reply.text
    if api == "responses":
        assert arrived["input"][-1]["output"] == [SEEN["responses"][1]]
    else:
        assert arrived["messages"][-1]["content"] == [{"type": "tool_result", "tool_use_id": "c1", "content": [SEEN["messages"][1]]}]


async def test_texts_and_addresses_are_documents() -> None:
    text = f"data:text/markdown;base64,{base64.b64encode('# ä'.encode()).decode()}"
    files = [{"type": "input_file", "filename": "a.md", "file_data": text}, {"type": "input_file", "file_url": "https://example.org/a.pdf"}]
    arrived, _ = await sent_to("messages", "/v1/responses", {"input": [{"role": "user", "content": files}]})
    assert arrived["messages"][0]["content"] == [
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "# ä"}, "title": "a.md"},
        {"type": "document", "source": {"type": "url", "url": "https://example.org/a.pdf"}},
    ]
    document = {"type": "document", "source": {"type": "url", "url": "https://example.org/a.pdf"}, "title": "A"}
    body = {"max_tokens": 9, "messages": [{"role": "user", "content": [document]}]}
    arrived, _ = await sent_to("responses", "/v1/messages", body)
    assert arrived["input"][0]["content"] == [{"type": "input_file", "file_url": "https://example.org/a.pdf", "filename": "A"}]


async def test_the_detail_of_an_image_is_passed_on_or_named() -> None:
    body = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": WEB, "detail": "low"}}]}]}
    arrived, _ = await sent_to("responses", "/v1/chat/completions", body)
    assert arrived["input"][0]["content"][0]["detail"] == "low"
    _, reply = await sent_to("messages", "/v1/chat/completions", body)
    assert reply.headers["x-mm-gateway-ignored"] == "image_url.detail"


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_audio", "input_audio": {"data": DATA, "format": "wav"}},
        {"type": "file", "file": {"file_id": "file_1"}},
        {"type": "file", "file": {"file_data": f"data:application/zip;base64,{DATA}"}},
        {"type": "file", "file": {"file_data": "data:text/plain;base64,!"}},
        {"type": "image_url", "image_url": {"url": "data:image/svg+xml,<svg/>"}},
        {"type": "image_url", "image_url": {}},
        {"type": "image_url"},
        {"type": "video"},
    ],
)
async def test_what_has_no_words_there_is_refused_by_name(part: dict[str, Any]) -> None:
    body = {"messages": [{"role": "user", "content": [part]}]}
    arrived, reply = await sent_to("messages", "/v1/chat/completions", body)
    assert (reply.status_code, arrived) == (400, None) and reply.json()["error"]["param"].startswith("messages"), reply.text


async def test_audio_passes_to_a_server_of_responses() -> None:
    audio = {"type": "input_audio", "input_audio": {"data": DATA, "format": "wav"}}
    arrived, _ = await sent_to("responses", "/v1/chat/completions", {"messages": [{"role": "user", "content": [audio]}]})
    assert arrived["input"][0]["content"] == [audio]
