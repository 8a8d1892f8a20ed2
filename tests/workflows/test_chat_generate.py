"""chat-generate: what the model sees, and what is kept."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mm_gateway.core import (
    ChatInput,
    ChoiceFinished,
    GenerationConfig,
    GenerationEvent,
    GenerationRequest,
    Message,
    Role,
    TextDelta,
    Usage,
    WorkflowOutcome,
)
from mm_gateway.errors import EngineError, InvalidRequestError
from mm_gateway.runtime.conversation import ConversationManager
from mm_gateway.workflows.backend import WorkflowBackend
from mm_gateway.workflows.chat_generate import ChatGenerateWorkflow
from tests.support.scripted_backend import ScriptedBackend

ANSWER = [TextDelta(0, "Hi"), ChoiceFinished(0, "stop"), Usage(5, 1)]


class Chat:
    """The workflow over a script; `seen` is the conversation of the model's last request."""

    def __init__(self, conversations: ConversationManager | None = None) -> None:
        self.model = ScriptedBackend(ANSWER)
        self.backend = WorkflowBackend("mm-orch/chat-generate", ChatGenerateWorkflow(None, conversations), self.model, created=0)

    async def ask(self, *texts: str, session: str | None = None, system: str | None = None, **changes: Any) -> list[GenerationEvent]:
        roles: list[Role] = ["user" if (len(texts) - index) % 2 else "assistant" for index in range(len(texts))]
        head = [Message(role="system", content=system)] if system else []
        messages = (*head, *(Message(role=role, content=text) for role, text in zip(roles, texts, strict=True)))
        metadata = {"session_id": session} if session is not None else {}
        request = GenerationRequest(request_id="r", model="chat", input=ChatInput(messages), metadata=metadata, **changes)
        return [event async for event in self.backend.generate(request)]

    @property
    def seen(self) -> list[str]:
        conversation = self.model.requests[-1].input
        assert isinstance(conversation, ChatInput)
        return [message.content for message in conversation.messages]


async def test_the_model_sees_what_was_said_in_the_session() -> None:
    chat = Chat()
    await chat.ask("one", session="s", system="Be brief.")
    events = await chat.ask("two", session="s", system="Be brief.")
    assert chat.seen == ["Be brief.", "one", "Hi", "two"]
    outcome = next(event for event in events if isinstance(event, WorkflowOutcome))
    assert [step.name for step in outcome.steps] == ["history", "context", "generate", "store"]
    assert outcome.metadata == {"session_id": "s"}
    await chat.ask("three", session="another")
    assert chat.seen == ["three"]
    await chat.ask("three", session="s", principal="somebody else")
    assert chat.seen == ["three"]


async def test_without_a_session_the_requests_own_messages_are_the_history_and_nothing_is_kept() -> None:
    chat = Chat()
    events = await chat.ask("one", "Hello", "two", workflow={"max_history": 10})
    assert chat.seen == ["one", "Hello", "two"]
    assert "store" not in [step.name for event in events if isinstance(event, WorkflowOutcome) for step in event.steps]
    await chat.ask("three")
    assert chat.seen == ["three"]


async def test_max_history_counts_turns_and_the_system_prompt_is_not_one() -> None:
    chat = Chat()
    for number in range(4):
        await chat.ask(str(number), session="s")
    await chat.ask("4", session="s", workflow={"max_history": 2, "system_prompt": "Be brief."})
    assert chat.seen == ["Be brief.", "2", "Hi", "3", "Hi", "4"]
    await chat.ask("5", session="s", workflow={"max_history": 0})
    assert chat.seen == ["5"]


async def test_temperature_comes_from_the_request_else_the_parameter_else_the_default() -> None:
    chat = Chat()
    await chat.ask("a")
    await chat.ask("a", workflow={"temperature": 0.2})
    await chat.ask("a", workflow={"temperature": 0.2}, config=GenerationConfig(temperature=0.0))
    assert [request.config.temperature for request in chat.model.requests] == [0.7, 0.2, 0.0]


async def test_a_turn_that_fails_or_is_cancelled_is_not_kept() -> None:
    chat = Chat()
    chat.model.script = [TextDelta(0, "H"), EngineError("broken")]
    with pytest.raises(EngineError):
        await chat.ask("one", session="s")
    chat.model.script = [TextDelta(0, "H"), 60.0]
    task = asyncio.create_task(chat.ask("two", session="s"))
    while len(chat.model.requests) < 2:  # noqa: ASYNC110 - the scripted backend keeps its requests in a list
        await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait([task])
    chat.model.script = ANSWER
    await chat.ask("three", session="s")
    assert chat.seen == ["three"]
    await chat.ask("four", session="s")
    assert chat.seen == ["three", "Hi", "four"]


async def test_two_requests_at_once_both_end_up_in_the_session() -> None:
    chat = Chat()
    chat.model.script = [0.01, *ANSWER]
    await asyncio.gather(chat.ask("one", session="s"), chat.ask("two", session="s"))
    await chat.ask("three", session="s")
    assert chat.seen == ["one", "Hi", "two", "Hi", "three"]


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"session": ""}, "metadata.session_id"),
        ({"session": "x" * 257}, "metadata.session_id"),
        ({"session": "a", "workflow": {"session_id": "b"}}, "workflow.session_id"),
        ({"system": "a", "workflow": {"system_prompt": "b"}}, "workflow.system_prompt"),
        ({"workflow": {"max_history": -1}}, "workflow.max_history"),
    ],
)
async def test_what_is_wrong_is_named(asked: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await Chat().ask("a", **asked)
    assert caught.value.param == param


def test_execute_remembers_a_session_in_the_given_manager() -> None:
    conversations = ConversationManager(model_type="gpt2")
    first = ChatGenerateWorkflow(conversation_manager=conversations).execute({"message": "你好！", "session_id": "my-session"})
    assert first.status == "success" and isinstance(first.result, str)
    second = ChatGenerateWorkflow(conversation_manager=conversations).execute({"message": "And?", "session_id": "my-session"})
    assert second.metadata["steps"][0]["output_count"] == 1
