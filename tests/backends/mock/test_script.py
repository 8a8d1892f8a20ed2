"""A script leads an agent through a task: the reply depends on how far the conversation is, and on nothing else."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from mm_gateway.backends.mock.backend import MockBackend
from mm_gateway.configuration.loader import load_settings
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.core import (
    ChatInput,
    ChoiceFinished,
    GenerationConfig,
    GenerationRequest,
    Grammar,
    Message,
    TextDelta,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolUse,
)
from mm_gateway.errors import ConfigurationError, InvalidRequestError

REPLIES = """
- text: I look first.
  calls: [{name: read, arguments: {path: notes.txt}}]
- calls:
    - {name: write, arguments: {path: notes.txt, content: "two words\\n"}}
    - {name: run, arguments: '{"command": broken'}
- All is done.
"""
TOOLS = (Tool("read"), Tool("write"), Tool("run"))
USE = ToolUse(TOOLS)
USER = Message("user", "Do it.")


def scripted(folder: Path, replies: str = REPLIES) -> MockBackend:
    (folder / "replies.yaml").write_text(replies)
    return MockBackend("mock", ModelConfig(model_name="mock", backend="mock", script=str(folder / "replies.yaml")), created=0)


def turn(number: int) -> tuple[Message, Message]:
    return Message("assistant", "", tool_calls=(ToolCall(f"c{number}", "read", "{}"),)), Message("tool", "ok", tool_call_id=f"c{number}")


async def replied(
    mock: MockBackend, *messages: Message, tools: ToolUse | None = USE, **config: Any
) -> tuple[str, list[tuple[str, str]], str]:
    """Text, calls and finish reason of a reply to the user's message and what follows it."""
    input = ChatInput((USER, *messages), tools)
    text, calls, reason = "", {}, ""
    async for event in mock.generate(GenerationRequest(request_id="r", model="mock", input=input, config=GenerationConfig(**config))):
        match event:
            case TextDelta():
                text += event.text
            case ToolCallDelta():
                name, arguments = calls.get(event.call, (event.name, ""))
                calls[event.call] = (name, arguments + event.arguments)
            case ChoiceFinished():
                reason = event.finish_reason
            case _:
                pass
    return text, list(calls.values()), reason


async def test_each_turn_with_calls_leads_to_the_next_reply(tmp_path: Path) -> None:
    mock = scripted(tmp_path)
    text, calls, reason = await replied(mock)
    assert (text, reason) == ("I look first.", "tool_calls")
    assert [(name, json.loads(arguments)) for name, arguments in calls] == [("read", {"path": "notes.txt"})]
    text, calls, _ = await replied(mock, *turn(1))
    assert text == "" and [name for name, _ in calls] == ["write", "run"]
    assert json.loads(calls[0][1])["content"] == "two words\n"
    assert calls[1][1] == '{"command": broken'
    for turns in (2, 3):
        assert await replied(mock, *(message for number in range(turns) for message in turn(number))) == ("All is done.", [], "stop")


async def test_a_script_may_change_while_the_mock_runs(tmp_path: Path) -> None:
    mock = scripted(tmp_path)
    (tmp_path / "replies.yaml").write_text("[Another text.]")
    assert (await replied(mock))[0] == "Another text."


async def test_the_request_goes_before_the_script(tmp_path: Path) -> None:
    mock = scripted(tmp_path)
    assert (await replied(mock, tools=None))[1] == []
    assert [name for name, _ in (await replied(mock, tools=ToolUse(TOOLS, required=True, only="run")))[1]] == ["run"]
    done = [message for number in range(2) for message in turn(number)]
    assert len((await replied(mock, *done, tools=ToolUse(TOOLS, required=True)))[1]) == 1
    assert len((await replied(mock, *turn(1), tools=ToolUse(TOOLS, parallel=False)))[1]) == 1
    assert (await replied(mock, tools=None, grammar=Grammar("choice", '["yes"]')))[0] == "yes"
    assert (await replied(mock, Message("user", "!mock tokens=3")))[1] == []


async def test_limits_and_stops_hold_for_a_script(tmp_path: Path) -> None:
    mock = scripted(tmp_path)
    assert await replied(mock, stop=(" first",)) == ("I look", [], "stop")
    text, calls, reason = await replied(mock, max_new_tokens=3)
    assert (text, calls, reason) == ("I look first.", [], "length")
    assert (await replied(mock, tools=None, max_new_tokens=2))[2] == "length"


async def test_a_call_of_a_tool_that_the_request_does_not_have_is_refused_and_says_which_it_has(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"calls read: .* only other"):
        await replied(scripted(tmp_path), tools=ToolUse((Tool("other"),)))


@pytest.mark.parametrize("replies", ["", "[]", "{text: a}", "- {text: a, call: b}", "- {calls: [{}]}", "- [", "- 5"])
def test_a_file_that_is_no_script_is_an_error_at_start(tmp_path: Path, replies: str) -> None:
    with pytest.raises(ConfigurationError, match="script"):
        scripted(tmp_path, replies)


async def test_a_pipe_in_place_of_a_script_is_refused_and_nobody_waits_for_it(tmp_path: Path) -> None:
    mock = scripted(tmp_path)
    (tmp_path / "replies.yaml").unlink()
    os.mkfifo(tmp_path / "replies.yaml")
    async with asyncio.timeout(15):
        with pytest.raises(ConfigurationError, match=r"replies.yaml is no file; a folder, a pipe or a device is not read"):
            await replied(mock)


def test_a_script_is_found_from_the_folder_of_models_yaml_and_only_a_mock_has_one(tmp_path: Path) -> None:
    models, config = tmp_path / "models.yaml", tmp_path / "gateway.yaml"
    config.write_text("")
    models.write_text("models: {m: {model_name: m, backend: mock, script: replies.yaml}}")
    assert load_settings(models, config, {}).models["m"].script == str(tmp_path / "replies.yaml")
    models.write_text("models: {m: {model_name: m, script: replies.yaml}}")
    with pytest.raises(ConfigurationError, match="script: is only allowed with backend: mock"):
        load_settings(models, config, {})
