"""Thoughts in `/v1/responses`: items that come back, in words or encrypted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from mm_gateway.api.responses.sealed_texts import SealedTexts
from mm_gateway.configuration.settings import StorageSettings
from mm_gateway.core import ChatInput, ChoiceFinished, GenerationEvent, Message, Reasoning, ReasoningDelta, TextDelta, Usage
from mm_gateway.errors import InvalidRequestError
from tests.support.scripted_backend import ScriptedBackend, app_over

THOUGHT: list[GenerationEvent] = [
    ReasoningDelta(0, "It was"),
    ReasoningDelta(0, " it."),
    TextDelta(0, "It."),
    ChoiceFinished(0, "stop"),
    Usage(3, 5, reasoning_tokens=4),
]
USER = {"role": "user", "content": "Which one?"}
CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "2"}


@pytest.fixture
async def asking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    backend = ScriptedBackend(THOUGHT)
    async with AsyncTestClient(app_over(backend)) as client:

        async def ask(**fields: Any) -> Any:
            return await client.post("/v1/responses", json={"model": "scripted", "input": [USER], "store": False} | fields)

        yield ask, backend


def messages(backend: ScriptedBackend) -> tuple[Message, ...]:
    assert isinstance(backend.requests[-1].input, ChatInput)
    return backend.requests[-1].input.messages


async def test_a_thought_is_an_item_before_the_message(asking: Any) -> None:
    reply = (await asking[0]()).json()
    thought, message = reply["output"]
    assert thought["content"] == [{"type": "reasoning_text", "text": "It was it."}]
    assert (thought["summary"], thought["encrypted_content"], message["content"][0]["text"]) == ([], None, "It.")
    assert reply["usage"]["output_tokens_details"]["reasoning_tokens"] == 4


async def test_the_effort_reaches_the_model_and_is_echoed(asking: Any) -> None:
    ask, backend = asking
    reply = (await ask(reasoning={"effort": "low", "summary": "auto"}, thinking_budget=9)).json()
    assert backend.requests[0].input.reasoning == Reasoning(effort="low", thinking_budget=9, param="reasoning.effort")
    assert reply["reasoning"]["effort"] == "low"


async def test_items_that_come_back_are_thoughts_of_the_turn_that_they_precede(asking: Any) -> None:
    ask, backend = asking
    thought = (await ask()).json()["output"][0]
    assert (await ask(input=[USER, thought, CALL, RESULT])).status_code == 200
    assert [message.reasoning for message in messages(backend)] == [None, "It was it.", None]
    answer = {"role": "assistant", "content": "It."}
    assert (await ask(input=[USER, thought, answer, USER])).status_code == 200
    assert messages(backend)[1] == Message("assistant", "It.", reasoning="It was it.")
    assert (await ask(input=[USER, {"type": "reasoning", "summary": []}, USER, answer])).status_code == 200
    assert messages(backend)[2] == Message("assistant", "It.")


async def test_a_stored_response_is_continued_with_its_thought(asking: Any) -> None:
    ask, backend = asking
    first = (await ask(store=True)).json()
    assert (await ask(previous_response_id=first["id"])).status_code == 200
    assert messages(backend)[1] == Message("assistant", "It.", reasoning="It was it.")


async def test_a_client_that_stores_nothing_brings_the_thought_back_encrypted(asking: Any) -> None:
    pytest.importorskip("cryptography")
    ask, backend = asking
    thought, message = (await ask(include=["reasoning.encrypted_content"])).json()["output"]
    assert "it." not in thought["encrypted_content"]
    back = {"type": "reasoning", "id": thought["id"], "summary": [], "encrypted_content": thought["encrypted_content"]}
    assert (await ask(input=[USER, back, message, USER])).status_code == 200
    assert messages(backend)[1] == Message("assistant", "It.", reasoning="It was it.")
    for damaged in ("B" + back["encrypted_content"][1:], back["encrypted_content"][:-8], "gAAAAB", "", "é"):
        reply = await ask(input=[USER, back | {"encrypted_content": damaged}, message, USER])
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "input[1].encrypted_content")
        assert reply.json()["error"]["code"] == "invalid_encrypted_content"


async def test_encrypted_thoughts_are_those_of_their_owner_and_installation(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    here, again, elsewhere = (SealedTexts(StorageSettings(folder=str(tmp_path / name))) for name in ("a", "a", "b"))
    for sealed in (here, again, elsewhere):
        await sealed.ready()
    secret = here.seal("ann", "Hm \ud800", of="reasoning")
    assert again.open("ann", secret, param="p", of="reasoning") == "Hm \ud800"
    assert here.seal("ann", "Hm", of="reasoning") != here.seal("ann", "Hm", of="reasoning")
    for sealed, owner in ((here, "bob"), (elsewhere, "ann")):
        with pytest.raises(InvalidRequestError):
            sealed.open(owner, secret, param="p", of="reasoning")
    with pytest.raises(InvalidRequestError):
        here.open("ann", secret, param="p", of="compaction")
