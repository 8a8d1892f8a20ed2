"""Tools through the official openai SDK: calls that random weights are held to by grammar, streamed, parsed, answered."""

from __future__ import annotations

import json
from typing import Any, Literal

import openai
import pydantic
import pytest
from openai.lib.streaming.chat import FunctionToolCallArgumentsDeltaEvent, FunctionToolCallArgumentsDoneEvent
from openai.types.chat import ChatCompletionMessageFunctionToolCall as FunctionCall

from compat_tests.support.gateways import Gateway

HELLO: list[Any] = [{"role": "user", "content": "What is the weather?"}]
REAL = ["gpt2", "llama", "qwen2"]
"""Three formats: plain, Llama's JSON, Hermes."""


class Weather(pydantic.BaseModel):
    """Weather of a city."""

    city: Literal["Ems", "Wien"]
    days: int = pydantic.Field(ge=1, le=9)


class Clock(pydantic.BaseModel):
    """The time."""


TOOLS: Any = [openai.pydantic_function_tool(Weather), openai.pydantic_function_tool(Clock)]
LIMITS: Any = {"max_tokens": 130, "seed": 2}


def calls_of(message: Any) -> list[FunctionCall]:
    assert all(isinstance(call, FunctionCall) for call in message.tool_calls)
    return list(message.tool_calls)


@pytest.mark.parametrize("model", [*REAL, "mock", "hub/remote"])
def test_a_required_call_streams_as_it_comes_whole(client: openai.OpenAI, model: str) -> None:
    options: Any = {"model": model, "messages": HELLO, "tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False, **LIMITS}
    (choice,) = client.chat.completions.create(**options).choices
    (call,) = calls_of(choice.message)
    assert choice.finish_reason == "tool_calls" and not choice.message.content
    chunks = list(client.chat.completions.create(**options, stream=True))
    deltas = [delta for chunk in chunks for delta in chunk.choices[0].delta.tool_calls or ()]
    assert deltas[0].id and deltas[0].type == "function" and deltas[0].function and deltas[0].function.name == call.function.name
    assert {delta.index for delta in deltas} == {0}
    assert not any(delta.id or (delta.function and delta.function.name) for delta in deltas[1:])
    assert "".join((delta.function and delta.function.arguments) or "" for delta in deltas) == call.function.arguments
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    {"Weather": Weather, "Clock": Clock}[call.function.name].model_validate_json(call.function.arguments)


@pytest.mark.parametrize("model", [*REAL, "mock"])
def test_a_named_function_is_called_and_parsed(client: openai.OpenAI, model: str) -> None:
    named: Any = {"type": "function", "function": {"name": "Weather"}}
    for tool_choice in (named, "required"):
        reply = client.chat.completions.parse(model=model, messages=HELLO, tools=TOOLS[:1], tool_choice=tool_choice, **LIMITS)
        calls = reply.choices[0].message.tool_calls or []
        assert calls and all(isinstance(call.function.parsed_arguments, Weather) for call in calls)
        assert reply.choices[0].finish_reason == ("stop" if tool_choice is named else "tool_calls")


@pytest.mark.parametrize("model", REAL)
def test_the_stream_helper_parses_arguments(client: openai.OpenAI, model: str) -> None:
    with client.chat.completions.stream(model=model, messages=HELLO, tools=TOOLS[:1], tool_choice="required", **LIMITS) as stream:
        events = list(stream)
        final = stream.get_final_completion().choices[0].message
    done = [event for event in events if isinstance(event, FunctionToolCallArgumentsDoneEvent)]
    pieces = [event.arguments_delta for event in events if isinstance(event, FunctionToolCallArgumentsDeltaEvent) and event.index == 0]
    assert len(pieces) > 3 and "".join(pieces) == done[0].arguments
    assert isinstance(done[0].parsed_arguments, Weather)
    assert [call.function.parsed_arguments for call in final.tool_calls or ()] == [event.parsed_arguments for event in done]


def test_parallel_calls_have_ids_and_indices_of_their_own(client: openai.OpenAI, gateway: Gateway) -> None:
    # After a call, a line may follow with the next, or the end; the bias decides for the line, until the text is cut.
    vocabulary = json.loads((gateway.checkpoints["qwen2"] / "tokenizer.json").read_text())["model"]["vocab"]
    options: Any = {"model": "qwen2", "messages": HELLO, "tools": TOOLS[1:], "tool_choice": "required", "max_tokens": 300}
    options |= {"logit_bias": {str(vocabulary["Ċ"]): 100}}
    calls = calls_of(client.chat.completions.create(**options).choices[0].message)
    assert len(calls) > 1 and len({call.id for call in calls}) == len(calls)
    chunks = client.chat.completions.create(**options, stream=True)
    begun = [delta for chunk in chunks for delta in chunk.choices[0].delta.tool_calls or () if delta.id]
    assert [delta.index for delta in begun] == list(range(len(calls)))
    one = client.chat.completions.create(**options, parallel_tool_calls=False).choices[0]
    assert len(calls_of(one.message)) == 1 and one.finish_reason == "tool_calls"


@pytest.mark.parametrize("model", [*REAL, "mock", "hub/remote"])
def test_the_conversation_goes_on_with_the_results(client: openai.OpenAI, model: str) -> None:
    first = client.chat.completions.create(model=model, messages=HELLO, tools=TOOLS, tool_choice="required", **LIMITS).choices[0].message
    results = [{"role": "tool", "tool_call_id": call.id, "content": "sunny"} for call in calls_of(first)]
    messages: list[Any] = [*HELLO, first, *results]
    reply = client.chat.completions.create(model=model, messages=messages, tools=TOOLS, tool_choice="none", max_tokens=8, seed=1).choices[0]
    assert reply.message.content and not reply.message.tool_calls
    with pytest.raises(openai.BadRequestError, match="tool_call_id"):
        client.chat.completions.create(model=model, messages=messages[:2], tools=TOOLS)


@pytest.mark.parametrize("model", REAL)
def test_auto_and_none_leave_the_choice_or_take_it(client: openai.OpenAI, model: str) -> None:
    auto = client.chat.completions.create(model=model, messages=HELLO, tools=TOOLS, n=3, max_tokens=20, seed=1)
    assert all(choice.message.content or choice.message.tool_calls for choice in auto.choices)
    none = client.chat.completions.create(model=model, messages=HELLO, tools=TOOLS, tool_choice="none", max_tokens=20, seed=1)
    assert not none.choices[0].message.tool_calls


def test_the_mock_calls_on_demand(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "!mock call=Clock"}]
    (call,) = calls_of(client.chat.completions.create(model="mock", messages=messages, tools=TOOLS).choices[0].message)
    assert (call.function.name, call.function.arguments) == ("Clock", "{}")


async def test_async_calls_parse_too(gateway: Gateway) -> None:
    async with openai.AsyncOpenAI(base_url=f"{gateway.address}/v1", api_key="none", max_retries=0) as client:
        reply = await client.chat.completions.parse(model="qwen2", messages=HELLO, tools=TOOLS[:1], tool_choice="required", **LIMITS)
        assert reply.choices[0].message.tool_calls
        async with client.chat.completions.stream(
            model="qwen2", messages=HELLO, tools=TOOLS[:1], tool_choice="required", **LIMITS
        ) as stream:
            done = [event async for event in stream if event.type == "tool_calls.function.arguments.done"]
        assert isinstance(done[0].parsed_arguments, Weather)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"tool_choice": {"type": "function", "function": {"name": "nope"}}}, "tool_choice.function.name"),
        ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [], "tool_choice": "required"}, "tool_choice"),
    ],
)
def test_wrong_tools_are_refused_by_name(client: openai.OpenAI, change: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**{"model": "llama", "messages": HELLO, "tools": TOOLS, **change})
    assert caught.value.param == param
