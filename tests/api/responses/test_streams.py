"""Events of `/v1/responses` in OpenAI's order, the whole response as their fold, and how streams fail."""

from __future__ import annotations

import json
from typing import Any

import pytest
from litestar.testing import AsyncTestClient
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from mm_gateway.core import ChoiceFinished, Progress, TextDelta, TokenLogprob, ToolCallDelta, UrlCitation, Usage
from mm_gateway.errors import EngineError, InvalidRequestError, ModelLoadError, RateLimitError
from tests.support.scripted_backend import ScriptedBackend, Step, app_over

HELLO: list[Step] = [Progress("loading"), TextDelta(0, 'He"l'), TextDelta(0, "lo 世"), ChoiceFinished(0, "stop"), Usage(3, 2, 1)]
CALLS: list[Step] = [
    TextDelta(0, "Wait."),
    ToolCallDelta(0, 0, id="c1", name="f"),
    ToolCallDelta(0, 0, arguments='{"a"'),
    ToolCallDelta(0, 0, arguments=": 1}"),
    ToolCallDelta(0, 1, id="c2", name="g", arguments="{}"),
    TextDelta(0, "Done."),
    ChoiceFinished(0, "tool_calls"),
    Usage(3, 9),
]
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


async def stream_of(script: list[Step], fields: dict[str, Any] | None = None, /, **server: Any) -> list[Any]:
    """Comments as text, events as objects; every one is named by its type and fits the SDK's own model."""
    async with AsyncTestClient(app_over(ScriptedBackend(script), **server)) as client:
        reply = await client.post("/v1/responses", json={"model": "scripted", "input": "Hi", "stream": True} | (fields or {}))
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.text.endswith("\n\n")
    found: list[Any] = []
    for block in reply.text[:-2].split("\n\n"):
        if block.startswith(":"):
            found.append(block)
            continue
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        if not event["type"].startswith("response.apply_patch_call_operation_diff."):  # of these the AI SDK alone has types
            EVENT.validate_python(event)
        found.append(event)
    events = [event for event in found if isinstance(event, dict)]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return found


async def whole(script: list[Step], **fields: Any) -> Any:
    async with AsyncTestClient(app_over(ScriptedBackend(script))) as client:
        reply = await client.post("/v1/responses", json={"model": "scripted", "input": "Hi"} | fields)
    assert reply.status_code == 200, reply.text
    Response.model_validate(reply.json())
    return reply.json()


def types(events: list[Any]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


async def test_a_text_is_told_in_openais_order() -> None:
    events = await stream_of(HELLO)
    assert types(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert events[0]["response"]["status"] == "in_progress" and events[0]["response"]["output"] == []
    assert events[2]["item"] == {
        "type": "message",
        "id": events[2]["item"]["id"],
        "role": "assistant",
        "status": "in_progress",
        "content": [],
    }
    assert [event["delta"] for event in events[4:6]] == ['He"l', "lo 世"]
    assert events[6]["text"] == events[7]["part"]["text"] == 'He"llo 世'
    assert events[8]["item"]["status"] == "completed"
    response = events[-1]["response"]
    assert response["output"] == [events[8]["item"]]
    assert response["completed_at"] >= response["created_at"]
    assert response["usage"] == {
        "input_tokens": 3,
        "input_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 0},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 5,
    }
    places = [(event["item_id"], event["output_index"], event["content_index"]) for event in events[3:8]]
    assert set(places) == {(events[2]["item"]["id"], 0, 0)}


async def test_calls_are_items_of_their_own() -> None:
    events = await stream_of(CALLS)
    text = ["content_part.added", "output_text.delta", "output_text.done", "content_part.done"]
    arguments = ["function_call_arguments.delta", "function_call_arguments.done"]
    assert types(events) == [
        "created",
        "in_progress",
        *["output_item.added", *text, "output_item.done"],
        *["output_item.added", arguments[0], *arguments, "output_item.done"],
        *["output_item.added", *arguments, "output_item.done"],
        *["output_item.added", *text, "output_item.done"],
        "completed",
    ]
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done == events[-1]["response"]["output"]
    assert [item["type"] for item in done] == ["message", "function_call", "function_call", "message"]
    assert (done[1]["call_id"], done[1]["name"], done[1]["arguments"], done[1]["status"]) == ("c1", "f", '{"a": 1}', "completed")
    assert done[1]["id"].startswith("fc_") and done[0]["id"].startswith("msg_")
    assert len({item["id"] for item in done}) == 4


@pytest.mark.parametrize("script", [HELLO, CALLS], ids=["text", "calls"])
async def test_the_whole_response_is_the_fold_of_the_stream(script: list[Step]) -> None:
    def comparable(response: dict[str, Any]) -> dict[str, Any]:
        output = [{name: value for name, value in item.items() if name != "id"} for item in response["output"]]
        return {**response, "output": output, "id": "", "created_at": 0, "completed_at": 0}

    last = (await stream_of(script))[-1]
    assert comparable(last["response"]) == comparable(await whole(script))


@pytest.mark.parametrize(("reason", "told"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
async def test_a_response_that_was_cut_is_incomplete(reason: Any, told: str) -> None:
    script: list[Step] = [TextDelta(0, "a"), ChoiceFinished(0, reason), Usage(1, 1)]
    events = await stream_of(script)
    assert events[-1]["type"] == "response.incomplete"
    assert events[-2]["item"]["status"] == "incomplete"
    response = await whole(script)
    assert (response["status"], response["incomplete_details"], response["completed_at"]) == ("incomplete", {"reason": told}, None)


async def test_a_model_that_says_nothing_says_an_empty_text() -> None:
    script: list[Step] = [ChoiceFinished(0, "stop"), Usage(1, 1)]
    assert (await whole(script))["output"][0]["content"][0]["text"] == ""
    assert "content_part.added" in types(await stream_of(script))


async def test_citations_are_annotations_of_the_text_they_are_about() -> None:
    script: list[Step] = [
        TextDelta(0, "One [1]."),
        UrlCitation(0, 4, 7, "T", "http://t"),
        ToolCallDelta(0, 0, id="c", name="f", arguments="{}"),
        TextDelta(0, "Two [2]."),
        UrlCitation(0, 12, 15, "U", "http://u"),
        ChoiceFinished(0, "stop"),
        Usage(1, 1),
    ]
    events = await stream_of(script)
    first, second = [event for event in events if event["type"] == "response.output_text.annotation.added"]
    assert (first["annotation_index"], first["output_index"], second["output_index"]) == (0, 0, 2)
    assert first["annotation"] == {"type": "url_citation", "start_index": 4, "end_index": 7, "title": "T", "url": "http://t"}
    output = (await whole(script))["output"]
    for item, number in ((output[0], "1"), (output[2], "2")):
        (part,) = item["content"]
        (annotation,) = part["annotations"]
        assert part["text"][annotation["start_index"] : annotation["end_index"]] == f"[{number}]"


async def test_log_probabilities_come_where_they_are_asked_for() -> None:
    raw = tuple("世".encode())
    scored = TokenLogprob("世", raw, -0.25, (("世", raw, -0.25), ("b", (98,), -2.0)))
    held = TokenLogprob("x", (120,), -1.0)
    script: list[Step] = [
        TextDelta(0, "", logprobs=(held,)),
        TextDelta(0, "x世", logprobs=(scored,)),
        TextDelta(0, "", logprobs=(TokenLogprob("<call>", (60,), -0.1),)),
        ToolCallDelta(0, 0, id="c", name="f", arguments="{}"),
        TextDelta(0, "", logprobs=(TokenLogprob("}", (125,), -0.1),)),
        ChoiceFinished(0, "stop"),
        Usage(1, 1),
    ]
    expected = [
        {"token": "x", "logprob": -1.0, "bytes": [120], "top_logprobs": []},
        {
            "token": "世",
            "logprob": -0.25,
            "bytes": list(raw),
            "top_logprobs": [{"token": "世", "logprob": -0.25, "bytes": list(raw)}, {"token": "b", "logprob": -2.0, "bytes": [98]}],
        },
    ]
    asked = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    assert (await whole(script, **asked))["output"][0]["content"][0]["logprobs"] == expected
    assert (await whole(script))["output"][0]["content"][0]["logprobs"] == []
    events = await stream_of(script, asked)
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    assert [event["logprobs"] for event in deltas] == [expected]


async def test_deltas_are_padded_where_it_is_asked_for() -> None:
    script = [TextDelta(0, "a" * length) for length in range(1, 40)] + HELLO
    events = await stream_of(script, {"stream_options": {"include_obfuscation": True}})
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    sizes = {len(json.dumps(event["delta"], ensure_ascii=False).encode()) + len(event["obfuscation"]) for event in deltas}
    assert {(size + len(',"logprobs":[]')) % 16 for size in sizes} == {0}
    assert not any("obfuscation" in event for event in await stream_of(script, {"stream_options": {}}))


async def test_an_error_before_the_first_event_keeps_its_status() -> None:
    async with AsyncTestClient(app_over(ScriptedBackend([Progress("loading"), 0.05, ModelLoadError("gone")]))) as client:
        for stream in (False, True):
            reply = await client.post("/v1/responses", json={"model": "scripted", "input": "Hi", "stream": stream})
            assert reply.status_code == 503
            assert reply.json()["error"]["message"] == "gone"


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (EngineError("broke"), "server_error", {"message": "broke", "type": "server_error", "param": None, "code": None}),
        (
            RateLimitError("busy", retry_after_s=1),
            "rate_limit_exceeded",
            {"message": "busy", "type": "rate_limit_error", "param": None, "code": "rate_limit_exceeded"},
        ),
        (
            InvalidRequestError("no", param="messages"),
            "invalid_prompt",
            {"message": "no", "type": "invalid_request_error", "param": "input", "code": None},
        ),
    ],
)
async def test_an_error_in_mid_stream_is_told_twice_and_ends_it(error: Exception, code: str, told: dict[str, Any]) -> None:
    *_, delta, event, failed = await stream_of([TextDelta(0, "a"), 0.01, error])
    assert delta["delta"] == "a"
    assert event["error"] == told
    assert (event["type"], event["message"], event["param"], event["code"]) == ("error", told["message"], told["param"], told["code"])
    assert failed["type"] == "response.failed"
    assert (failed["response"]["status"], failed["response"]["error"]) == ("failed", {"code": code, "message": told["message"]})


async def test_a_stream_that_waits_is_kept_alive_and_may_still_fail() -> None:
    waits = {"early_commit_s": 0.05, "heartbeat_s": 0.05}
    comment, *rest = await stream_of([Progress("loading", "scripted: 40%"), 0.3, *HELLO[1:]], **waits)
    assert comment == ": scripted: 40%"
    assert rest[-1]["type"] == "response.completed"
    events = [event for event in await stream_of([0.2, ModelLoadError("gone")], **waits) if isinstance(event, dict)]
    assert types(events) == ["created", "in_progress", "error", "failed"]
