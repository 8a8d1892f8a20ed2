"""openai-agents as a client of a gateway: both of its models, tools, handoffs, structured output, streams, sessions, guardrails."""

# Its libraries are in an environment of its own.
# pyright: reportMissingImports=false

from __future__ import annotations

import os
from typing import Any

import openai
import pytest
from agents import (
    Agent,
    GuardrailFunctionOutput,
    InputGuardrailTripwireTriggered,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    SQLiteSession,
    function_tool,
    input_guardrail,
    set_tracing_disabled,
)
from agents.exceptions import MaxTurnsExceeded, ModelBehaviorError
from pydantic import BaseModel, Field

set_tracing_disabled(True)
KINDS = [OpenAIChatCompletionsModel, OpenAIResponsesModel]
both = pytest.mark.parametrize("kind", KINDS)


class City(BaseModel):
    """A city."""

    name: str = Field(max_length=12)
    population: int = Field(ge=0, le=99)


def model(kind: Any, name: str = "mock") -> Any:
    """A client for each: it belongs to the event loop of one test."""
    return kind(model=name, openai_client=openai.AsyncOpenAI(base_url=f"{os.environ['GATEWAY']}/v1", api_key="none", max_retries=0))


@both
@pytest.mark.parametrize("name", ["mock", "tiny-chat"])
async def test_a_run_gives_text_and_usage(kind: Any, name: str) -> None:
    agent = Agent(name="assistant", instructions="Be short.", model=model(kind, name), model_settings=ModelSettings(max_tokens=400))
    result = await Runner.run(agent, "Hello")
    usage = result.context_wrapper.usage
    assert result.final_output and usage.requests == 1 and 0 < usage.output_tokens <= 400 and usage.input_tokens > 0


@both
@pytest.mark.parametrize("name", ["mock", "tiny-chat"])
async def test_a_stream_ends_in_the_text_of_a_run(kind: Any, name: str) -> None:
    agent = Agent(name="assistant", model=model(kind, name), model_settings=ModelSettings(max_tokens=400, temperature=0))
    result, text = Runner.run_streamed(agent, "Hello"), ""
    async for event in result.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            text += event.data.delta
    assert text == result.final_output == (await Runner.run(agent, "Hello")).final_output


@both
@pytest.mark.parametrize("streamed", [False, True])
async def test_tools_are_called_and_the_run_comes_to_an_end(kind: Any, streamed: bool) -> None:
    called: list[str] = []

    @function_tool
    def weather(city: str, days: int) -> str:
        """The weather of a city."""
        called.append("weather")
        return f"{days} days of sun in {city}"

    @function_tool(strict_mode=False)
    def note(fields: dict[str, Any]) -> str:
        """Writes fields down."""
        called.append("note")
        return str(fields)

    agent = Agent(name="assistant", model=model(kind), tools=[weather, note])
    if streamed:
        result: Any = Runner.run_streamed(agent, "What is the weather?")
        names = [event.name async for event in result.stream_events() if event.type == "run_item_stream_event"]
        assert "tool_called" in names and "tool_output" in names and names[-1] == "message_output_created"
    else:
        result = await Runner.run(agent, "What is the weather?")
    assert called == ["weather", "note"] and result.final_output
    again = await Runner.run(agent, [*result.to_input_list(), {"role": "user", "content": "And now?"}])
    assert again.final_output


@both
@pytest.mark.parametrize("name", ["mock", "tiny-chat"])
async def test_structured_output_is_an_object(kind: Any, name: str) -> None:
    agent = Agent(name="assistant", model=model(kind, name), output_type=City, model_settings=ModelSettings(max_tokens=200))
    assert isinstance((await Runner.run(agent, "Vienna?")).final_output, City)


@both
async def test_a_conversation_is_handed_to_another_agent(kind: Any) -> None:
    other = Agent(name="spanish", handoff_description="Speaks Spanish.", model=model(kind))
    agent = Agent(name="triage", model=model(kind), handoffs=[other])
    result = await Runner.run(agent, "Hola")
    assert result.last_agent is other and result.final_output


@both
async def test_an_agent_is_a_tool_of_another(kind: Any) -> None:
    helper = Agent(name="helper", model=model(kind))
    tool = helper.as_tool(tool_name="help", tool_description="Helps.")
    assert (await Runner.run(Agent(name="boss", model=model(kind), tools=[tool]), "Help me.")).final_output


@both
@pytest.mark.parametrize("choice", ["required", "none", "weather"])
async def test_tool_choices_are_kept(kind: Any, choice: str) -> None:
    called: list[str] = []

    @function_tool
    def weather(city: str) -> str:
        """The weather of a city."""
        called.append(city)
        return "sun"

    agent = Agent(
        name="assistant", model=model(kind), tools=[weather], model_settings=ModelSettings(tool_choice=choice, parallel_tool_calls=False)
    )
    assert (await Runner.run(agent, "Hello")).final_output
    assert bool(called) == (choice != "none")


@both
async def test_settings_are_accepted(kind: Any) -> None:
    settings = ModelSettings(
        temperature=0.1, top_p=0.9, max_tokens=400, metadata={"a": "b"}, store=False, truncation="auto", include_usage=True
    )
    if kind is OpenAIChatCompletionsModel:
        settings = settings.resolve(ModelSettings(frequency_penalty=0.1, presence_penalty=0.1))
    assert (await Runner.run(Agent(name="assistant", model=model(kind), model_settings=settings), "Hello")).final_output


@both
async def test_a_session_remembers_the_conversation(kind: Any) -> None:
    session, agent = SQLiteSession("one"), Agent(name="assistant", model=model(kind))
    await Runner.run(agent, "Hello", session=session)
    assert (await Runner.run(agent, "Again", session=session)).final_output
    assert [item.get("role") for item in await session.get_items()] == ["user", "assistant"] * 2


async def test_a_conversation_goes_on_from_a_stored_response() -> None:
    agent = Agent(name="assistant", model=model(OpenAIResponsesModel), model_settings=ModelSettings(store=True))
    first = await Runner.run(agent, "Hello")
    assert (await Runner.run(agent, "Again", previous_response_id=first.last_response_id)).final_output


@both
async def test_a_guardrail_stops_a_run(kind: Any) -> None:
    guard = Agent(name="guard", model=model(kind), output_type=City)

    @input_guardrail
    async def refuse(context: Any, agent: Any, text: Any) -> GuardrailFunctionOutput:
        found = await Runner.run(guard, text, context=context.context)
        return GuardrailFunctionOutput(output_info=found.final_output, tripwire_triggered=isinstance(found.final_output, City))

    with pytest.raises(InputGuardrailTripwireTriggered):
        await Runner.run(Agent(name="assistant", model=model(kind), input_guardrails=[refuse]), "Hello")


@both
async def test_errors_are_the_sdk_s(kind: Any) -> None:
    with pytest.raises(openai.NotFoundError):
        await Runner.run(Agent(name="assistant", model=model(kind, "nothing")), "Hello")


async def test_an_answer_that_is_cut_is_no_answer_of_the_responses_api() -> None:
    agent = Agent(name="assistant", model=model(OpenAIResponsesModel), model_settings=ModelSettings(max_tokens=16))
    with pytest.raises(ModelBehaviorError, match="max_output_tokens"):
        await Runner.run(agent, "!mock tokens=100")


@both
async def test_a_run_that_calls_for_ever_is_ended_by_the_client(kind: Any) -> None:
    @function_tool
    def again() -> str:
        """Again."""
        return "again"

    agent = Agent(
        name="assistant", model=model(kind), tools=[again], reset_tool_choice=False, model_settings=ModelSettings(tool_choice="required")
    )
    with pytest.raises(MaxTurnsExceeded):
        await Runner.run(agent, "Hello", max_turns=3)
