"""LlamaIndex's OpenAILike against a gateway: completions, chats, streams, tools, structured output, errors."""

# Its libraries are in an environment of its own.
# pyright: reportMissingImports=false

# No `from __future__ import annotations`: LlamaIndex reads a function's annotations without the names of its module.
import os
from collections.abc import Callable, Sequence
from typing import Any, Literal

import openai
import pydantic
import pytest
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike

ADDRESS = os.environ["GATEWAY"]
HELLO = [ChatMessage(role=MessageRole.SYSTEM, content="Be brief."), ChatMessage(role=MessageRole.USER, content="Hello")]
REAL = ["gpt2", "llama", "qwen2"]


class Weather(pydantic.BaseModel):
    """Weather of a city."""

    city: Literal["Ems", "Wien"]
    days: int = pydantic.Field(ge=1, le=9)


def weather(city: Literal["Ems", "Wien"], days: Literal[1, 2, 3]) -> str:
    """Weather of a city."""
    return f"sunny in {city} for {days} days"


TOOL = FunctionTool.from_defaults(weather)


def served(model: str, **options: Any) -> OpenAILike:
    settings: dict[str, Any] = {"is_chat_model": True, "is_function_calling_model": True, "context_window": 2048, "max_tokens": 150}
    settings |= {"max_retries": 0, "temperature": 0, "should_use_structured_outputs": True, "additional_kwargs": {"seed": 1}}
    return OpenAILike(model=model, api_base=f"{ADDRESS}/v1", api_key="none", **settings | options)


def last(pieces: Sequence[Any]) -> Any:
    assert len(pieces) > 1
    return pieces[-1]


@pytest.mark.parametrize("model", ["mock", "hub/remote", *REAL])
def test_chats_and_completions_stream_what_comes_whole(model: str) -> None:
    llm = served(model, max_tokens=12)
    assert last(list(llm.stream_chat(HELLO))).message.content == llm.chat(HELLO).message.content
    assert last(list(llm.stream_complete("Hello"))).text == llm.complete("Hello").text
    plain = served(model, is_chat_model=False, max_tokens=12)
    assert last(list(plain.stream_complete("Hello"))).text == plain.complete("Hello").text
    assert plain.complete("Hello").raw.object == "text_completion"


@pytest.mark.parametrize("model", ["mock", "llama"])
async def test_async_agrees(model: str) -> None:
    llm = served(model, max_tokens=12)
    pieces = [piece async for piece in await llm.astream_chat(HELLO)]
    assert last(pieces).message.content == (await llm.achat(HELLO)).message.content == llm.chat(HELLO).message.content
    assert (await llm.acomplete("Hello")).text == llm.complete("Hello").text
    pieces = [piece async for piece in await llm.astream_complete("Hello")]
    assert last(pieces).text == llm.complete("Hello").text


@pytest.mark.parametrize("model", REAL)
def test_tools_are_called_run_and_answered(model: str) -> None:
    llm = served(model, temperature=1.0)
    reply = llm.chat_with_tools([TOOL], user_msg="Weather?", tool_required=True, allow_parallel_tool_calls=False)
    (call,) = llm.get_tool_calls_from_response(reply)
    Weather.model_validate(call.tool_kwargs)
    streamed = last(list(llm.stream_chat_with_tools([TOOL], user_msg="Weather?", tool_required=True, allow_parallel_tool_calls=False)))
    (same,) = llm.get_tool_calls_from_response(streamed)
    assert (same.tool_name, same.tool_kwargs) == (call.tool_name, call.tool_kwargs)
    result = ChatMessage(role=MessageRole.TOOL, content=str(TOOL(**call.tool_kwargs)), additional_kwargs={"tool_call_id": call.tool_id})
    followed = llm.chat([ChatMessage(role=MessageRole.USER, content="Weather?"), reply.message, result])
    assert followed.message.content


async def test_tools_are_predicted_and_called_asynchronously() -> None:
    called: list[Any] = []

    def note(city: Literal["Ems"]) -> str:
        """Notes a city."""
        called.append(city)
        return "noted"

    reply = await served("qwen2").apredict_and_call([FunctionTool.from_defaults(note)], user_msg="Note it", tool_required=True)
    assert called and set(called) == {"Ems"} and "noted" in reply.response


@pytest.mark.parametrize("model", REAL)
def test_structured_output_follows_the_schema(model: str) -> None:
    llm = served(model, temperature=1.0)
    assert isinstance(llm.structured_predict(Weather, PromptTemplate("Weather of {town}?"), town="Ems"), Weather)
    assert isinstance(llm.as_structured_llm(Weather).complete("Weather?").raw, Weather)
    by_tool = served(model, should_use_structured_outputs=False, temperature=1.0)
    assert isinstance(by_tool.structured_predict(Weather, PromptTemplate("Weather of {town}?"), town="Ems"), Weather)


def test_log_probabilities_are_read() -> None:
    reply = served("llama", logprobs=True, top_logprobs=2, max_tokens=4).chat(HELLO)
    assert reply.logprobs is not None and [len(each) for each in reply.logprobs] == [2] * 4


@pytest.mark.parametrize(
    ("told", "kind"), [("429", openai.RateLimitError), ("context", openai.BadRequestError), ("500", openai.InternalServerError)]
)
def test_errors_keep_their_class(told: str, kind: type[openai.APIStatusError]) -> None:
    asking: Callable[[str], Any] = served("mock").complete
    with pytest.raises(kind):
        asking(f"!mock error={told}")
