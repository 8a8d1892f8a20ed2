"""pydantic-ai as a client of a gateway: both of its OpenAI models, tools, each way of structured output, streams, settings, errors."""

# Its libraries are in an environment of its own.
# pyright: reportMissingImports=false

from __future__ import annotations

import os
from typing import Any

import pytest
from pydantic import BaseModel, Field
from pydantic_ai import Agent, ModelHTTPError, ModelRetry, NativeOutput, PromptedOutput, RunContext, ToolOutput, UsageLimits
from pydantic_ai.exceptions import UsageLimitExceeded
from pydantic_ai.messages import ToolCallPart, ToolReturnPart
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

PROVIDER = OpenAIProvider(base_url=f"{os.environ['GATEWAY']}/v1", api_key="none")
KINDS = [OpenAIChatModel, OpenAIResponsesModel]
both = pytest.mark.parametrize("kind", KINDS)


class City(BaseModel):
    """A city."""

    name: str = Field(max_length=12)
    population: int = Field(ge=0, le=99)


class Loose(BaseModel):
    """Any object fits."""

    name: str = "unknown"


def parts(result: Any, kind: type) -> list[Any]:
    return [part for message in result.all_messages() for part in message.parts if isinstance(part, kind)]


@both
@pytest.mark.parametrize("model", ["mock", "tiny-chat"])
async def test_a_run_gives_text_and_usage(kind: Any, model: str) -> None:
    result = await Agent(kind(model, provider=PROVIDER), instructions="Be short.").run("Hello", model_settings={"max_tokens": 20})
    assert result.output and result.usage.input_tokens > 0 and 0 < result.usage.output_tokens <= 20


@both
@pytest.mark.parametrize("model", ["mock", "tiny-chat"])
async def test_a_stream_ends_in_the_text_of_a_run(kind: Any, model: str) -> None:
    agent, settings = Agent(kind(model, provider=PROVIDER)), {"max_tokens": 20, "temperature": 0.0}
    async with agent.run_stream("Hello", model_settings=settings) as stream:
        texts = [text async for text in stream.stream_text(delta=True, debounce_by=None)]
    assert len(texts) > 1 and "".join(texts) == (await agent.run("Hello", model_settings=settings)).output


@both
async def test_tools_are_called_and_the_run_comes_to_an_end(kind: Any) -> None:
    agent = Agent(kind("mock", provider=PROVIDER), deps_type=int)
    called: list[str] = []

    @agent.tool
    async def add(context: RunContext[int], number: int) -> int:
        """Adds a number."""
        called.append("add")
        return context.deps + number

    @agent.tool_plain
    def weather(city: str, days: int = 1) -> dict[str, Any]:
        """The weather of a city."""
        called.append("weather")
        return {"city": city, "days": days}

    result = await agent.run("What is the weather?", deps=40)
    assert set(called) == {"add", "weather"} and result.output
    calls = parts(result, ToolCallPart)
    assert {call.tool_call_id for call in calls} == {answer.tool_call_id for answer in parts(result, ToolReturnPart)}
    assert (await agent.run("And now?", deps=1, message_history=result.all_messages())).output


@both
@pytest.mark.parametrize("way", [ToolOutput, NativeOutput])
@pytest.mark.parametrize("model", ["mock", "tiny-chat"])
async def test_structured_output_is_an_object(kind: Any, way: Any, model: str) -> None:
    result = await Agent(kind(model, provider=PROVIDER), output_type=way(City)).run("Vienna?", model_settings={"max_tokens": 200})
    assert isinstance(result.output, City)


@both
async def test_output_that_only_the_prompt_describes_is_some_object(kind: Any) -> None:
    """The schema is in the prompt alone, which the mock does not read; any object fits this one."""
    agent = Agent(kind("mock", provider=PROVIDER), output_type=PromptedOutput(Loose))
    assert (await agent.run("Vienna?")).output == Loose()


@both
async def test_structured_output_streams(kind: Any) -> None:
    async with Agent(kind("mock", provider=PROVIDER), output_type=NativeOutput(City)).run_stream("Vienna?") as stream:
        found = [output async for output in stream.stream_output(debounce_by=None)]
    assert isinstance(found[-1], City)


@both
async def test_a_tool_that_wants_to_be_called_again_is(kind: Any) -> None:
    agent = Agent(kind("mock", provider=PROVIDER), retries=3)
    tries: list[str] = []

    @agent.tool_plain
    def look_up(word: str) -> str:
        """Looks a word up."""
        tries.append(word)
        if len(tries) == 1:
            raise ModelRetry("use another word")
        return "found"

    result = await agent.run("Look it up.")
    assert result.output and tries


@both
async def test_an_output_validator_asks_again(kind: Any) -> None:
    agent = Agent(kind("mock", provider=PROVIDER), output_type=City, retries=2)
    tries: list[City] = []

    @agent.output_validator
    def refuse_first(city: City) -> City:
        tries.append(city)
        if len(tries) == 1:
            raise ModelRetry("another city")
        return city

    assert (await agent.run("Vienna?")).output == tries[-1] and len(tries) == 2


@both
async def test_settings_are_accepted(kind: Any) -> None:
    settings = {"max_tokens": 9, "temperature": 0.1, "top_p": 0.9, "seed": 1, "timeout": 60.0, "parallel_tool_calls": False}
    chat = {"presence_penalty": 0.1, "frequency_penalty": 0.1, "stop_sequences": ["zzz"], "logit_bias": {"5": 1}, "openai_logprobs": True}
    given: Any = settings | {"openai_user": "u"} | (chat if kind is OpenAIChatModel else {"openai_truncation": "auto"})
    assert (await Agent(kind("mock", provider=PROVIDER)).run("Hello", model_settings=given)).output


@both
async def test_errors_keep_their_status_and_their_body(kind: Any) -> None:
    with pytest.raises(ModelHTTPError) as error:
        await Agent(kind("nothing", provider=PROVIDER)).run("Hello")
    assert error.value.status_code == 404 and isinstance(error.value.body, dict) and error.value.body["code"] == "model_not_found"


@both
async def test_a_limit_of_the_client_counts_what_the_server_says(kind: Any) -> None:
    with pytest.raises(UsageLimitExceeded):
        await Agent(kind("mock", provider=PROVIDER)).run("!mock tokens=30", usage_limits=UsageLimits(output_tokens_limit=5))


async def test_a_conversation_goes_on_from_a_stored_response() -> None:
    agent = Agent(OpenAIResponsesModel("mock", provider=PROVIDER))
    first = await agent.run("Hello", model_settings={"openai_store": True})
    again: Any = {"openai_previous_response_id": "auto", "openai_store": True}
    assert (await agent.run("Again", message_history=first.all_messages(), model_settings=again)).output
