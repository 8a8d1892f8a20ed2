"""Workflows over HTTP: listing, parameters, citations, stages as comments or chunks, usage, errors."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from litestar.testing import AsyncTestClient

from mm_gateway.api.access.admission import Admission, Ticket
from mm_gateway.api.access.ledger import Ledger
from mm_gateway.api.app import create_app
from mm_gateway.api.observation.record import RequestRecord
from mm_gateway.api.pump import Pump
from mm_gateway.catalog import Catalog
from mm_gateway.configuration.server_settings import LimitSettings, ServerSettings
from mm_gateway.configuration.settings import Settings, StorageSettings
from mm_gateway.core import ChoiceFinished, GenerationEvent, Progress, TextDelta, UrlCitation, Usage
from mm_gateway.errors import ModelUnavailableError
from mm_gateway.workflows.parameters import Parameters
from mm_gateway.workflows.run import Run
from mm_gateway.workflows.workflow import Workflow
from tests.support.scripted_backend import ScriptedBackend

ANSWER = [TextDelta(0, "It is tea [1]."), ChoiceFinished(0, "stop"), Usage(5, 4)]


class LookUpParameters(Parameters, frozen=True, kw_only=True):
    query: str
    max_results: int = 5


class LookUp(Workflow[LookUpParameters]):
    """A stage without a model, then an answer that cites."""

    name, description, subject, parameters = "look-up", "Looks it up", "query", LookUpParameters

    async def stages(self, run: Run, parameters: LookUpParameters) -> AsyncIterator[GenerationEvent]:
        yield run.begin("search", "searching")
        yield run.end(output_count=1, degraded="1 of 2 pages failed")
        yield run.begin("answer")
        async for event in run.ask(run.messages, run.config(max_new_tokens=9)):
            yield event
        yield UrlCitation(0, 10, 13, "Tea", "https://example.org/tea")
        yield run.end()
        run.metadata["sources"] = [{"title": "Tea", "url": "https://example.org/tea"}]


def client_over(model: ScriptedBackend, **server: Any) -> AsyncTestClient:
    settings = Settings(server=ServerSettings(**server))
    return AsyncTestClient(create_app(settings, Catalog({model.name: model}, workflows=[LookUp()])))


def body(**changes: Any) -> dict[str, Any]:
    return {"model": "mm-orch/look-up", "messages": [{"role": "user", "content": "tea?"}]} | changes


def chunks(response: httpx.Response) -> list[dict[str, Any]]:
    lines = [line[6:] for line in response.text.split("\n") if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


async def test_a_whole_reply_has_citations_steps_and_usage_by_stage() -> None:
    async with client_over(ScriptedBackend(ANSWER)) as client:
        reply = (await client.post("/v1/chat/completions", json=body())).json()
    message = reply["choices"][0]["message"]
    assert message["content"] == "It is tea [1]." and message["content"][10:13] == "[1]"
    citation = {"start_index": 10, "end_index": 13, "title": "Tea", "url": "https://example.org/tea"}
    assert message["annotations"] == [{"type": "url_citation", "url_citation": citation}]
    workflow = reply["workflow"]
    assert (workflow["model"], workflow["degraded"], len(workflow["sources"])) == ("scripted", True, 1)
    assert [(step["name"], step["degraded"], step["error"]) for step in workflow["steps"]] == [
        ("search", True, "1 of 2 pages failed"),
        ("answer", False, None),
    ]
    assert reply["usage"]["total_tokens"] == 9
    assert reply["usage"]["workflow"] == [{"stage": "answer", "prompt_tokens": 5, "completion_tokens": 4}]


async def test_a_stream_carries_citations_and_only_the_answer_as_content() -> None:
    async with client_over(ScriptedBackend(ANSWER)) as client:
        response = await client.post("/v1/chat/completions", json=body(stream=True))
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks(response)]
    assert "".join(delta.get("content", "") for delta in deltas) == "It is tea [1]."
    assert deltas[-2]["annotations"][0]["url_citation"]["start_index"] == 10
    assert not any("workflow" in delta for delta in deltas)


async def test_with_events_a_stream_carries_the_stages_too() -> None:
    async with client_over(ScriptedBackend([Progress("loading", "half", 0.5), *ANSWER])) as client:
        response = await client.post("/v1/chat/completions", json=body(stream=True, workflow={"events": True}))
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks(response)]
    assert deltas[0]["role"] == "assistant"
    stages = [delta["workflow"] for delta in deltas if "workflow" in delta]
    assert stages[0] == {"stage": "search", "status": "running", "detail": "searching"}
    assert stages[1]["status"] == "finished" and stages[1]["degraded"] and stages[1]["duration_s"] >= 0
    assert {"stage": "answer", "status": "running", "detail": "half", "fraction": 0.5} in stages
    assert stages[-1]["status"] == "completed" and stages[-1]["sources"] and len(stages[-1]["steps"]) == 2


async def test_stages_are_comments_while_a_stream_waits_and_an_error_before_the_text_keeps_its_status() -> None:
    async with client_over(ScriptedBackend([0.2, *ANSWER]), early_commit_s=0.05) as client:
        text = (await client.post("/v1/chat/completions", json=body(stream=True))).text
    assert text.startswith(": answer\n\n") and text.endswith("data: [DONE]\n\n")
    failing = ScriptedBackend([ModelUnavailableError("no room", retryable=True)])
    async with client_over(failing) as client:
        assert (await client.post("/v1/chat/completions", json=body(stream=True))).status_code == 503
        streamed = await client.post("/v1/chat/completions", json=body(stream=True, workflow={"events": True}))
    assert streamed.status_code == 200
    failed, error = [chunk for chunk in chunks(streamed) if "error" in chunk or chunk["choices"][0]["delta"].get("workflow")][-2:]
    assert failed["choices"][0]["delta"]["workflow"]["status"] == "failed" and error["error"]["message"] == "no room"


@pytest.mark.parametrize(
    ("changes", "status", "param"),
    [
        ({"workflow": {"max_result": 1}}, 400, "workflow.max_result"),
        ({"workflow": {"max_results": "1"}}, 400, "workflow.max_results"),
        ({"workflow": {"events": "yes"}, "stream": True}, 400, "workflow.events"),
        ({"workflow": []}, 400, "workflow"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, 400, "tools"),
        ({"logprobs": True}, 400, "logprobs"),
        ({"response_format": {"type": "json_object"}}, 400, "response_format"),
        ({"guided_choice": ["a"]}, 400, "guided_choice"),
        ({"model": "mm-orch/look-up@nothing"}, 404, "model"),
        ({"model": "mm-orch/nothing"}, 404, "model"),
    ],
)
async def test_what_is_wrong_is_named(changes: dict[str, Any], status: int, param: str) -> None:
    async with client_over(ScriptedBackend(ANSWER)) as client:
        response = await client.post("/v1/chat/completions", json=body(**changes))
    assert (response.status_code, response.json()["error"]["param"]) == (status, param)


async def test_completions_and_plain_models_refuse_what_is_of_workflows() -> None:
    async with client_over(ScriptedBackend(ANSWER)) as client:
        response = await client.post("/v1/completions", json={"model": "mm-orch/look-up", "prompt": "tea?"})
        assert response.status_code == 400 and "/v1/chat/completions" in response.json()["error"]["message"]


async def test_workflows_are_listed_with_their_parameters() -> None:
    async with client_over(ScriptedBackend(ANSWER)) as client:
        listed = (await client.get("/v1/models")).json()["data"]
        one = (await client.get("/v1/models/mm-orch/look-up")).json()
        other = (await client.get("/v1/models/mm-orch/look-up@scripted")).json()
    assert [card["id"] for card in listed] == ["scripted", "mm-orch/look-up"] and listed[1] == one
    assert one["owned_by"] == "mm-gateway" and one["backend"] == "workflow"
    assert one["details"]["parameters"]["max_results"] == {"type": "integer", "default": 5}
    assert other["id"] == "mm-orch/look-up@scripted"


async def test_a_pump_keeps_one_progress_a_stage_and_begins_with_text() -> None:
    async def events() -> AsyncIterator[GenerationEvent]:
        for number in range(3):
            yield Progress("search", str(number))
        yield Progress("answer")
        yield TextDelta(0, "a")

    pump = Pump(events(), Ticket(Admission(LimitSettings(), Ledger(StorageSettings())), None, None, RequestRecord("req_1", "POST")))
    assert await pump.wait_begun(5.0)
    assert list(pump.buffer) == [Progress("search", "0"), Progress("answer"), TextDelta(0, "a")]
    await pump.cancel()
