"""Searches within a reply, by our own providers: a SearXNG server and pages on loopback, and an index of files; in responses and chat."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from mm_gateway.api.app import create_app
from mm_gateway.catalog import Catalog
from mm_gateway.configuration.search_settings import SearchSettings
from mm_gateway.configuration.settings import Settings, StorageSettings
from mm_gateway.core import ChatInput, ChoiceFinished, GenerationEvent, GenerationRequest, TextDelta, ToolCallDelta, Usage
from mm_gateway.search.documents import read_text
from mm_gateway.search.local_index import LocalIndex
from tests.api.responses.test_streams import EVENT
from tests.support.scripted_backend import ScriptedBackend, Step
from tests.support.served import served
from tests.support.web_site import article, reply, searxng, web_site

WEB = {"type": "web_search"}
FILES = {"type": "file_search", "vector_store_ids": ["vs_1"]}
F = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}


class Turns(ScriptedBackend):
    """Plays one script a request; of the last one for all that follow."""

    def __init__(self, *scripts: list[Step]) -> None:
        super().__init__(scripts[0])
        self._scripts = scripts

    async def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        self.script = self._scripts[min(len(self.requests), len(self._scripts) - 1)]
        async for event in super().generate(request):
            yield event


def calling(*calls: tuple[str, str], text: str = "") -> list[Step]:
    said: list[Step] = [TextDelta(0, text)] if text else []
    for number, (name, arguments) in enumerate(calls):
        said += [ToolCallDelta(0, number, id=f"c{number}", name=name), ToolCallDelta(0, number, arguments=arguments)]
    return [*said, ChoiceFinished(0, "tool_calls"), Usage(10, 5, 2)]


def saying(*pieces: str) -> list[Step]:
    return [*(TextDelta(0, piece) for piece in pieces), ChoiceFinished(0, "stop"), Usage(20, 3, 8)]


SEARCH = ("web_search", '{"query": "tall towers"}')
LOOK = ("file_search", '{"query": "lighthouse"}')


@asynccontextmanager
async def gateway(backend: ScriptedBackend, folder: Path, *, web: bool = True, files: bool = False) -> AsyncIterator[Any]:
    """A client of a gateway whose web is a site on loopback: one page that can be read, one that is gone."""
    async with web_site({}) as site:
        page = article("Towers", *["The tower is 300 m tall, and the mast on it another 24 m."] * 8)
        found = [{"title": "Towers", "url": f"{site.address}/towers", "content": "About towers."}]
        found.append({"title": "Gone", "url": f"{site.address}/gone", "content": "It was 100 m tall."})
        site.pages["/towers"] = reply(page)
        site.pages["/search"] = searxng(found)
        storage = StorageSettings(folder=str(folder))
        if files:
            note = folder / "notes.txt"
            note.write_text("The lighthouse was built in 1855.")
            index = LocalIndex(storage.path("index.sqlite"))
            index.add(note, folder, read_text(note.read_bytes()))
            index.close()
        search = SearchSettings(allow_private_addresses=True)
        if web:
            search = SearchSettings(provider="searxng", searxng_url=site.address, allow_private_addresses=True)
        app = create_app(Settings(search=search, storage=storage), Catalog({"scripted": backend}))
        with served(app) as port:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                yield client


async def created(client: Any, **fields: Any) -> Any:
    found = await client.post("/v1/responses", json={"model": "scripted", "input": "How tall?", "tools": [WEB]} | fields)
    assert found.status_code == 200, found.text
    Response.model_validate(found.json())
    return found


async def test_what_was_found_is_read_and_cited(tmp_path: Path) -> None:
    backend = Turns(calling(SEARCH, text="I look. "), saying("It is 300 m tall ", "[1", "]."))
    async with gateway(backend, tmp_path) as client:
        found = (await created(client, include=["web_search_call.action.sources"])).json()
    second = backend.requests[1].input
    assert isinstance(second, ChatInput)
    called, result = second.messages[-2:]
    assert "[1] Towers" in result.content and "300 m" in result.content and "It was 100 m tall." in result.content
    assert (called.content, called.tool_calls[0].name) == ("I look. ", "web_search")
    first, call, message = found["output"]
    assert first["content"][0]["text"] == "I look. "
    assert (call["type"], call["status"], call["action"]["query"]) == ("web_search_call", "completed", "tall towers")
    assert [source["type"] for source in call["action"]["sources"]] == ["url", "url"]
    (part,) = message["content"]
    (cited,) = part["annotations"]
    assert (cited["type"], cited["title"], part["text"][cited["start_index"] : cited["end_index"]]) == ("url_citation", "Towers", "[1]")
    assert (found["usage"]["input_tokens"], found["usage"]["output_tokens"]) == (30, 8)


async def test_a_search_is_streamed_in_openais_order(tmp_path: Path) -> None:
    async with gateway(Turns(calling(SEARCH), saying("Tall [1].")), tmp_path) as client:
        streamed = await client.post("/v1/responses", json={"model": "scripted", "input": "?", "tools": [WEB], "stream": True})
    events = [json.loads(line[6:]) for line in streamed.text.splitlines() if line.startswith("data: ")]
    for event in events:
        EVENT.validate_python(event)
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "web_search_call.in_progress",
        "web_search_call.searching",
        "web_search_call.completed",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.annotation.added",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]


async def test_files_are_searched_and_cited_as_files(tmp_path: Path) -> None:
    backend = Turns(calling(LOOK), saying("In 1855 [1]."))
    async with gateway(backend, tmp_path, web=False, files=True) as client:
        found = await created(client, tools=[FILES], include=["file_search_call.results"])
    call, message = found.json()["output"]
    assert (call["type"], call["queries"], call["status"]) == ("file_search_call", ["lighthouse"], "completed")
    assert "1855" in call["results"][0]["text"]
    (cited,) = message["content"][0]["annotations"]
    assert (cited["type"], cited["index"]) == ("file_citation", 8) and "notes.txt" in cited["file_id"]
    assert found.headers["x-mm-gateway-ignored"] == "tools[0].vector_store_ids"


async def test_what_cannot_be_searched_is_left_out_and_named(tmp_path: Path) -> None:
    backend = Turns(saying("Hi"))
    async with gateway(backend, tmp_path, web=False) as client:
        found = await created(client, tools=[WEB, FILES, F])
        refused = await client.post("/v1/responses", json={"model": "scripted", "input": "?", "tools": [WEB], "tool_choice": WEB})
    assert found.headers["x-mm-gateway-ignored"] == "tools[0], tools[1]"
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "tool_choice.type"
    input = backend.requests[0].input
    assert isinstance(input, ChatInput) and input.tools is not None and [tool.name for tool in input.tools.tools] == ["f"]


async def test_a_search_can_be_the_choice_and_is_one_then(tmp_path: Path) -> None:
    backend = Turns(calling(SEARCH), saying("Tall."))
    async with gateway(backend, tmp_path) as client:
        await created(client, tools=[{"type": "web_search_preview"}], tool_choice={"type": "web_search_preview"})
    uses = [request.input.tools for request in backend.requests if isinstance(request.input, ChatInput)]
    assert [(use.required, use.only) for use in uses if use is not None] == [(True, "web_search"), (False, None)]


async def test_there_are_no_more_searches_than_asked_for(tmp_path: Path) -> None:
    backend = Turns(calling(SEARCH), calling(SEARCH), saying("Tall."))
    async with gateway(backend, tmp_path) as client:
        await created(client, max_tool_calls=2, tools=[WEB, F])
    tools = [request.input.tools for request in backend.requests if isinstance(request.input, ChatInput)]
    assert [[tool.name for tool in use.tools] for use in tools if use is not None] == [["web_search", "f"], ["web_search", "f"], ["f"]]


async def test_a_search_that_is_cut_is_not_run(tmp_path: Path) -> None:
    cut: list[Step] = [*calling(("web_search", '{"query": "ta'))[:-2], ChoiceFinished(0, "length"), Usage(1, 1)]
    async with gateway(Turns(cut), tmp_path) as client:
        found = (await created(client)).json()
    assert found["status"] == "incomplete" and [item["type"] for item in found["output"]] == ["message"]


async def test_calls_of_the_clients_functions_end_the_reply(tmp_path: Path) -> None:
    async with gateway(Turns(calling(SEARCH, ("f", "{}"))), tmp_path) as client:
        found = (await created(client, tools=[WEB, F])).json()
    assert sorted(item["type"] for item in found["output"]) == ["function_call", "web_search_call"]


async def test_only_the_domains_that_are_allowed_are_read(tmp_path: Path) -> None:
    backend = Turns(calling(SEARCH), saying("Nothing."))
    async with gateway(backend, tmp_path) as client:
        await created(client, tools=[{**WEB, "filters": {"allowed_domains": ["example.com"]}, "search_context_size": "low"}])
    input = backend.requests[1].input
    assert isinstance(input, ChatInput) and input.messages[-1].content == "Nothing was found."


async def test_a_response_with_searches_goes_on(tmp_path: Path) -> None:
    backend = Turns(calling(SEARCH), saying("Tall [1]."), saying("Yes."))
    async with gateway(backend, tmp_path) as client:
        first = (await created(client)).json()
        await created(client, previous_response_id=first["id"], input="Really?")
        await created(client, input=[{"role": "user", "content": "How?"}, *first["output"], {"role": "user", "content": "Really?"}])
    told = [[m.role for m in request.input.messages] for request in backend.requests[2:] if isinstance(request.input, ChatInput)]
    assert told == [["user", "assistant", "user"]] * 2


async def test_chat_searches_the_web_too(tmp_path: Path) -> None:
    backend = Turns(calling(SEARCH), saying("Tall [1]."))
    body = {"model": "scripted", "messages": [{"role": "user", "content": "?"}], "web_search_options": {"search_context_size": "low"}}
    async with gateway(backend, tmp_path) as client:
        found = ChatCompletion.model_validate((await client.post("/v1/chat/completions", json=body)).json())
    (choice,) = found.choices
    assert choice.finish_reason == "stop" and choice.message.content == "Tall [1]." and choice.message.annotations is not None
    assert choice.message.annotations[0].url_citation.title == "Towers"


@pytest.mark.parametrize("options", [{}, {"user_location": {"type": "approximate"}}])
async def test_chat_without_a_web_leaves_the_options_out(tmp_path: Path, options: dict[str, Any]) -> None:
    body = {"model": "scripted", "messages": [{"role": "user", "content": "?"}], "web_search_options": options}
    async with gateway(Turns(saying("Hi")), tmp_path, web=False) as client:
        found = await client.post("/v1/chat/completions", json=body)
    assert (found.status_code, found.headers["x-mm-gateway-ignored"]) == (200, "web_search_options")
