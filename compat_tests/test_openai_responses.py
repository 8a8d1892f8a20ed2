"""The official openai SDK against `/v1/responses`, sync and async, streaming and not, over mock, remote and real models."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

import openai
import pydantic
import pytest

EVERY_KIND = ["mock", "hub/remote", "gpt2", "llama"]
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"days": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["days"],
        "additionalProperties": False,
    },
    "strict": True,
}
NAMED: Any = {"type": "function", "name": "get_weather"}


@pytest.mark.parametrize("model", ["mock", "gpt2", "llama"])
def test_input_tokens_are_those_of_the_response(client: openai.OpenAI, model: str) -> None:
    asked = "!mock tokens=9" if model == "mock" else "Hello!"  # which would call the tool, and then wait for its result
    options: Any = {"model": model, "instructions": "Be brief.", "input": asked, "tools": [WEATHER]}
    first = client.responses.create(**options, max_output_tokens=4)
    counted = client.responses.input_tokens.count(**options)
    assert counted.object == "response.input_tokens"
    assert first.usage is not None and counted.input_tokens == first.usage.input_tokens
    follow_up: Any = {"model": model, "input": "And now?", "previous_response_id": first.id}
    second = client.responses.create(**follow_up, max_output_tokens=4)
    assert second.usage is not None
    assert client.responses.input_tokens.count(**follow_up).input_tokens == second.usage.input_tokens
    assert len(client.responses.input_items.list(second.id).data) == 3  # what was only counted is no part of the conversation


def test_input_tokens_are_counted_where_there_are_some(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="input"):
        client.responses.input_tokens.count(model="mock")
    with pytest.raises(openai.NotFoundError):
        client.responses.input_tokens.count(model="nobody", input="Hello!")
    with pytest.raises(openai.BadRequestError, match="no tokenizer of its own"):
        client.responses.input_tokens.count(model="mm-orch/search-qa", input="Hello!")


@pytest.mark.parametrize("model", EVERY_KIND)
def test_stream_and_whole_response_hold_the_same_text(client: openai.OpenAI, model: str) -> None:
    options: Any = {"model": model, "input": "Hello!", "max_output_tokens": 12, "temperature": 0}
    whole = client.responses.create(**options)
    assert whole.object == "response" and whole.model == model and whole.error is None
    events = list(client.responses.create(**options, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == whole.output_text
    last = events[-1]
    assert last.type == "response.completed" or last.type == "response.incomplete"
    assert last.response.output_text == whole.output_text
    assert last.response.status == whole.status
    assert whole.usage is not None and last.response.usage is not None
    assert last.response.usage.output_tokens == whole.usage.output_tokens > 0
    assert [type(event).__name__ for event in events[:4]] == [
        "ResponseCreatedEvent",
        "ResponseInProgressEvent",
        "ResponseOutputItemAddedEvent",
        "ResponseContentPartAddedEvent",
    ]
    assert [type(event).__name__ for event in events[-4:-1]] == [
        "ResponseTextDoneEvent",
        "ResponseContentPartDoneEvent",
        "ResponseOutputItemDoneEvent",
    ]


def test_the_stream_helper_ends_with_the_response(client: openai.OpenAI) -> None:
    with client.responses.stream(model="mock", input="Hello!") as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert final.status == "completed"
    assert final.output_text == text


class Answer(pydantic.BaseModel):
    """What `.parse()` is asked for."""

    verdict: Literal["yes", "no"]
    score: int = pydantic.Field(ge=0, le=10)


def test_parse_gives_objects_even_from_random_weights(client: openai.OpenAI) -> None:
    reply = client.responses.parse(model="llama", input="Hello!", text_format=Answer, max_output_tokens=60)
    assert isinstance(reply.output_parsed, Answer)
    with client.responses.stream(model="llama", input="Hello!", text_format=Answer, max_output_tokens=60) as stream:
        for _ in stream:
            continue
        assert isinstance(stream.get_final_response().output_parsed, Answer)


@pytest.mark.parametrize("model", ["mock", "hub/remote", "llama"])
def test_a_tool_is_called_and_its_result_goes_on_by_id_and_by_hand(client: openai.OpenAI, model: str) -> None:
    question: Any = [{"role": "user", "content": "Weather?"}]
    first = client.responses.create(model=model, input=question, tools=[WEATHER], tool_choice=NAMED, max_output_tokens=80)
    call = first.output[-1]
    assert call.type == "function_call" and call.name == "get_weather"
    assert 1 <= json.loads(call.arguments)["days"] <= 9
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    by_id = client.responses.create(
        model=model, input=[result], previous_response_id=first.id, tools=[WEATHER], tool_choice="none", max_output_tokens=8, temperature=0
    )
    history: Any = [*question, *first.output, result]
    by_hand = client.responses.create(model=model, input=history, tools=[WEATHER], tool_choice="none", max_output_tokens=8, temperature=0)
    assert by_id.output_text == by_hand.output_text != ""
    parsed = client.responses.parse(model=model, input="Weather?", tools=[WEATHER], tool_choice=NAMED, max_output_tokens=80)
    assert parsed.output[-1].type == "function_call" and isinstance(parsed.output[-1].parsed_arguments, dict)


def test_calls_stream_as_arguments(client: openai.OpenAI) -> None:
    options: Any = {"model": "llama", "input": "Weather?", "tools": [WEATHER], "tool_choice": NAMED}
    with client.responses.stream(**options, max_output_tokens=80) as stream:
        events = list(stream)
        final = stream.get_final_response()
    (call,) = final.output
    assert call.type == "function_call"
    deltas = [event for event in events if event.type == "response.function_call_arguments.delta"]
    assert "".join(event.delta for event in deltas) == call.arguments == deltas[-1].snapshot
    (done,) = [event for event in events if event.type == "response.function_call_arguments.done"]
    assert (done.arguments, done.item_id) == (call.arguments, call.id)


def test_log_probabilities_come_with_the_text(client: openai.OpenAI) -> None:
    reply = client.responses.create(
        model="gpt2", input="Hello!", max_output_tokens=5, temperature=0, top_logprobs=3, include=["message.output_text.logprobs"]
    )
    assert reply.output[0].type == "message" and reply.output[0].content[0].type == "output_text"
    logprobs = reply.output[0].content[0].logprobs or []
    assert b"".join(bytes(entry.bytes) for entry in logprobs).decode(errors="replace") == reply.output_text
    assert all(len(entry.top_logprobs) == 3 for entry in logprobs)


def test_responses_are_retrieved_listed_and_deleted(client: openai.OpenAI) -> None:
    first = client.responses.create(model="mock", input="Hello!", metadata={"k": "v"})
    second = client.responses.create(model="mock", input="And?", previous_response_id=first.id)
    assert client.responses.retrieve(first.id) == first
    items = list(client.responses.input_items.list(second.id, order="asc", limit=1))  # pages by itself
    assert [item.type for item in items] == ["message"] * 3
    assert [item.role for item in items if item.type == "message"] == ["user", "assistant", "user"]
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError, match=f"Response with id '{first.id}' not found"):
        client.responses.retrieve(first.id)
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
        client.responses.cancel(second.id)
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="mock", input="And?", previous_response_id=first.id)
    assert caught.value.code == "previous_response_not_found"
    unkept = client.responses.create(model="mock", input="Hello!", store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(unkept.id)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("!mock error=400", openai.BadRequestError),
        ("!mock error=404", openai.NotFoundError),
        ("!mock error=429", openai.RateLimitError),
        ("!mock error=500", openai.InternalServerError),
        ("!mock error=503", openai.InternalServerError),
        ("!mock error=context", openai.BadRequestError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_arrive_as_their_exception(client: openai.OpenAI, text: str, error: type[openai.APIStatusError], stream: bool) -> None:
    with pytest.raises(error) as caught:
        client.responses.create(model="mock", input=text, stream=stream)
    assert caught.value.body and caught.value.type


def test_what_is_not_served_is_named(client: openai.OpenAI) -> None:
    for fields, param in (
        ({"conversation": "conv_1"}, "conversation"),
        ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, "tools[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "http://x"}]}]}, "input[0].content[0].type"),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            client.responses.create(**{"model": "mock", "input": "Hello!", **fields})
        assert caught.value.param == param


def test_an_error_in_mid_stream_is_raised_after_the_text(client: openai.OpenAI) -> None:
    text = ""
    with pytest.raises(openai.APIError, match="told to fail"):
        for event in client.responses.create(model="mock", input="!mock error=500 after=3", stream=True):
            text += event.delta if event.type == "response.output_text.delta" else ""
    assert len(text.split()) == 3


async def test_many_async_streams_run_at_once_and_alike(async_client: openai.AsyncOpenAI) -> None:
    async def text() -> str:
        async with async_client.responses.stream(model="llama", input="Hello!", temperature=0, max_output_tokens=16) as stream:
            return "".join([event.delta async for event in stream if event.type == "response.output_text.delta"])

    assert len(set(await asyncio.gather(*[text() for _ in range(16)]))) == 1


async def test_a_conversation_goes_on_in_the_async_client(async_client: openai.AsyncOpenAI) -> None:
    previous: str | None = None
    for turn in range(4):
        reply = await async_client.responses.create(
            model="gpt2", input=f"Turn {turn}", previous_response_id=previous, max_output_tokens=8, temperature=0, truncation="auto"
        )
        previous = reply.id
    assert previous is not None
    items = await async_client.responses.input_items.list(previous)
    assert len(items.data) == 7


async def test_streams_that_are_left_do_not_disturb_others(async_client: openai.AsyncOpenAI) -> None:
    left: list[str] = []
    for _ in range(4):
        stream = await async_client.responses.create(model="gpt2", input="Hello!", max_output_tokens=400, stream=True)
        event = await anext(stream)
        assert event.type == "response.created"
        left.append(event.response.id)
        await stream.close()
    reply = await async_client.responses.create(model="gpt2", input="Hello!", max_output_tokens=4)
    assert reply.status in ("completed", "incomplete")
    for response_id in left:
        with pytest.raises(openai.NotFoundError):  # what nobody waited for is not kept
            await async_client.responses.retrieve(response_id)
