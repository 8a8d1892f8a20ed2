"""Responses of `background: true`, asked for by OpenAI's client over a real socket: they run apart from their connection, and are kept."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from openai import APIError, AsyncOpenAI, BadRequestError, NotFoundError, RateLimitError
from openai.types.responses import Response

from mm_gateway.api.app import GatewayApp, create_app
from mm_gateway.api.observation.record import RequestRecord
from mm_gateway.api.responses import background
from mm_gateway.api.responses.store import ResponseStore
from mm_gateway.catalog import Catalog
from mm_gateway.configuration.server_settings import LimitSettings, ServerSettings
from mm_gateway.configuration.settings import Settings, StorageSettings
from mm_gateway.core import ChoiceFinished, TextDelta, Usage
from mm_gateway.errors import ModelLoadError
from mm_gateway.protocol.responses import StoredResponse
from tests.support.scripted_backend import ScriptedBackend, Step
from tests.support.served import served, until

WORDS = [f"w{number} " for number in range(5)]
ANSWER: list[Step] = [*(TextDelta(0, word) for word in WORDS), ChoiceFinished(0, "stop"), Usage(1, 5)]
SLOW: list[Step] = [0.2, *(step for word in WORDS for step in (TextDelta(0, word), 0.1)), ChoiceFinished(0, "stop"), Usage(1, 5)]
ENDLESS: list[Step] = [TextDelta(0, "Hm"), 60.0]
ASKED: dict[str, Any] = {"model": "scripted", "input": "Hi", "background": True}


def app_over(backend: ScriptedBackend, folder: Path, **limits: int) -> GatewayApp:
    settings = Settings(
        storage=StorageSettings(folder=str(folder)), limits=LimitSettings(**limits), server=ServerSettings(shutdown_grace_s=0.1)
    )
    return create_app(settings, Catalog({"scripted": backend}))


@pytest.fixture
def backend() -> ScriptedBackend:
    return ScriptedBackend(ANSWER)


@pytest.fixture
async def client(backend: ScriptedBackend, tmp_path: Path) -> AsyncIterator[AsyncOpenAI]:
    with served(app_over(backend, tmp_path, max_background_responses=2)) as port:
        async with AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0) as client:
            yield client


async def ended(client: AsyncOpenAI, id: str) -> Response:
    deadline = time.monotonic() + 10
    while (found := await client.responses.retrieve(id)).status in ("queued", "in_progress"):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    return found


async def test_it_is_queued_at_once_and_ends_by_itself(client: AsyncOpenAI, backend: ScriptedBackend) -> None:
    backend.script = SLOW
    queued = await client.responses.create(**ASKED)
    assert (queued.status, queued.background, queued.output, queued.completed_at) == ("queued", True, [], None)
    seen = {(await client.responses.retrieve(queued.id)).status}
    final = await ended(client, queued.id)
    assert seen == {"queued"} and (final.status, final.output_text) == ("completed", "".join(WORDS))
    assert final.usage is not None and final.usage.output_tokens == 5
    again = await client.responses.create(model="scripted", input="And?", previous_response_id=final.id)
    assert again.status == "completed"


async def test_a_stream_that_its_client_leaves_goes_on_and_is_taken_up_behind_any_event(
    client: AsyncOpenAI, backend: ScriptedBackend
) -> None:
    backend.script = SLOW
    stream = await client.responses.create(**ASKED, stream=True)
    first = [await anext(aiter(stream)) for _ in range(5)]
    await stream.close()
    assert [event.type for event in first[:3]] == ["response.created", "response.queued", "response.in_progress"]
    created: Any = first[0]
    assert created.response.status == "queued"
    id = created.response.id
    rest = [event async for event in await client.responses.retrieve(id, stream=True, starting_after=4)]
    assert [event.sequence_number for event in rest] == list(range(5, 5 + len(rest)))
    whole = [event async for event in await client.responses.retrieve(id, stream=True)]
    assert [event.to_dict() for event in whole] == [event.to_dict() for event in [*first, *rest]]
    last: Any = whole[-1]
    assert last.type == "response.completed" and last.response.to_dict() == (await client.responses.retrieve(id)).to_dict()
    beyond = [event async for event in await client.responses.retrieve(id, stream=True, starting_after=999)]
    assert beyond == []


async def test_it_can_be_cancelled_more_than_once_and_frees_what_it_held(client: AsyncOpenAI, backend: ScriptedBackend) -> None:
    backend.script = ENDLESS
    running = await client.responses.create(**ASKED)
    await until(lambda: backend.started)
    cancelled = await client.responses.cancel(running.id)
    assert (cancelled.status, backend.closed) == ("cancelled", 1)
    assert (await client.responses.cancel(running.id)).status == (await client.responses.retrieve(running.id)).status == "cancelled"
    with pytest.raises(BadRequestError, match="was cancelled"):
        await client.responses.create(model="scripted", input="And?", previous_response_id=running.id)
    backend.script = ANSWER
    done = await ended(client, (await client.responses.create(**ASKED)).id)
    assert (await client.responses.cancel(done.id)).status == "completed"


async def test_what_is_deleted_while_it_runs_ends_and_is_gone(client: AsyncOpenAI, backend: ScriptedBackend) -> None:
    backend.script = ENDLESS
    running = await client.responses.create(**ASKED)
    await client.responses.delete(running.id)
    assert backend.started == backend.closed
    with pytest.raises(NotFoundError):
        await client.responses.retrieve(running.id)


async def test_what_another_process_deletes_while_it_runs_ends_and_stays_gone(
    client: AsyncOpenAI, backend: ScriptedBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "ALIVE_S", 0.05)
    other = app_over(ScriptedBackend(ANSWER), tmp_path).state.responses
    backend.script = ENDLESS
    running = await client.responses.create(**ASKED)
    await other.delete("", running.id)
    await until(lambda: backend.started == backend.closed == 1)
    monkeypatch.setattr(background, "ALIVE_S", 60.0)
    backend.script = SLOW
    ending = await client.responses.create(**ASKED)
    await other.delete("", ending.id)
    await until(lambda: backend.closed == 2)
    await asyncio.sleep(0.1)
    for gone in (running, ending):
        with pytest.raises(NotFoundError):
            await client.responses.retrieve(gone.id)
    await other.close()


async def test_there_are_no_more_than_the_limit_says_and_none_is_continued_before_its_end(
    client: AsyncOpenAI, backend: ScriptedBackend
) -> None:
    backend.script = ENDLESS
    ids = [(await client.responses.create(**ASKED)).id for _ in range(2)]
    with pytest.raises(RateLimitError, match="background"):
        await client.responses.create(**ASKED)
    with pytest.raises(BadRequestError, match="has not ended yet"):
        await client.responses.create(model="scripted", input="And?", previous_response_id=ids[0])
    await client.responses.cancel(ids[0])
    third = await client.responses.create(**ASKED)
    assert third.status == "queued"
    for id in (ids[1], third.id):
        await client.responses.cancel(id)


async def test_an_error_is_its_end(client: AsyncOpenAI, backend: ScriptedBackend) -> None:
    backend.script = [ModelLoadError("no room")]
    failed = await ended(client, (await client.responses.create(**ASKED)).id)
    assert failed.status == "failed" and failed.error is not None and "no room" in failed.error.message
    stream = await client.responses.create(**ASKED, stream=True)
    with pytest.raises(APIError, match="no room"):
        assert [event.type async for event in stream] == ["response.created", "response.queued"]


async def test_only_streams_that_are_kept_are_streamed_again(client: AsyncOpenAI) -> None:
    plain = await client.responses.create(model="scripted", input="Hi")
    whole = await ended(client, (await client.responses.create(**ASKED)).id)
    for response in (plain, whole):
        with pytest.raises(BadRequestError, match="streamed again"):
            await client.responses.retrieve(response.id, stream=True)
    with pytest.raises(BadRequestError, match="Cannot cancel a synchronous response"):
        await client.responses.cancel(plain.id)
    for query in ({"starting_after": 3}, {"stream": True, "starting_after": -1}, {"stream": "maybe"}):
        with pytest.raises(BadRequestError):
            await client.responses.retrieve(plain.id, extra_query=query)
    with pytest.raises(BadRequestError, match="stored"):
        await client.responses.create(**ASKED, store=False)


async def test_the_end_of_the_process_is_its_end(backend: ScriptedBackend, tmp_path: Path) -> None:
    backend.script = ENDLESS
    with served(app_over(backend, tmp_path)) as port:
        async with AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0) as client:
            id = (await client.responses.create(**ASKED)).id
            await until(lambda: backend.started)
    assert backend.closed == 1
    with served(app_over(backend, tmp_path)) as port:
        async with AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0) as client:
            found = await client.responses.retrieve(id)
            assert found.status == "failed" and found.error is not None and "shut down" in found.error.message
            assert (await client.responses.cancel(id)).status == "failed"


async def test_a_record_whose_process_died_says_so(client: AsyncOpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = await ended(client, (await client.responses.create(**ASKED)).id)
    app = app_over(ScriptedBackend(ANSWER), tmp_path)
    store = app.state.responses
    stored = await store.get("", done.id)
    for age, status in ((0.0, "in_progress"), (background.LOST_S + 1, "failed")):
        running = msgspec.structs.replace(stored.response, status="in_progress", output=[])
        await store.put("", msgspec.structs.replace(stored, response=running, alive_at=time.time() - age))
        with served(app) as port:
            async with AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0) as other:
                assert (await other.responses.retrieve(done.id)).status == status
        app = app_over(ScriptedBackend(ANSWER), tmp_path)
        store = app.state.responses


async def test_what_runs_does_so_to_a_gateway_whose_clock_is_wrong(
    client: AsyncOpenAI, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = await ended(client, (await client.responses.create(**ASKED)).id)
    stored = await app_over(ScriptedBackend(ANSWER), tmp_path).state.responses.get("", done.id)
    running = msgspec.structs.replace(stored.response, status="in_progress", output=[])
    shared = ResponseStore(StorageSettings(url=database_url))
    await shared.put("", StoredResponse(running, [], alive_at=time.time()))
    now = time.time
    for off in (-600.0, 600.0):
        with monkeypatch.context() as context:
            context.setattr(time, "time", lambda off=off: now() + off)
            assert background.as_known(await shared.get("", done.id)).status == "in_progress"
            silent = StoredResponse(running, [], alive_at=time.time() - background.LOST_S - 1)
            await shared.put("", silent)
        assert background.as_known(await shared.get("", done.id)).status == "failed"
        await shared.put("", StoredResponse(running, [], alive_at=time.time()))
    await shared.close()


async def test_it_is_one_request_that_ends_with_it_to_those_who_observe(backend: ScriptedBackend, tmp_path: Path) -> None:
    backend.script = SLOW
    app = app_over(backend, tmp_path)
    seen: list[RequestRecord] = []

    class Observer:
        def finished(self, record: RequestRecord) -> None:
            if record.method == "POST":
                seen.append(record)

    app.state.observers.append(Observer())
    with served(app) as port:
        async with AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0) as client:
            queued = await client.responses.create(**ASKED)
            assert seen == []
            await ended(client, queued.id)
    (record,) = seen
    assert (record.endpoint, record.model, record.status, record.output_tokens) == ("/v1/responses", "scripted", 200, 5)
    assert record.error is None and record.duration_s > 0.5
