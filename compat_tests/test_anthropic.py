"""The official anthropic SDK against a running gateway: messages, streams, tools and their runner; and the same over chat."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

import openai
import pydantic
import pytest

from compat_tests.support.gateways import Gateway

anthropic = pytest.importorskip("anthropic")

HELLO: list[Any] = [{"role": "user", "content": "What is the weather?"}]
REAL = ["gpt2", "llama", "qwen2", "tiny-chat"]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"enum": ["Ems", "Wien"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
WEATHER: Any = {"name": "Weather", "description": "Weather of a city.", "input_schema": SCHEMA}
GREEDY: Any = {"extra_body": {"temperature": 0}}


@pytest.fixture
def claude(gateway: Gateway) -> Iterator[Any]:
    with anthropic.Anthropic(base_url=gateway.address, api_key="none", max_retries=0, timeout=180) as client:
        yield client


@pytest.fixture
async def async_claude(gateway: Gateway) -> AsyncIterator[Any]:
    async with anthropic.AsyncAnthropic(base_url=gateway.address, api_key="none", max_retries=0, timeout=180) as client:
        yield client


@pytest.mark.parametrize("model", [*REAL, "mock", "hub/remote"])
def test_the_text_is_that_of_chat_whole_and_streamed(claude: Any, client: openai.OpenAI, model: str) -> None:
    chat = client.chat.completions.create(
        model=model, messages=[{"role": "system", "content": "Be brief."}, *HELLO], max_tokens=24, temperature=0
    )
    options = {"model": model, "system": "Be brief.", "messages": HELLO, "max_tokens": 24, **GREEDY}
    message = claude.messages.create(**options)
    (block,) = message.content
    assert block.text == chat.choices[0].message.content
    assert chat.usage is not None
    assert message.usage.input_tokens + message.usage.cache_read_input_tokens == chat.usage.prompt_tokens
    assert message.usage.output_tokens == chat.usage.completion_tokens
    assert message.stop_reason == {"length": "max_tokens", "stop": "end_turn"}[chat.choices[0].finish_reason]
    with claude.messages.stream(**options) as stream:
        assert "".join(stream.text_stream) == block.text
    final = stream.get_final_message()
    assert (final.content[0].text, final.stop_reason) == (block.text, message.stop_reason)
    assert final.usage.output_tokens == message.usage.output_tokens
    assert final.usage.input_tokens + final.usage.cache_read_input_tokens == chat.usage.prompt_tokens


@pytest.mark.parametrize("model", [*REAL, "mock", "hub/remote"])
def test_calls_are_those_of_chat_whole_and_streamed(claude: Any, client: openai.OpenAI, model: str) -> None:
    tool: Any = {"type": "function", "function": {"name": "Weather", "description": WEATHER["description"], "parameters": SCHEMA}}
    chat = client.chat.completions.create(
        model=model, messages=HELLO, tools=[tool], tool_choice="required", parallel_tool_calls=False, max_tokens=130, temperature=0
    )
    calls = chat.choices[0].message.tool_calls
    assert calls is not None and len(calls) == 1
    call = calls[0]
    assert call.type == "function"
    choice = {"type": "any", "disable_parallel_tool_use": True}
    options = {"model": model, "messages": HELLO, "tools": [WEATHER], "tool_choice": choice, "max_tokens": 130, **GREEDY}
    message = claude.messages.create(**options)
    (block,) = message.content
    assert (block.type, block.name, block.input) == ("tool_use", "Weather", json.loads(call.function.arguments))
    assert message.stop_reason == "tool_use"
    with claude.messages.stream(**options) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
    assert json.loads("".join(pieces)) == block.input
    assert stream.get_final_message().content[0].input == block.input


async def test_the_asynchronous_client_streams_the_same(async_claude: Any) -> None:
    options = {"model": "mock", "messages": HELLO, "max_tokens": 20}
    message = await async_claude.messages.create(**options)
    async with async_claude.messages.stream(**options) as stream:
        assert "".join([text async for text in stream.text_stream]) == message.content[0].text
    events = [event async for event in await async_claude.messages.create(**options, stream=True)]
    assert [events[0].type, events[-2].type, events[-1].type] == ["message_start", "message_delta", "message_stop"]


def test_the_tool_runner_runs_to_its_end(claude: Any) -> None:
    asked: list[Any] = []

    @anthropic.beta_tool
    def weather(city: Literal["Ems", "Wien"], days: int) -> str:
        """Weather of a city.

        Args:
            city: Which one.
            days: How many.
        """
        asked.append((city, days))
        return "sunny"

    final = claude.beta.messages.tool_runner(model="mock", max_tokens=100, tools=[weather], messages=HELLO).until_done()
    assert asked == [("Ems", 0)]
    assert final.stop_reason == "end_turn" and final.content[0].type == "text"


@pytest.mark.parametrize("model", ["tiny-chat", "mock"])
def test_structured_output_is_parsed(claude: Any, model: str) -> None:
    class City(pydantic.BaseModel):
        name: Literal["Ems", "Wien"]

    parsed = claude.messages.parse(model=model, max_tokens=60, messages=HELLO, output_format=City)
    assert isinstance(parsed.parsed_output, City)


def test_a_stop_sequence_is_named(claude: Any) -> None:
    options = {"model": "tiny-chat", "messages": HELLO, "max_tokens": 24, **GREEDY}
    text = claude.messages.create(**options).content[0].text
    stop = text[6:9]
    message = claude.messages.create(**options, stop_sequences=[stop])
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", stop)
    assert message.content[0].text == text[: text.index(stop)]


def test_a_second_turn_reuses_the_work_of_the_first(claude: Any) -> None:
    turns = [{"role": "user", "content": "Tell me about the sea. " * 10}]
    first = claude.messages.create(model="tiny-chat", max_tokens=8, messages=turns)
    turns += [{"role": "assistant", "content": first.content}, {"role": "user", "content": "And then?"}]
    second = claude.messages.create(model="tiny-chat", max_tokens=8, messages=turns)
    assert second.usage.cache_read_input_tokens >= first.usage.input_tokens
    assert second.usage.input_tokens < 40


def test_more_tokens_than_the_context_holds_are_as_many_as_it_does(claude: Any) -> None:
    message = claude.messages.create(model="tiny-chat", max_tokens=8000, messages=HELLO)
    assert message.stop_reason in ("end_turn", "model_context_window_exceeded")
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long: "):
        claude.messages.create(model="tiny-chat", max_tokens=10, messages=[{"role": "user", "content": "word " * 5000}])


@pytest.mark.parametrize("model", ["tiny-chat", "mock"])
def test_tokens_are_counted_as_they_are_read(claude: Any, model: str) -> None:
    options = {"model": model, "messages": HELLO, "system": "Be brief.", "tools": [WEATHER]}
    counted = claude.messages.count_tokens(**options).input_tokens
    usage = claude.messages.create(**options, max_tokens=2).usage
    assert counted == usage.input_tokens + usage.cache_read_input_tokens


def test_models_are_listed_and_claudes_names_lead_to_one(claude: Any) -> None:
    names = [model.id for model in claude.models.list(limit=3)]
    assert {"mock", "tiny-chat", "hub/remote"} <= set(names)
    assert claude.models.retrieve("tiny-chat").max_input_tokens == 2048
    assert claude.messages.create(model="claude-sonnet-5", max_tokens=2, messages=HELLO).model == "claude-sonnet-5"


@pytest.mark.parametrize(
    ("order", "error"),
    [
        ("400", "BadRequestError"),
        ("403", "PermissionDeniedError"),
        ("404", "NotFoundError"),
        ("429", "RateLimitError"),
        ("500", "InternalServerError"),
        ("503", "OverloadedError"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_are_the_clients_own(claude: Any, order: str, error: str, stream: bool) -> None:
    messages = [{"role": "user", "content": f"!mock error={order}"}]
    kind = getattr(anthropic, error, None) or getattr(anthropic._exceptions, error)
    with pytest.raises(kind) as raised:
        claude.messages.create(model="mock", max_tokens=9, messages=messages, stream=stream)
    assert raised.value.request_id.startswith("req_")


def test_an_error_amid_a_stream_is_raised(claude: Any) -> None:
    messages = [{"role": "user", "content": "!mock error=500 after=3"}]
    with pytest.raises(anthropic.APIStatusError), claude.messages.stream(model="mock", max_tokens=9, messages=messages) as stream:
        stream.get_final_message()


def test_a_workflow_answers_too(claude: Any) -> None:
    message = claude.messages.create(model="mm-orch/lesson-pack@mock", max_tokens=400, messages=[{"role": "user", "content": "Tides"}])
    assert message.content[0].text
