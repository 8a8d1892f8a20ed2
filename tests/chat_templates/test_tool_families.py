"""Templates of the families: the format is found in them, histories are written as they want them, and calls can be written and read."""

from __future__ import annotations

import llguidance
import llguidance.hf
import pytest
from transformers import PreTrainedTokenizerFast

from mm_gateway.chat_templates.encoder import ChatEncoder
from mm_gateway.chat_templates.tool_formats.formats import TOOL_FORMATS
from mm_gateway.core import Message, ToolCall, ToolUse
from mm_gateway.errors import UnsupportedParameterError
from mm_gateway.runtime.tokens.chat_tokenizer import ChatTokenizer
from tests.chat_templates.written_calls import ARGUMENTS, CALL, CLOCK, WEATHER, read, two, wrong
from tests.support import checkpoints
from tests.support.tool_templates import FAMILIES

HISTORY = [
    Message("user", "Weather and time?"),
    Message(
        "assistant",
        "",
        tool_calls=(ToolCall("call_1", "get_weather", '{"city": "Bad \\"Ems\\" {x}]", "days": 3}'), ToolCall("call_2", "clock", "{}")),
    ),
    Message("tool", "sunny", tool_call_id="call_1"),
    Message("tool", "noon", tool_call_id="call_2"),
]


def tokenizer_of(marks: tuple[str, ...]) -> PreTrainedTokenizerFast:
    return checkpoints.make_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>", *marks], eos_token="<|im_end|>")


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> tuple[str, ChatEncoder, PreTrainedTokenizerFast]:
    found = FAMILIES[request.param]
    tokenizer = tokenizer_of(found.marks)
    return found.form, ChatEncoder(found.template, ChatTokenizer(tokenizer)), tokenizer


def test_the_format_is_found_in_the_template(family: tuple[str, ChatEncoder, PreTrainedTokenizerFast]) -> None:
    form, encoder, tokenizer = family
    assert encoder.tool_format is TOOL_FORMATS[form]
    assert all(mark in CALL[form] and mark in ChatTokenizer(tokenizer).control_tokens for mark in encoder.tool_marks)


def test_a_history_is_written_as_the_model_writes_it(family: tuple[str, ChatEncoder, PreTrainedTokenizerFast]) -> None:
    form, encoder, tokenizer = family
    rendered = encoder.render(HISTORY, (WEATHER, CLOCK))
    turn = rendered.split("<|im_start|>assistant\n")[1].split("<|im_end|>")[0]
    answer, calls = read(encoder.tool_format.parser("", (WEATHER, CLOCK)), turn)
    if form != "llama":  # the template writes one call, as those of Llama do
        assert (answer, calls) == ("", [("get_weather", ARGUMENTS), ("clock", "{}")])
    assert tokenizer.decode(encoder.encode(HISTORY, (WEATHER, CLOCK))) == rendered


def test_calls_are_written_with_the_tokens_of_the_vocabulary(family: tuple[str, ChatEncoder, PreTrainedTokenizerFast]) -> None:
    form, encoder, tokenizer = family
    guidance = llguidance.hf.from_tokenizer(tokenizer, n_vocab=len(tokenizer), eos_token=[2])
    for use in (ToolUse((WEATHER, CLOCK), required=True), ToolUse((WEATHER, CLOCK))):
        matcher = llguidance.LLMatcher(guidance, encoder.tool_format.grammar(use, None, encoder.spelled), log_level=0)
        assert not matcher.is_error(), matcher.get_error()

        def accepts(text: str, matcher: llguidance.LLMatcher = matcher) -> bool:
            ids = tokenizer.encode(text, add_special_tokens=False)
            copy = matcher.deep_copy()
            return copy.try_consume_tokens(ids) == len(ids) and copy.is_accepting()

        assert accepts(CALL[form])
        assert accepts(two(form))
        assert not any(accepts(text) for text in wrong(form))
        assert accepts("Sunny.") is not use.required
        assert accepts("Let me see. " + CALL[form]) is not use.required


def test_a_template_with_calls_of_another_kind_is_refused_with_tools() -> None:
    template = (
        "{{ tools }}{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}@{{ c.function.name }}{% endfor %}{% endfor %}"
    )
    other = ChatEncoder(template, ChatTokenizer(tokenizer_of(())))
    with pytest.raises(UnsupportedParameterError, match="tool_format"):
        other.encode([Message("user", "Hi")], (CLOCK,))
    assert other.encode([Message("user", "Hi")])


def test_a_template_without_tools_gets_hermes() -> None:
    assert ChatEncoder("{{ messages }}", ChatTokenizer(tokenizer_of(()))).tool_format is TOOL_FORMATS["hermes"]


def test_ids_of_calls_fit_the_template() -> None:
    kimi, mistral = TOOL_FORMATS["kimi"], TOOL_FORMATS["mistral"]
    assert kimi.written_id("call_abc", "clock", 3) == "functions.clock:3"
    assert mistral.written_id("abcdefghi", "clock", 0) == "abcdefghi"
    made = mistral.written_id("call_abc", "clock", 0)
    assert len(made) == 9 and made.isalnum() and made == mistral.written_id("call_abc", "clock", 5)
