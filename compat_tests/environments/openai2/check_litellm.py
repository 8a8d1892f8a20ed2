"""LiteLLM as a client of a gateway: its exceptions, streams, tools and structured output."""

# Its libraries are in an environment of its own.
# pyright: reportMissingImports=false

from __future__ import annotations

import os
from typing import Any, Literal

import litellm
import openai
import pydantic
import pytest

ADDRESS = os.environ["GATEWAY"]
HELLO = [{"role": "user", "content": "Hello"}]
REAL = ["gpt2", "llama", "qwen2"]


class Weather(pydantic.BaseModel):
    """Weather of a city."""

    city: Literal["Ems", "Wien"]
    days: int = pydantic.Field(ge=1, le=9)


TOOLS = [openai.pydantic_function_tool(Weather)]


def asked(model: str, **options: Any) -> dict[str, Any]:
    defaults = {"messages": HELLO, "max_tokens": 140, "num_retries": 0, "max_retries": 0, "seed": 1}
    return {"model": f"openai/{model}", "api_base": f"{ADDRESS}/v1", "api_key": "none", **defaults, **options}


@pytest.mark.parametrize("model", ["mock", "hub/remote", *REAL])
def test_a_stream_holds_what_comes_whole(model: str) -> None:
    options = asked(model, temperature=0, max_tokens=12)
    whole = litellm.completion(**options)
    chunks = list(litellm.completion(**options, stream=True, stream_options={"include_usage": True}))
    built = litellm.stream_chunk_builder(chunks, messages=HELLO)
    assert built.choices[0].message.content == whole.choices[0].message.content
    assert built.usage.completion_tokens == whole.usage.completion_tokens


async def test_async_agrees() -> None:
    options = asked("llama", temperature=0, max_tokens=12)
    whole = (await litellm.acompletion(**options)).choices[0].message.content
    stream = await litellm.acompletion(**options, stream=True)
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == whole


@pytest.mark.parametrize("model", REAL)
def test_tools_and_schemas_are_followed(model: str) -> None:
    options = asked(model, tools=TOOLS, tool_choice="required", parallel_tool_calls=False)
    (call,) = litellm.completion(**options).choices[0].message.tool_calls
    Weather.model_validate_json(call.function.arguments)
    built = litellm.stream_chunk_builder(list(litellm.completion(**options, stream=True)), messages=HELLO)
    assert built.choices[0].message.tool_calls[0].function.arguments == call.function.arguments
    reply = litellm.completion(**asked(model, response_format=Weather)).choices[0].message
    Weather.model_validate_json(reply.content)


def test_text_completions() -> None:
    options = asked("gpt2", temperature=0, max_tokens=6, prompt="Once upon a time") | {"model": "text-completion-openai/gpt2"}
    del options["messages"]
    whole = litellm.text_completion(**options).choices[0].text
    assert "".join(chunk.choices[0].text or "" for chunk in litellm.text_completion(**options, stream=True)) == whole


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        ("400", litellm.BadRequestError),
        ("401", litellm.AuthenticationError),
        ("403", litellm.BadRequestError),  # LiteLLM goes by the type here, and OpenAI's type of a 403 is that of a 400
        ("404", litellm.NotFoundError),
        ("422", litellm.BadRequestError),
        ("429", litellm.RateLimitError),
        ("500", litellm.InternalServerError),
        ("503", litellm.ServiceUnavailableError),
        ("context", litellm.ContextWindowExceededError),
    ],
)
def test_errors_are_told_apart(told: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        litellm.completion(**asked("mock", messages=[{"role": "user", "content": f"!mock error={told}"}]))


def test_a_timeout_is_told_apart() -> None:
    with pytest.raises(litellm.Timeout):
        litellm.completion(**asked("mock", messages=[{"role": "user", "content": "!mock error=hang"}], timeout=0.3))
