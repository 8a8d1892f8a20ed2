"""Simon Willison's `llm`, on the command line and in Python, with the gateway's models in its extra-openai-models.yaml."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import llm
import openai
import pydantic
import pytest

from compat_tests.support.gateways import Gateway

MODELS = ["mock", "gpt2", "llama", "qwen2"]


@pytest.fixture
def folder(gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where llm finds the models, and writes its log."""
    shared = {"api_base": f"{gateway.address}/v1", "supports_tools": True, "supports_schema": True}
    models = [{"model_id": f"gateway/{name}", "model_name": name, **shared} for name in MODELS]
    models.append({"model_id": "gateway/completions", "model_name": "gpt2", "completion": True, **shared})
    models.append({"model_id": "gateway/responses", "model_name": "llama", "responses": True, **shared})
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps(models))  # JSON is YAML
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    return tmp_path


def run(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "llm", *arguments], capture_output=True, text=True, timeout=300, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    return done.stdout


class Weather(pydantic.BaseModel):
    """Weather of a city. Closed, for random weights would add properties until their text is cut."""

    model_config = pydantic.ConfigDict(extra="forbid")

    city: Literal["Ems", "Wien"]
    days: int = pydantic.Field(ge=1, le=9)


def test_the_command_line_prompts_continues_and_follows_schemas(folder: Path) -> None:
    streamed = run("-m", "gateway/mock", "Hello")
    assert run("-m", "gateway/mock", "Hello", "--no-stream") == streamed and len(streamed.split()) == 24
    assert run("-m", "gateway/mock", "-c", "And then?").strip()
    reply = run("-m", "gateway/llama", "Weather?", "--schema", json.dumps(Weather.model_json_schema()), "-o", "max_tokens", "80")
    Weather.model_validate_json(reply)


def test_the_command_line_runs_tools(folder: Path) -> None:
    function = "def weather(city: str) -> str:\n    'Weather of a city.'\n    return 'sunny'"
    told = run("-m", "gateway/mock", "!mock call=weather", "--functions", function, "--td")
    assert len(told.split()) == 24


@pytest.mark.parametrize("name", [*MODELS, "completions", "responses"])
def test_a_stream_holds_what_comes_whole(folder: Path, name: str) -> None:
    model = llm.get_model(f"gateway/{name}")
    options: dict[str, Any] = {"temperature": 0, "max_tokens": 12}
    pieces = list(model.prompt("Hello", stream=True, **options))
    whole = model.prompt("Hello", stream=False, **options)
    assert len(pieces) > 1 and "".join(pieces) == whole.text()
    if name != "completions":  # there llm reads no usage
        usage = whole.usage()
        assert usage.input and usage.output == 12


@pytest.mark.parametrize("name", [*MODELS, "responses"])
def test_a_conversation_sends_what_was_said(folder: Path, name: str) -> None:
    conversation = llm.get_model(f"gateway/{name}").conversation()
    options: dict[str, Any] = {"max_tokens": 8, "stream": False}  # in a stream of responses llm misses the usage of one that is cut
    first = conversation.prompt("Hello", system="Be brief.", **options)
    first.text()
    second = conversation.prompt("And then?", **options)
    assert second.text()
    assert (second.usage().input or 0) > (first.usage().input or 0)


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen2", "responses"])
def test_schemas_are_followed(folder: Path, name: str) -> None:
    model = llm.get_model(f"gateway/{name}")
    for stream in (True, False):
        Weather.model_validate_json(model.prompt("Weather?", schema=Weather, max_tokens=80, stream=stream).text())


@pytest.mark.parametrize("stream", [True, False])
def test_a_chain_runs_tools_and_goes_on_with_their_results(folder: Path, stream: bool) -> None:
    called: list[str] = []

    def weather(city: str) -> str:
        """Weather of a city."""
        called.append(city)
        return "sunny"

    chain = llm.get_model("gateway/mock").conversation(tools=[weather]).chain("!mock call=weather", stream=stream)
    assert len(chain.text().split()) == 24
    assert called == ["text"]


async def test_async_models_answer_too(folder: Path) -> None:
    model = llm.get_async_model("gateway/llama")
    pieces = [piece async for piece in model.prompt("Hello", temperature=0, max_tokens=8)]
    assert "".join(pieces) == await model.prompt("Hello", temperature=0, max_tokens=8, stream=False).text()


def test_errors_say_why(folder: Path) -> None:
    with pytest.raises(openai.BadRequestError, match="told to refuse"):
        llm.get_model("gateway/mock").prompt("!mock error=400").text()
