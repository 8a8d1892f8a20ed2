"""Custom tools of chat: a text in place of arguments, in requests, replies, streams and conversations."""

from __future__ import annotations

import json
from typing import Any

import pytest
from litestar.testing import AsyncTestClient
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from mm_gateway.api.custom_tools import InputText, arguments_of, input_of
from mm_gateway.core import ChatInput, ChoiceFinished, Grammar, Message, ToolCall, ToolCallDelta, Usage
from tests.support.scripted_backend import ScriptedBackend, app_over

GRAMMAR = {"type": "grammar", "grammar": {"syntax": "regex", "definition": "[0-9]+"}}
TOOL = {"type": "custom", "custom": {"name": "sql", "description": "Ask.", "format": GRAMMAR}}
USER = {"role": "user", "content": "Hi"}
TEXT = 'a "b"\n\\ é 🌞 \x01'
CALLS = [
    ToolCallDelta(0, 0, id="c1", name="sql"),
    *(ToolCallDelta(0, 0, arguments=char) for char in json.dumps({"input": TEXT})),
    ToolCallDelta(0, 1, id="c2", name="f", arguments="{}"),
    ChoiceFinished(0, "tool_calls"),
    Usage(3, 9),
]


def formatted(form: dict[str, Any]) -> dict[str, Any]:
    return {"type": "custom", "custom": {"name": "a", "format": form}}


async def post(backend: ScriptedBackend, **body: Any) -> Any:
    async with AsyncTestClient(app_over(backend)) as client:
        return await client.post("/v1/chat/completions", json={"model": "scripted", "messages": [USER], "tools": [TOOL]} | body)


async def test_a_custom_tool_is_a_function_of_one_text_whose_grammar_the_backend_gets() -> None:
    backend = ScriptedBackend(CALLS)
    choice = {"type": "custom", "custom": {"name": "sql"}}
    assert (await post(backend, tool_choice=choice)).status_code == 200
    assert isinstance(backend.requests[0].input, ChatInput)
    use = backend.requests[0].input.tools
    assert use is not None and use.only == "sql"
    (tool,) = use.tools
    assert tool.input_grammar == Grammar("regex", "[0-9]+", "tools[0].custom.format.grammar.definition")
    assert tool.description.startswith("Ask.") and "[0-9]+" in tool.description
    assert tool.parameters is not None and tool.parameters["required"] == ["input"]


async def test_calls_come_back_as_texts_whole_and_streamed() -> None:
    whole = ChatCompletion.model_validate((await post(ScriptedBackend(CALLS))).json())
    assert whole.choices[0].message.tool_calls is not None
    first, second = whole.choices[0].message.tool_calls
    assert first.type == "custom" and (first.id, first.custom.name, first.custom.input) == ("c1", "sql", TEXT)
    assert second.type == "function" and second.function.arguments == "{}"
    reply = await post(ScriptedBackend(CALLS), stream=True)
    texts: list[str] = []
    for line in reply.text.split("\n\n"):
        if line.startswith("data: {"):
            if '"type":"custom"' not in line:  # which the SDK's type of a piece does not know
                ChatCompletionChunk.model_validate_json(line[6:])
            for call in json.loads(line[6:])["choices"][0]["delta"].get("tool_calls", ()) if "choices" in line else ():
                if call["index"] == 0:
                    assert "function" not in call
                    texts.append(call["custom"]["input"])
    assert "".join(texts) == TEXT and len(texts) > 5


async def test_calls_of_the_conversation_reach_the_backend() -> None:
    backend = ScriptedBackend(CALLS)
    call = {"id": "c1", "type": "custom", "custom": {"name": "sql", "input": TEXT}}
    turns = [USER, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c1", "content": "2"}]
    assert (await post(backend, messages=turns)).status_code == 200
    assert isinstance(backend.requests[0].input, ChatInput)
    assert backend.requests[0].input.messages[1] == Message("assistant", "", tool_calls=(ToolCall("c1", "sql", arguments_of(TEXT)),))


@pytest.mark.parametrize(
    ("tool", "param"),
    [
        ({"type": "custom"}, "tools[0].custom"),
        ({"type": "custom", "custom": {"name": "a b"}}, "tools[0].custom.name"),
        (formatted({"type": "xml"}), "tools[0].custom.format.type"),
        (formatted({"type": "grammar", "grammar": {"syntax": "peg", "definition": "a"}}), "tools[0].custom.format.grammar.syntax"),
        (formatted({"type": "grammar", "grammar": {"syntax": "lark"}}), "tools[0].custom.format.grammar.definition"),
    ],
)
async def test_what_is_wrong_with_one_is_named(tool: dict[str, Any], param: str) -> None:
    reply = await post(ScriptedBackend(CALLS), tools=[tool])
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize("text", ["", TEXT, "\\u0041", "x" * 1000, '{"input": "y"}'])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_the_text_is_read_at_any_size_of_pieces(text: str, ascii_only: bool) -> None:
    arguments = json.dumps({"input": text}, ensure_ascii=ascii_only)
    assert input_of(arguments) == text
    for size in (1, 2, 3, 7):
        reader = InputText()
        pieces = [reader.feed(arguments[at : at + size]) for at in range(0, len(arguments), size)]
        assert "".join(pieces) + reader.end() == text


def test_half_a_character_is_replaced() -> None:
    halves = (r"\ud83c", r"\udf1ea", r"\ud83c\n", r"\ud83c\u0041")
    assert [input_of(f'{{"input": "{half}"}}') for half in halves] == ["\ufffd", "\ufffda", "\ufffd\n", "\ufffdA"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ('{"input":', ""),
        ('{"input": "a', "a"),
        ("plain", "plain"),
        ('{"x": 1, "input": "b"}', "b"),
        ('{"x": 1}', '{"x": 1}'),
    ],
)
def test_what_there_is_of_a_call_that_was_cut_or_has_another_shape_is_told(arguments: str, text: str) -> None:
    assert input_of(arguments) == text
