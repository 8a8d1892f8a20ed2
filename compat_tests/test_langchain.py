"""LangChain's ChatOpenAI as an application uses it: chains, streams, tools, structured output, batches, errors."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypedDict

import openai
import pydantic
import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings

from compat_tests.support.gateways import Gateway
from compat_tests.support.langchain import sum_of

# ChatOpenAI keeps its connections beyond a test, so all have to share an event loop.
pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.filterwarnings("ignore:.*marked with '@pytest.mark.asyncio' but it is not an async function"),
]


class Ticket(pydantic.BaseModel):
    """A support ticket."""

    severity: Literal["low", "high"]
    hours: int = pydantic.Field(ge=0, le=99)


class TicketDict(TypedDict):
    """A support ticket."""

    severity: Annotated[Literal["low", "high"], ..., "how bad"]


@tool
def open_ticket(severity: Literal["low", "high"], hours: Annotated[int, pydantic.Field(ge=0, le=99)]) -> str:
    """Opens a support ticket."""
    return f"opened, {severity}, {hours} h"


NO_KEY = pydantic.SecretStr("none")


def chat(gateway: Gateway, model: str, **options: Any) -> ChatOpenAI:
    defaults = {"max_tokens": 160, "seed": 3, "max_retries": 0}
    return ChatOpenAI(base_url=f"{gateway.address}/v1", api_key=NO_KEY, model=model, **{**defaults, **options})


@pytest.mark.parametrize("model", ["mock", "hub/remote", "llama"])
def test_a_chain_streams_what_it_returns_whole(gateway: Gateway, model: str) -> None:
    chain = ChatPromptTemplate.from_messages([("system", "Be brief."), ("human", "{text}")]) | chat(gateway, model) | StrOutputParser()
    pieces = list(chain.stream({"text": "Hello"}))
    assert len(pieces) > 2
    assert "".join(pieces) == chain.invoke({"text": "Hello"})


async def test_async_streams_and_batches_agree_with_the_rest(gateway: Gateway) -> None:
    model = chat(gateway, "llama", temperature=0)
    pieces = [piece.text async for piece in model.astream("Hello")]
    texts = [reply.text for reply in await model.abatch(["Hello"] * 6, config={"max_concurrency": 3})]
    assert set(texts) == {"".join(pieces)} == {reply.text for reply in model.batch(["Hello", "Hello"])}


def test_usage_and_log_probabilities_are_carried(gateway: Gateway) -> None:
    model = chat(gateway, "llama", logprobs=True, top_logprobs=2, stream_usage=True, max_tokens=5)
    total = sum_of(model.stream("Hello"))
    assert total.usage_metadata is not None and total.usage_metadata["output_tokens"] == 5
    assert len(total.response_metadata["logprobs"]["content"]) == 5
    assert total.response_metadata["finish_reason"] == "length"


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
@pytest.mark.parametrize("model", ["gpt2", "llama", "qwen2"])
def test_structured_output_follows_the_schema(gateway: Gateway, model: str, method: Literal["json_schema", "function_calling"]) -> None:
    asked = chat(gateway, model)
    assert isinstance(asked.with_structured_output(Ticket, method=method, strict=True).invoke("It burns"), Ticket)
    *_, last = asked.with_structured_output(TicketDict, method=method, strict=True).stream("It burns")
    assert last["severity"] in ("low", "high")
    raw: Any = asked.with_structured_output(Ticket, method=method, include_raw=True).invoke("It burns")
    assert raw["parsing_error"] is None and raw["raw"].response_metadata["finish_reason"] == "stop"


@pytest.mark.parametrize("model", ["gpt2", "llama", "qwen2", "mock", "hub/remote"])
def test_tools_are_called_streamed_and_answered(gateway: Gateway, model: str) -> None:
    asked = chat(gateway, model).bind_tools([open_ticket], tool_choice="any", parallel_tool_calls=False)
    question = HumanMessage("It burns")
    reply = asked.invoke([question])
    (call,) = reply.tool_calls
    total = sum_of(asked.stream([question]))
    assert [(each["name"], each["args"]) for each in total.tool_calls] == [(call["name"], call["args"])]
    result = open_ticket.invoke(call)
    assert isinstance(result, ToolMessage)
    followed = chat(gateway, model).bind_tools([open_ticket], tool_choice="none").invoke([question, reply, result])
    assert isinstance(followed, AIMessage) and followed.text and not followed.tool_calls


async def test_a_tool_of_ones_choice_is_called(gateway: Gateway) -> None:
    @tool
    def close_ticket() -> str:
        """Closes the ticket."""
        return "closed"

    asked = chat(gateway, "qwen2").bind_tools([open_ticket, close_ticket], tool_choice="close_ticket")
    (call,) = (await asked.ainvoke("Done")).tool_calls
    assert (call["name"], call["args"]) == ("close_ticket", {})


def test_completions_run_through_the_llm_class(gateway: Gateway) -> None:
    model = OpenAI(base_url=f"{gateway.address}/v1", api_key=NO_KEY, model="gpt2", max_tokens=8, temperature=0)
    assert "".join(model.stream("Once upon")) == model.invoke("Once upon")
    assert len(model.generate(["Once", "Hello"]).generations) == 2


def test_errors_keep_their_class_and_retries_recover(gateway: Gateway) -> None:
    with pytest.raises(openai.RateLimitError):
        chat(gateway, "mock").invoke("!mock error=429")
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        chat(gateway, "mock").invoke("!mock error=context")
    replying = chat(gateway, "mock").with_fallbacks([chat(gateway, "llama")])
    assert replying.invoke("!mock error=500").response_metadata["model_name"] == "llama"


async def test_embeddings_of_documents_queries_and_over_the_socket_alike(gateway: Gateway) -> None:
    # Without this LangChain sends the ids that OpenAI's own tokenizer gives.
    model = OpenAIEmbeddings(base_url=f"{gateway.address}/v1", api_key=NO_KEY, model="llama", check_embedding_ctx_length=False)
    first, second = model.embed_documents(["Hello", "Once upon a time"])
    assert model.embed_query("Hello") == pytest.approx(first, abs=1e-5) and first != second
    assert await model.aembed_documents(["Once upon a time"]) == [pytest.approx(second, abs=1e-5)]


@pytest.mark.parametrize("model", ["mock", "llama"])
def test_the_responses_api_streams_calls_and_follows_schemas(gateway: Gateway, model: str) -> None:
    asked = chat(gateway, model, use_responses_api=True, seed=None)
    total = sum_of(asked.stream("Hello", temperature=0))
    assert total.text and total.text == asked.invoke("Hello", temperature=0).text
    called = asked.bind_tools([open_ticket], tool_choice="open_ticket").invoke("It burns")
    assert called.tool_calls[0]["name"] == "open_ticket"
    assert isinstance(asked.with_structured_output(Ticket, method="json_schema").invoke("It burns"), Ticket)
