"""Stored responses: continued, read, listed, deleted, by those who made them; and what is not stored."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import AsyncTestClient
from openai.types.responses import Response
from openai.types.responses.response_item_list import ResponseItemList

from mm_gateway.api.app import GatewayApp, create_app
from mm_gateway.catalog import Catalog
from mm_gateway.configuration.server_settings import ServerSettings
from mm_gateway.configuration.settings import Settings, StorageSettings
from mm_gateway.core import ChatInput, ChoiceFinished, Message, TextDelta, TokenLogprob, ToolCall, ToolCallDelta, Usage
from mm_gateway.errors import EngineError
from mm_gateway.storage import sqlite
from tests.support.scripted_backend import ScriptedBackend, Step

ANSWER: list[Step] = [TextDelta(0, "Hello.", logprobs=(TokenLogprob("Hello.", (1,), -1.0),)), ChoiceFinished(0, "stop"), Usage(1, 1)]
CALL: list[Step] = [TextDelta(0, "Wait."), ToolCallDelta(0, 0, id="c1", name="f", arguments="{}"), ChoiceFinished(0, "stop"), Usage(1, 1)]
F = {"type": "function", "name": "f"}
UNKNOWN = "resp_" + "0" * 32


def app(backend: ScriptedBackend, folder: Path, *, keys: tuple[str, ...] = (), **storage: Any) -> GatewayApp:
    settings = Settings(server=ServerSettings(api_keys=keys), storage=StorageSettings(folder=str(folder), **storage))
    return create_app(settings, Catalog({"scripted": backend}))


@pytest.fixture
def backend() -> ScriptedBackend:
    return ScriptedBackend(ANSWER)


@pytest.fixture
async def client(backend: ScriptedBackend, tmp_path: Path) -> AsyncIterator[AsyncTestClient[GatewayApp]]:
    async with AsyncTestClient(app(backend, tmp_path)) as client:
        yield client


async def create(client: AsyncTestClient[GatewayApp], headers: dict[str, str] | None = None, **fields: Any) -> Any:
    reply = await client.post("/v1/responses", json={"model": "scripted", "input": "Hi"} | fields, headers=headers)
    assert reply.status_code == 200, reply.text
    if fields.get("stream"):
        return json.loads(reply.text.strip().splitlines()[-1].removeprefix("data: "))["response"]
    return reply.json()


def last_messages(backend: ScriptedBackend) -> tuple[Message, ...]:
    request = backend.requests[-1]
    assert isinstance(request.input, ChatInput)
    return request.input.messages


async def input_of(client: AsyncTestClient[GatewayApp], id: str, **query: Any) -> Any:
    reply = await client.get(f"/v1/responses/{id}/input_items", params=query)
    assert reply.status_code == 200, reply.text
    return reply.json()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_response_is_read_back_as_it_was_told(client: AsyncTestClient[GatewayApp], stream: bool) -> None:
    told = await create(client, stream=stream, metadata={"k": "v"}, include=["message.output_text.logprobs"])
    found = await client.get(f"/v1/responses/{told['id']}")
    assert found.json() == told
    assert Response.model_validate(found.json()).output_text == "Hello."


async def test_a_conversation_goes_on_from_a_response_without_its_instructions(
    client: AsyncTestClient[GatewayApp], backend: ScriptedBackend
) -> None:
    first = await create(client, instructions="Be brief.")
    second = await create(client, previous_response_id=first["id"], input="And?", instructions="Be long.")
    assert second["previous_response_id"] == first["id"]
    await create(client, previous_response_id=second["id"], input=None)
    assert last_messages(backend) == (
        Message("user", "Hi"),
        Message("assistant", "Hello."),
        Message("user", "And?"),
        Message("assistant", "Hello."),
    )


async def test_calls_are_answered_in_the_next_request(client: AsyncTestClient[GatewayApp], backend: ScriptedBackend) -> None:
    backend.script = CALL
    first = await create(client, tools=[F])
    refused = await client.post("/v1/responses", json={"model": "scripted", "input": "Hi", "previous_response_id": first["id"]})
    assert refused.json()["error"]["message"] == "No tool output found for function call c1."
    result = {"type": "function_call_output", "call_id": "c1", "output": "2"}
    await create(client, tools=[F], previous_response_id=first["id"], input=[result])
    expected = (
        Message("user", "Hi"),
        Message("assistant", "Wait.", tool_calls=(ToolCall("c1", "f", "{}"),)),
        Message("tool", "2", tool_call_id="c1"),
    )
    assert last_messages(backend) == expected
    # and the same by hand: the output sent back as it came
    await create(client, tools=[F], input=[{"role": "user", "content": "Hi"}, *first["output"], result], store=False)
    assert last_messages(backend) == expected


async def test_stored_items_can_be_referred_to(client: AsyncTestClient[GatewayApp], backend: ScriptedBackend) -> None:
    first = await create(client)
    (question,) = (await input_of(client, first["id"]))["data"]
    references = [{"type": "item_reference", "id": question["id"]}, {"id": first["output"][0]["id"]}, {"role": "user", "content": "And?"}]
    await create(client, input=references)
    assert last_messages(backend) == (Message("user", "Hi"), Message("assistant", "Hello."), Message("user", "And?"))
    for unknown in ("msg_" + "0" * 36, "x"):
        body = {"model": "scripted", "input": [{"type": "item_reference", "id": unknown}]}
        reply = await client.post("/v1/responses", json=body)
        assert (reply.status_code, reply.json()["error"]["param"]) == (404, "input")
        assert f"Item with id '{unknown}' not found." in reply.json()["error"]["message"]


async def test_input_items_come_in_pages_newest_first(client: AsyncTestClient[GatewayApp]) -> None:
    items: list[Any] = [{"role": "user", "content": str(number)} for number in range(5)]
    items += [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}]
    items += [{"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "2"}]}]
    first = await create(client, input=items)
    second = await create(client, previous_response_id=first["id"], input="last")
    everything = await input_of(client, second["id"], order="asc", limit=100)
    ResponseItemList.model_validate(everything)
    assert [item["type"] for item in everything["data"]] == ["message"] * 5 + ["function_call", "function_call_output"] + ["message"] * 2
    ids = [item["id"] for item in everything["data"]]
    assert len(set(ids)) == 9
    seen: list[str] = []
    page = await input_of(client, second["id"], limit=4)
    while True:
        seen += [item["id"] for item in page["data"]]
        assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
        if not page["has_more"]:
            break
        page = await input_of(client, second["id"], limit=4, after=page["last_id"])
    assert seen == ids[::-1]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 101}, "limit"),
        ({"limit": "9" * 5000}, "limit"),
        ({"order": "up"}, "order"),
        ({"after": "x"}, "after"),
    ],
)
async def test_a_wrong_page_is_named(client: AsyncTestClient[GatewayApp], query: dict[str, Any], param: str) -> None:
    id = (await create(client))["id"]
    reply = await client.get(f"/v1/responses/{id}/input_items", params=query)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


async def test_what_is_deleted_is_gone_but_not_what_continued_it(client: AsyncTestClient[GatewayApp], backend: ScriptedBackend) -> None:
    first = await create(client)
    second = await create(client, previous_response_id=first["id"], input="And?")
    reply = await client.delete(f"/v1/responses/{first['id']}")
    assert reply.json() == {"id": first["id"], "object": "response", "deleted": True}
    assert (await client.delete(f"/v1/responses/{first['id']}")).status_code == 404
    await create(client, previous_response_id=second["id"], input="Then?")
    assert len(last_messages(backend)) == 5


@pytest.mark.parametrize("id", [UNKNOWN, "resp_x", "x"])
async def test_unknown_ids_are_told_as_openai_does(client: AsyncTestClient[GatewayApp], id: str) -> None:
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/input_items"), ("POST", "/cancel")):
        reply = await client.request(method, f"/v1/responses/{id}{path}")
        assert reply.status_code == 404
        assert reply.json()["error"] == {
            "message": f"Response with id '{id}' not found.",
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        }
    reply = await client.post("/v1/responses", json={"model": "scripted", "input": "Hi", "previous_response_id": id})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "previous_response_not_found")


async def test_only_background_responses_could_be_cancelled_and_streams_are_not_stored(client: AsyncTestClient[GatewayApp]) -> None:
    id = (await create(client))["id"]
    assert "Cannot cancel a synchronous response" in (await client.post(f"/v1/responses/{id}/cancel")).json()["error"]["message"]
    for query in ({"stream": "true"}, {"starting_after": "3"}):
        reply = await client.get(f"/v1/responses/{id}", params=query)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, next(iter(query)))
    assert (await client.get(f"/v1/responses/{id}", params={"stream": "false", "include": "x"})).status_code == 200


async def test_what_is_not_to_be_stored_is_not(backend: ScriptedBackend, tmp_path: Path) -> None:
    async with AsyncTestClient(app(backend, tmp_path / "storage")) as client:
        told = await create(client, store=False)
        assert told["store"] is False
        assert not (tmp_path / "storage").exists()
        assert (await client.get(f"/v1/responses/{told['id']}")).status_code == 404


async def test_a_failed_response_is_stored_as_such_and_not_continued(client: AsyncTestClient[GatewayApp], backend: ScriptedBackend) -> None:
    backend.script = [TextDelta(0, "a"), 0.01, EngineError("broke")]
    failed = await create(client, stream=True)
    found = (await client.get(f"/v1/responses/{failed['id']}")).json()
    assert (found["status"], found["error"]["code"], found["output"]) == ("failed", "server_error", [])
    reply = await client.post("/v1/responses", json={"model": "scripted", "input": "Hi", "previous_response_id": failed["id"]})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "previous_response_id")


async def test_another_key_sees_nothing(backend: ScriptedBackend, tmp_path: Path) -> None:
    async with AsyncTestClient(app(backend, tmp_path, keys=("one", "two"))) as client:
        mine, other = ({"authorization": f"Bearer {key}"} for key in ("one", "two"))
        told = await create(client, mine)
        item = told["output"][0]["id"]
        for headers, status in ((other, 404), (mine, 200)):
            assert (await client.get(f"/v1/responses/{told['id']}", headers=headers)).status_code == status
            assert (await client.get(f"/v1/responses/{told['id']}/input_items", headers=headers)).status_code == status
            for fields, refused in (({"previous_response_id": told["id"]}, 400), ({"input": [{"id": item}]}, 404)):
                body = {"model": "scripted", "input": "Hi"} | fields
                reply = await client.post("/v1/responses", json=body, headers=headers)
                assert reply.status_code == (200 if headers is mine else refused)
        assert (await client.delete(f"/v1/responses/{told['id']}", headers=other)).status_code == 404
        assert (await client.delete(f"/v1/responses/{told['id']}", headers=mine)).status_code == 200


async def test_responses_outlive_a_restart_and_the_oldest_go(backend: ScriptedBackend, tmp_path: Path) -> None:
    async with AsyncTestClient(app(backend, tmp_path, max_responses=2)) as client:
        ids = []
        for _ in range(3):
            ids.append((await create(client))["id"])
            await asyncio.sleep(0.002)
    async with AsyncTestClient(app(backend, tmp_path, max_responses=2)) as client:
        assert [(await client.get(f"/v1/responses/{id}")).status_code for id in ids] == [404, 200, 200]


async def test_an_old_response_is_gone(backend: ScriptedBackend, tmp_path: Path) -> None:
    async with AsyncTestClient(app(backend, tmp_path, response_ttl_s=0.05)) as client:
        id = (await create(client))["id"]
        await asyncio.sleep(0.1)
        assert (await client.get(f"/v1/responses/{id}")).status_code == 404


async def test_a_conversation_too_large_to_be_stored_says_what_to_do(backend: ScriptedBackend, tmp_path: Path) -> None:
    async with AsyncTestClient(app(backend, tmp_path, response_max_bytes=4096)) as client:
        for field in ("input", "instructions"):
            reply = await client.post("/v1/responses", json={"model": "scripted", "input": "Hi"} | {field: "x" * 4096})
            assert (reply.status_code, reply.json()["error"]["param"]) == (400, "input")
            assert "store: false" in reply.json()["error"]["message"]
        assert backend.requests == []
        await create(client, input="x" * 4096, store=False)
        await create(client)


async def test_a_folder_that_cannot_be_used_is_named_before_anything_is_generated(backend: ScriptedBackend, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    async with AsyncTestClient(app(backend, tmp_path / "file" / "sub")) as client:
        reply = await client.post("/v1/responses", json={"model": "scripted", "input": "Hi"})
        assert reply.status_code == 500
        assert "storage.folder" in reply.json()["error"]["message"]
        assert backend.requests == []
        await create(client, store=False)


async def test_a_record_of_another_version_counts_as_gone(client: AsyncTestClient[GatewayApp], tmp_path: Path) -> None:
    id = (await create(client))["id"]
    with sqlite3.connect(tmp_path / "gateway.sqlite") as database:
        database.execute("UPDATE records SET value = ?", (b'{"answer": 42}',))
    assert (await client.get(f"/v1/responses/{id}")).status_code == 404


async def test_a_reply_that_could_not_be_stored_says_so(client: AsyncTestClient[GatewayApp], caplog: pytest.LogCaptureFixture) -> None:
    await create(client)
    await client.app.state.responses.close()  # as a disk that went away
    told = await create(client)
    assert (told["status"], told["store"]) == ("completed", False)
    assert "could not be stored" in caplog.text


async def test_another_process_that_holds_the_store_stops_no_chat_and_loses_no_answer(
    client: AsyncTestClient[GatewayApp], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "WAIT_S", 0.3)
    kept = await create(client)
    with closing(sqlite3.connect(tmp_path / "gateway.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        storing = [asyncio.create_task(create(client)) for _ in range(8)]
        async with asyncio.timeout(10):
            chat = await client.post("/v1/chat/completions", json={"model": "scripted", "messages": [{"role": "user", "content": "Hi"}]})
            refused = await client.delete(f"/v1/responses/{kept['id']}")
            answers = await asyncio.gather(*storing)
    assert chat.status_code == 200
    assert all(answer["output"] and not answer["store"] for answer in answers)
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "storage_unavailable"
    assert int(refused.headers["retry-after"]) >= 1
    assert (await client.delete(f"/v1/responses/{kept['id']}")).status_code == 200
