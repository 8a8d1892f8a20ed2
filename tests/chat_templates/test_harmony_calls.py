"""Calls in harmony's channels: found in the template, written and read with its control tokens."""

from __future__ import annotations

import llguidance
import llguidance.hf
import pytest

from mm_gateway.chat_templates.encoder import ChatEncoder
from mm_gateway.chat_templates.tool_formats.format import json_rule
from mm_gateway.chat_templates.tool_formats.formats import TOOL_FORMATS
from mm_gateway.core import Message, ToolCall, ToolUse
from mm_gateway.runtime.tokens.chat_tokenizer import ChatTokenizer
from tests.chat_templates.written_calls import ARGUMENTS, CALL, CLOCK, WEATHER, read, reader, wrong
from tests.support import checkpoints
from tests.support.thinking_checkpoint import HARMONY
from tests.support.thinking_templates import GPT_OSS

TOKENIZER = checkpoints.make_tokenizer(["<|endoftext|>", *HARMONY], eos_token="<|return|>")
EOS = TOKENIZER.convert_tokens_to_ids("<|return|>")
GUIDANCE = llguidance.hf.from_tokenizer(TOKENIZER, n_vocab=len(TOKENIZER), eos_token=[EOS])  # type: ignore[list-item]
ENCODER = ChatEncoder(GPT_OSS, ChatTokenizer(TOKENIZER))
FINAL, SAID = "<|channel|>final<|message|>", "<|channel|>commentary<|message|>Let me see.<|end|><|start|>assistant"
USE = ToolUse((WEATHER, CLOCK))


def accepts(use: ToolUse, text: str, answer: str | None = None) -> bool:
    matcher = llguidance.LLMatcher(GUIDANCE, ENCODER.tool_format.grammar(use, answer, ENCODER.spelled), log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    ids = TOKENIZER.encode(text, add_special_tokens=False)
    return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()


def test_the_format_is_found_in_the_template() -> None:
    assert ENCODER.tool_format is TOOL_FORMATS["harmony"]
    assert set(ENCODER.tool_marks) == set(HARMONY) - {"<|return|>"}


def test_calls_are_written_with_the_control_tokens() -> None:
    call = CALL["harmony"]
    for text in (call, call.removesuffix("<|call|>")):
        assert accepts(USE, text) and accepts(ToolUse((WEATHER, CLOCK), required=True), text)
    assert accepts(USE, SAID + call) and accepts(USE, f"{FINAL}It is <b>sunny</b>.\nYes.") and accepts(USE, FINAL)
    assert not any(accepts(USE, text) for text in (*wrong("harmony"), "It is sunny.", SAID, f"{SAID}{FINAL}Sunny.", call + call))
    required = ToolUse((WEATHER, CLOCK), required=True, only="clock")
    assert not accepts(required, call) and not accepts(required, f"{FINAL}Sunny.")
    assert accepts(required, "<|channel|>commentary to=functions.clock <|constrain|>json<|message|>{}<|call|>")
    answer = json_rule({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})
    assert accepts(USE, FINAL + '{"a":1}', answer) and accepts(USE, call, answer) and not accepts(USE, FINAL + "Sunny.", answer)


@pytest.mark.parametrize(
    "text",
    [
        CALL["harmony"],
        f"<|start|>assistant to=functions.get_weather<|channel|>commentary json<|message|>{ARGUMENTS}<|call|>",
        f" to=functions.get_weather<|channel|>commentary <|constrain|>json<|message|>{ARGUMENTS}",
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
        f"<|channel|>analysis to=functions.get_weather code<|message|>{ARGUMENTS}",
    ],
)
def test_calls_are_read_wherever_the_recipient_stands(text: str) -> None:
    assert read(reader("harmony"), text) == ("", [("get_weather", ARGUMENTS)])
    assert read(reader("harmony"), text, [len(text)]) == ("", [("get_weather", ARGUMENTS)])


def test_a_history_is_written_as_the_model_writes_it() -> None:
    talk = [
        Message("user", "Weather?"),
        Message("assistant", "", tool_calls=(ToolCall("c1", "get_weather", ARGUMENTS),), reasoning="I need it."),
        Message("tool", "sunny", tool_call_id="c1"),
    ]
    rendered = ENCODER.render(talk, (WEATHER, CLOCK))
    turn = rendered.split("Weather?<|end|><|start|>assistant")[1].split("<|start|>functions")[0]
    assert turn.startswith("<|channel|>analysis<|message|>I need it.<|end|>")
    assert read(reader("harmony"), turn) == ("", [("get_weather", ARGUMENTS)])
    assert '<|start|>functions.get_weather to=assistant<|channel|>commentary<|message|>"sunny"<|end|>' in rendered
    assert TOKENIZER.decode(ENCODER.encode(talk, (WEATHER, CLOCK))) == rendered


def test_a_call_is_written_with_its_thought_and_what_was_said_before_it() -> None:
    said = Message("assistant", "Let me see.", tool_calls=(ToolCall("c1", "clock", "{}"),), reasoning="I need it.")
    rendered = ENCODER.render([Message("user", "Time?"), said, Message("tool", "noon", tool_call_id="c1")], (CLOCK,))
    assert "<|channel|>analysis<|message|>I need it.\n\nLet me see.<|end|><|start|>assistant to=functions.clock" in rendered


def test_of_a_message_with_several_calls_each_gets_a_message_with_its_result() -> None:
    calls = (ToolCall("c1", "get_weather", ARGUMENTS), ToolCall("c2", "clock", "{}"))
    results = (Message("tool", "noon", tool_call_id="c2"), Message("tool", "sunny", tool_call_id="c1"))
    rendered = ENCODER.render([Message("user", "Both?"), Message("assistant", "", tool_calls=calls, reasoning="Hm."), *results], (CLOCK,))
    order = ["Hm.", "to=functions.get_weather", '"sunny"', "to=functions.clock", '"noon"']
    assert sorted(order, key=rendered.index) == order and all(rendered.count(part) == 1 for part in order)
