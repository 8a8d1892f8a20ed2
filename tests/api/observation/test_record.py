"""Each request has one record, which tells observers once how it went, however it went."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from litestar.testing import AsyncTestClient

from mm_gateway.api.access.admission import Admission
from mm_gateway.api.app import GatewayApp
from mm_gateway.api.observation.record import GAP_BOUNDS_S, RequestRecord
from mm_gateway.configuration.api_key import ApiKey, digest_of
from mm_gateway.core import ChoiceFinished, Embedding, ReasoningDelta, TextDelta, Usage, UsageSoFar
from mm_gateway.errors import EngineError, ShuttingDownError
from tests.support.scripted_backend import ScriptedBackend, Step, app_over
from tests.support.served import post, served, until

USAGE = Usage(7, 3, cached_tokens=2, reasoning_tokens=1, accepted_tokens=1)
SCRIPT: list[Step] = [
    UsageSoFar(7, 0),
    0.03,
    ReasoningDelta(0, "h"),
    0.06,
    TextDelta(0, "a"),
    TextDelta(0, "b"),
    ChoiceFinished(0, "stop"),
    USAGE,
]
CHAT = "/v1/chat/completions"


class Records(list[RequestRecord]):
    def finished(self, record: RequestRecord) -> None:
        self.append(record)


def observed(app: GatewayApp) -> Records:
    records = Records()
    app.state.observers.append(records)
    return records


def body(model: str = "scripted", **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hi"}], **fields}


async def one(
    app: GatewayApp, path: str = CHAT, json: dict[str, Any] | None = None, **headers: str
) -> tuple[httpx.Response, RequestRecord]:
    """A reply and the one record of it."""
    records = observed(app)
    async with AsyncTestClient(app) as client:
        reply = await (client.get(path, headers=headers) if json is None else client.post(path, json=json, headers=headers))
    [record] = records
    assert reply.headers["x-request-id"] == record.request_id
    assert reply.status_code == record.status
    return reply, record


async def test_a_whole_reply_is_recorded_with_its_tokens_times_and_end() -> None:
    _, record = await one(app_over(ScriptedBackend(SCRIPT)), json=body(model="an-alias"))
    assert (record.method, record.endpoint, record.model, record.stream) == ("POST", CHAT, "scripted", False)
    assert (record.usage, record.prompt_tokens, record.output_tokens, record.finish_reasons) == (USAGE, 7, 3, ["stop"])
    assert record.error is None and not record.error_code and not record.client_gone
    assert record.begun is not None and record.first_output is not None and record.last_output is not None and record.ended is not None
    assert record.arrived <= record.begun <= record.first_output - 0.03 < record.last_output - 0.06 < record.ended
    assert record.time_to_first_token_s == record.first_output - record.arrived
    assert record.gaps is not None and sum(record.gaps) == 2 and 0.06 <= record.gaps_s < 1
    assert sum(count for bound, count in zip(GAP_BOUNDS_S, record.gaps, strict=False) if bound < 0.06) == 1


async def test_a_stream_is_recorded_alike_through_every_api() -> None:
    asked = {
        CHAT: body(stream=True),
        "/v1/responses": {"model": "scripted", "input": "Hi", "stream": True, "store": False},
        "/v1/messages": body(stream=True, max_tokens=5),
        "/v1/completions": {"model": "scripted", "prompt": "Hi", "stream": True},
    }
    for path, json in asked.items():
        _, record = await one(app_over(ScriptedBackend(SCRIPT)), path, json)
        assert (record.endpoint, record.model, record.stream, record.usage) == (path, "scripted", True, USAGE)
        assert record.pieces == 3


async def test_vectors_are_output_without_gaps() -> None:
    script: list[Step] = [Embedding.of(0, [1.0]), Embedding.of(1, [1.0]), Usage(4, 0)]
    _, record = await one(app_over(ScriptedBackend(script)), "/v1/embeddings", {"model": "scripted", "input": ["a", "b"]})
    assert record.first_output is not None and record.gaps is None and record.prompt_tokens == 4


async def test_an_error_is_recorded_before_the_first_event_and_in_a_stream() -> None:
    _, record = await one(app_over(ScriptedBackend([EngineError("broken")])), json=body())
    assert (record.status, record.error_code, record.usage, record.output_tokens) == (500, "server_error", None, 0)
    _, record = await one(app_over(ScriptedBackend([UsageSoFar(7, 0), TextDelta(0, "a"), EngineError("broken")])), json=body(stream=True))
    assert (record.status, record.error_code, record.usage, record.prompt_tokens, record.output_tokens) == (200, "server_error", None, 7, 1)


async def test_what_is_refused_is_recorded_without_a_name_that_a_client_made_up() -> None:
    _, record = await one(app_over(ScriptedBackend([])), json=body(model="no-such-model"))
    assert (record.status, record.model, record.error_code) == (404, "", "model_not_found")
    _, record = await one(app_over(ScriptedBackend([])), "/no/such/path")
    assert (record.status, record.endpoint, record.error_code) == (404, "", "invalid_request_error")
    _, record = await one(app_over(ScriptedBackend([])), json=body(temperature="hot"))
    assert (record.status, record.endpoint, record.model) == (400, CHAT, "scripted")


async def test_the_key_is_recorded_by_its_name_once_it_was_accepted() -> None:
    def app() -> GatewayApp:
        return app_over(ScriptedBackend(SCRIPT), keys=(ApiKey(digest=digest_of("secret"), name="ann"),))

    _, record = await one(app(), json=body(), authorization="Bearer secret")
    assert record.key == "ann"
    _, record = await one(app(), json=body(), authorization="Bearer wrong")
    assert (record.status, record.key, record.error_code) == (401, "", "invalid_api_key")


async def test_an_observer_that_fails_harms_neither_the_request_nor_the_others() -> None:
    class Broken:
        def finished(self, record: RequestRecord) -> None:
            raise RuntimeError("no")

    app = app_over(ScriptedBackend(SCRIPT))
    app.state.observers.append(Broken())
    reply, _ = await one(app, json=body())
    assert reply.status_code == 200


async def test_running_requests_are_found_by_their_tickets_and_can_be_ended() -> None:
    app = app_over(ScriptedBackend([TextDelta(0, "a"), 30]))
    records, admission = observed(app), app.state.admission
    assert isinstance(admission, Admission)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:  # type: ignore[arg-type]
        asked = asyncio.create_task(client.post(CHAT, json=body(stream=True)))
        await until(lambda: any(ticket.record.pieces for ticket in admission.tickets))
        [ticket] = admission.tickets
        assert ticket.record.model == "scripted" and ticket.record.ended is None and 0 < ticket.record.duration_s < 10
        assert ticket.on_interrupt is not None
        ticket.on_interrupt(ShuttingDownError("Ended"))
        assert "Ended" in (await asked).text
    [record] = records
    assert isinstance(record.error, ShuttingDownError) and not admission.tickets


async def test_a_client_that_hangs_up_is_recorded_as_gone() -> None:
    app = app_over(ScriptedBackend([TextDelta(0, "a"), 30]))
    records = observed(app)
    with served(app) as port:
        for stream in ("true", "false"):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(post(CHAT, b'{"model":"scripted","messages":[{"role":"user","content":"Hi"}],"stream":%s}' % stream.encode()))
            await until(lambda: any(ticket.record.pieces for ticket in app.state.admission.tickets))
            writer.close()
            await until(lambda: not app.state.admission.tickets)
    await until(lambda: len(records) == 2)
    assert [(record.client_gone, record.status, record.pieces, record.usage) for record in records] == [
        (True, 200, 1, None),
        (True, 499, 1, None),
    ]
