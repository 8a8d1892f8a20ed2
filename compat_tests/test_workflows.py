"""Workflows through the openai SDK, LangChain and curl: lessons, conversations that are remembered, stages, errors."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from langchain_openai import ChatOpenAI

from compat_tests.support.gateways import Gateway, free_port, start_gateway, stop_gateway

LESSON: list[Any] = [{"role": "user", "content": "Fractions"}]


def ask(client: openai.OpenAI, session: str, text: str, model: str = "mm-orch/chat-generate") -> Any:
    return client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": text}], metadata={"session_id": session}, max_tokens=8
    )


def test_a_lesson_streams_as_it_reads_whole(client: openai.OpenAI) -> None:
    extra = {"workflow": {"difficulty": "beginner", "num_exercises": 2}}
    whole = client.chat.completions.create(model="mm-orch/lesson-pack", messages=LESSON, extra_body=extra)
    stream = client.chat.completions.create(
        model="mm-orch/lesson-pack", messages=LESSON, extra_body=extra, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert text.startswith("# Fractions\n\n## Plan\n\n1. ") and text.count("**Answer:**") == 2
    assert chunks[-1].usage is not None and chunks[-1].usage.total_tokens == whole.usage.total_tokens  # type: ignore[union-attr]
    assert [stage["stage"] for stage in whole.usage.workflow] == ["plan", "explanation", "exercises"]  # type: ignore[union-attr]
    assert whole.workflow["model"] == "mock" and not whole.workflow["degraded"]  # type: ignore[attr-defined]


def test_a_lesson_of_random_weights_is_json_with_exactly_the_exercises(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model="mm-orch/lesson-pack@llama",
        messages=LESSON,
        response_format={"type": "json_object"},
        seed=1,
        extra_body={"workflow": {"num_exercises": 2, "include_examples": False}},
    )
    lesson = json.loads(reply.choices[0].message.content or "")
    assert set(lesson) == {"topic", "plan", "explanation", "exercises"} and len(lesson["exercises"]) == 2


def test_stages_come_as_chunks_where_they_are_asked_for(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="mm-orch/lesson-pack@slow", messages=LESSON, stream=True, extra_body={"workflow": {"events": True}}
    )
    events = [getattr(chunk.choices[0].delta, "workflow", None) for chunk in stream]
    names = [(event.get("stage"), event["status"]) for event in events if event]
    assert names[:2] == [("plan", "running"), ("plan", "finished")] and names[-1] == (None, "completed")
    helper = client.chat.completions.stream(model="mm-orch/lesson-pack", messages=LESSON, extra_body={"workflow": {"events": True}})
    with helper as stream:
        assert stream.get_final_completion().choices[0].finish_reason == "stop"


def test_a_conversation_is_remembered_and_seen_by_the_model(client: openai.OpenAI) -> None:
    first = ask(client, "s/1", "My name is Ann.", "mm-orch/chat-generate@qwen2")
    second = ask(client, "s/1", "What is my name?", "mm-orch/chat-generate@qwen2")
    other = ask(client, "s/2", "What is my name?", "mm-orch/chat-generate@qwen2")
    assert second.usage.prompt_tokens > first.usage.prompt_tokens + other.usage.prompt_tokens - 10
    assert second.workflow["session_id"] == "s/1"


def test_errors_are_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="mm-orch/lesson-pack", messages=LESSON, extra_body={"workflow": {"difficulty": "hard"}})
    assert caught.value.param == "workflow.difficulty"
    with pytest.raises(openai.NotFoundError, match="mock"):
        client.chat.completions.create(model="mm-orch/lesson-pack@nothing", messages=LESSON)
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="mm-orch/chat-generate@missing", messages=LESSON)
    with pytest.raises(openai.RateLimitError):
        client.chat.completions.create(model="mm-orch/chat-generate", messages=[{"role": "user", "content": "!mock error=429"}])
    with pytest.raises(openai.APIError, match="told to fail"):
        list(
            client.chat.completions.create(
                model="mm-orch/chat-generate", messages=[{"role": "user", "content": "!mock error=500 after=3"}], stream=True
            )
        )


def test_workflows_are_listed(client: openai.OpenAI) -> None:
    cards = {card.id: card for card in client.models.list()}
    details = cards["mm-orch/lesson-pack"].details  # type: ignore[attr-defined]
    assert details["input"] == "topic" and details["parameters"]["num_exercises"]["maximum"] == 20
    assert client.models.retrieve("mm-orch/chat-generate@gpt2").id == "mm-orch/chat-generate@gpt2"


def test_curl_reads_stages_as_comments(gateway: Gateway) -> None:
    body = {
        "model": "mm-orch/chat-generate@slow",
        "messages": [{"role": "user", "content": "!mock delay=1.5 tokens=1"}],
        "stream": True,
    }
    command = ["curl", "-sSN", "--max-time", "30", f"{gateway.address}/v1/chat/completions"]
    command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(": answering\n\n") and done.stdout.endswith("data: [DONE]\n\n")


def langchain(gateway: Gateway, model: str, **workflow: Any) -> ChatOpenAI:
    return ChatOpenAI(base_url=f"{gateway.address}/v1", api_key="none", model=model, extra_body={"workflow": workflow})  # type: ignore[arg-type]


def test_langchain_streams_a_lesson(gateway: Gateway) -> None:
    model = langchain(gateway, "mm-orch/lesson-pack", num_exercises=1, events=True)
    text = "".join(str(piece.content) for piece in model.stream("Fractions"))
    assert text == model.invoke("Fractions").content and text.count("**Answer:**") == 1


def test_langchain_goes_on_with_a_conversation(gateway: Gateway) -> None:
    model = langchain(gateway, "mm-orch/chat-generate", session_id="langchain")
    first, second = (model.invoke("One two three.") for _ in range(2))
    assert second.usage_metadata["input_tokens"] > first.usage_metadata["input_tokens"]  # type: ignore[index]


async def test_langchain_asks_the_documentation(gateway: Gateway) -> None:
    model = langchain(gateway, "mm-orch/search-qa", max_results=2)
    pieces = [str(piece.content) async for piece in model.astream("What does max_cached_models mean?")]
    assert len("".join(pieces).split()) > 5


@pytest.fixture
def restartable(tmp_path: Path) -> Iterator[Any]:
    running: list[Gateway] = []

    def start() -> openai.OpenAI:
        if running:
            stop_gateway(running.pop())
        models = {"mock": {"model_name": "mock", "backend": "mock"}}
        running.append(start_gateway(tmp_path, models, free_port(), XDG_DATA_HOME=str(tmp_path / "data")))
        return openai.OpenAI(base_url=f"{running[0].address}/v1", api_key="none", max_retries=0)

    yield start
    stop_gateway(running.pop())


def test_a_session_survives_a_restart(restartable: Any) -> None:
    with restartable() as client:
        short = ask(client, "../my session", "One two three.").usage.prompt_tokens
    with restartable() as client:
        reply = ask(client, "../my session", "One two three.")
    assert reply.usage.prompt_tokens > 2 * short
    assert reply.workflow["steps"][0] | {"duration_s": 0} == {
        "name": "history",
        "success": True,
        "duration_s": 0,
        "input_count": 1,
        "output_count": 1,
        "degraded": False,
        "error": None,
    }
