"""How thoughts are found in a template, handed to it, and read out of a text."""

from __future__ import annotations

import random
from typing import Any

import pytest

from mm_gateway.chat_templates.encoder import ChatEncoder
from mm_gateway.chat_templates.reasoning_formats.format import Piece, State
from mm_gateway.chat_templates.reasoning_formats.formats import REASONING_FORMATS
from mm_gateway.core import ChatInput, Message, Reasoning, Rendering
from mm_gateway.runtime.tokens.chat_tokenizer import ChatTokenizer
from tests.support import thinking_templates as templates
from tests.support.checkpoints import make_tokenizer

TOKENIZER = make_tokenizer(["<|im_start|>", "<|im_end|>", "<|start|>", "<|channel|>", "<|message|>", "<|end|>", "[THINK]", "[/THINK]"])
QUESTION = Message("user", "Which one?")


def encoder(template: str) -> ChatEncoder:
    return ChatEncoder(template, ChatTokenizer(TOKENIZER))


def prompt(template: str, *messages: Message, reasoning: Reasoning | None = None, rendering: Rendering | None = None) -> str:
    ids = encoder(template).encode(messages or [QUESTION], reasoning=reasoning or Reasoning(), rendering=rendering or Rendering())
    return str(TOKENIZER.decode(ids))


def read(name: str, pieces: list[str], state: State = "undecided", *, end: bool = True) -> tuple[str, str]:
    """What is thought and what is answered; the pieces that come out are all that went in."""
    reader = REASONING_FORMATS[name].new_reader(state)
    found: list[Piece] = [piece for text in pieces for piece in reader.feed(text)] + (reader.end() if end else [])
    if end:
        assert "".join(piece.text for piece in found) == "".join(pieces)
    thought, answer = ("".join(piece.text for piece in found if piece.part == part) for part in ("thought", "answer"))
    return thought, answer


@pytest.mark.parametrize(
    ("template", "told"),
    [
        (templates.QWEN3, {"format": "think", "controls": ["enable_thinking"], "history": True}),
        (templates.DEEPSEEK_R1, {"format": "think", "controls": [], "history": False}),
        (templates.DEEPSEEK_V3, {"format": "think", "controls": ["thinking"], "history": False}),
        (templates.MISTRAL, {"format": "mistral", "controls": [], "history": True}),
        (templates.SEED, {"format": "seed", "controls": [], "history": True}),
        (templates.COHERE, {"format": "cohere", "controls": ["reasoning"], "history": True}),
        (templates.GEMMA, {"format": "gemma", "controls": ["enable_thinking"], "history": True}),
        (templates.KIMI, {"format": "kimi", "controls": [], "history": False}),
        (templates.GLM, {"format": "think", "controls": ["enable_thinking"], "history": True}),
        (templates.MINIMAX, {"format": "think", "controls": [], "history": True}),
        (templates.GPT_OSS, {"format": "harmony", "controls": ["reasoning_effort (low, medium, high)"], "history": True}),
    ],
)
def test_a_template_shows_how_its_model_thinks(template: str, told: dict[str, object]) -> None:
    thoughts = encoder(template).thoughts
    assert thoughts is not None
    assert thoughts.told() == told


def test_a_template_without_thoughts_shows_none() -> None:
    assert encoder(templates.NO_THOUGHTS).thoughts is None
    told = ChatEncoder(templates.NO_THOUGHTS, ChatTokenizer(TOKENIZER), reasoning_format=REASONING_FORMATS["seed"]).thoughts
    assert told is not None
    assert told.format.name == "seed"


def test_efforts_become_what_the_template_knows() -> None:
    assert prompt(templates.QWEN3, reasoning=Reasoning(effort="none")).endswith("<think>\n\n</think>\n\n")
    assert prompt(templates.QWEN3, reasoning=Reasoning(effort="low")).endswith("assistant\n")
    assert prompt(templates.DEEPSEEK_V3).endswith("</think>")
    assert prompt(templates.DEEPSEEK_V3, reasoning=Reasoning(thinking_budget=100)).endswith("<think>")
    for effort, word in {"minimal": "low", "low": "low", "high": "high", "xhigh": "high", "none": "medium"}.items():
        assert f"Reasoning: {word}<" in prompt(templates.GPT_OSS, reasoning=Reasoning(effort=effort))  # type: ignore[arg-type]


def state(template: str, **reasoning: Any) -> str:
    """Where a reply begins."""
    thoughts = encoder(template).thoughts
    assert thoughts is not None
    given = ChatInput((QUESTION,), reasoning=Reasoning(**reasoning))
    return thoughts.plan(given, prompt(template, reasoning=given.reasoning), {}).state


@pytest.mark.parametrize(
    ("template", "plain", "off", "on"),
    [
        (templates.SEED, "undecided", "undecided", "undecided"),
        (templates.COHERE, "thought", "answer", "thought"),
        (templates.GEMMA, "answer", "answer", "undecided"),
        (templates.KIMI, "undecided", "undecided", "undecided"),
        (templates.GLM, "undecided", "answer", "undecided"),
        (templates.MINIMAX, "thought", "thought", "thought"),
    ],
)
def test_where_replies_begin_is_told_by_the_end_of_the_prompt(template: str, plain: str, off: str, on: str) -> None:
    assert (state(template), state(template, effort="none"), state(template, effort="high")) == (plain, off, on)


def test_a_template_that_writes_the_budget_is_told_it() -> None:
    assert "Think for 512 tokens" in prompt(templates.SEED, reasoning=Reasoning(thinking_budget=512))
    assert state(templates.SEED, thinking_budget=0) == "answer" and state(templates.SEED, thinking_budget=9) == "undecided"


@pytest.mark.parametrize(
    ("template", "written"),
    [
        (templates.SEED, "<seed:think>It was the first.</seed:think>\nThe first."),
        (templates.COHERE, "<|START_THINKING|>It was the first.<|END_THINKING|><|START_RESPONSE|>The first."),
        (templates.GEMMA, "<|channel>thought\nIt was the first.\n<channel|>The first."),
        (templates.GLM, "<think>It was the first.</think>\nThe first."),
        (templates.MINIMAX, "<think>\nIt was the first.\n</think>\n\nThe first."),
    ],
)
def test_a_thought_comes_back_as_its_model_wrote_it_and_is_read_as_one(template: str, written: str) -> None:
    told = Message("assistant", "The first.", reasoning="It was the first.")
    assert written in prompt(template, QUESTION, told, rendering=Rendering(add_generation_prompt=False))
    thoughts = encoder(template).thoughts
    assert thoughts is not None
    answer = written.split("<|START_RESPONSE|>")[-1] if "RESPONSE" in written else "The first."
    for pieces in ([written], list(written)):
        thought, rest = read(thoughts.format.name, pieces)
        assert (thought, rest.removeprefix("<|START_RESPONSE|>")) == ("It was the first.", answer)


def test_thoughts_before_the_last_question_are_kept_or_left_out_as_the_template_does() -> None:
    talk = [QUESTION, Message("assistant", "The first.", reasoning="It was the first."), QUESTION]
    for template, kept in (
        (templates.SEED, True),
        (templates.COHERE, True),
        (templates.GEMMA, False),
        (templates.KIMI, False),
        (templates.GLM, False),
        (templates.MINIMAX, False),
    ):
        assert ("It was the first." in prompt(template, *talk)) is kept


def test_variables_of_the_request_go_before_its_effort() -> None:
    rendering = Rendering(variables={"enable_thinking": False})
    assert prompt(templates.QWEN3, reasoning=Reasoning(effort="high"), rendering=rendering).endswith("</think>\n\n")


def test_a_template_reads_the_thoughts_that_it_asks_for() -> None:
    thought = Message("assistant", "The first.", reasoning="It was the first.")
    going_on = [QUESTION, thought, Message("tool", "yes", tool_call_id="1")]
    assert "<think>\nIt was the first.\n</think>\n\nThe first." in prompt(templates.QWEN3, *going_on)
    assert "It was" not in prompt(templates.QWEN3, QUESTION, thought, QUESTION)
    assert "It was" not in prompt(templates.DEEPSEEK_R1, QUESTION, thought, QUESTION)
    assert "[THINK]It was the first.[/THINK]The first." in prompt(templates.MISTRAL, QUESTION, thought, QUESTION)
    assert "It was" not in prompt(templates.NO_THOUGHTS, QUESTION, thought)
    final = prompt(templates.GPT_OSS, QUESTION, thought, rendering=Rendering(add_generation_prompt=False))
    assert "<|channel|>analysis<|message|>It was the first.<|end|>" in final


def test_control_tokens_in_a_thought_are_text() -> None:
    thought = Message("assistant", "The first.", reasoning="It was [/THINK] the first.")
    ids = encoder(templates.MISTRAL).encode([QUESTION, thought])
    assert ids.count(TOKENIZER.convert_tokens_to_ids("[/THINK]")) == 1  # type: ignore[arg-type]


def test_a_thought_can_be_left_open_to_be_gone_on_with() -> None:
    begun = Message("assistant", "", reasoning="It was")
    rendered = prompt(templates.QWEN3, QUESTION, begun, rendering=Rendering(add_generation_prompt=False, continue_final_message=True))
    assert rendered.endswith("<think>\nIt was")


@pytest.mark.parametrize(
    ("prompt", "state"), [("assistant\n<think>\n", "thought"), ("<think>\n\n</think>\n\n", "answer"), ("assistant\n", "undecided")]
)
def test_the_end_of_the_prompt_tells_where_the_reply_begins(prompt: str, state: str) -> None:
    assert REASONING_FORMATS["think"].state_after(prompt) == state


def test_thoughts_are_read_however_their_text_is_cut() -> None:
    cases = [
        ("think", "\n<think>\nOne </b> two.\n\n</think>\n\nThree.\n", "One </b> two.", "Three.\n"),
        ("think", "<thin> is no tag", "", "<thin> is no tag"),
        ("think", " \n", "", " \n"),
        ("think", "<think>cut off </thi", "cut off </thi", ""),
        ("think", "<think></think>{}", "", "{}"),
        ("mistral", "[THINK]One[/THINK] Two [THINK]", "One", "Two [THINK]"),
        ("gemma", "<|channel>thought\nOne\n<channel|>Two", "One", "Two"),
        ("harmony", "<|channel|>analysis<|message|>One <b<|end|><|start|>assistant<|channel|>final<|message|>Two", "One <b", "Two"),
        ("harmony", "<|channel|>final<|message|>Two<|return|>", "", "Two"),
        ("harmony", "no header", "", "no header"),
        (
            "harmony",
            "<|channel|>analysis<|message|>One<|end|><|start|>assistant<|channel|>commentary<|message|>Two<|end|>"
            "<|start|>assistant<|channel|>analysis<|message|> and<|end|>"
            '<|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": "<b>"}<|call|>',
            "One and",
            'Twoto=functions.f <|constrain|>json<|message|>{"a": "<b>"}<|call|>',
        ),
        (
            "harmony",
            "<|channel|>analysis<|message|>One<|end|><|start|>assistant to=functions.f<|channel|>commentary json<|message|>{}<|call|>",
            "One",
            "to=functions.f<|channel|>commentary json<|message|>{}<|call|>",
        ),
        ("harmony", " to=functions.f<|channel|>commentary json<|message|>{}", "", "to=functions.f<|channel|>commentary json<|message|>{}"),
        ("harmony", " to whom", "", " to whom"),
    ]
    generator = random.Random(3)
    for name, text, thought, answer in cases:
        assert read(name, [text]) == (thought, answer)
        assert read(name, list(text)) == (thought, answer)
        for _ in range(20):
            cuts = sorted(generator.sample(range(len(text) + 1), min(3, len(text))))
            assert read(name, [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]) == (thought, answer)


def test_what_may_close_a_thought_is_held_back_and_the_rest_is_not() -> None:
    assert read("think", ["One two </thin"], "thought", end=False) == ("One two", "")
    assert read("think", ["Two"], "answer", end=False) == ("", "Two")
    assert read("think", ["\n\n", "Two"], "between", end=False) == ("", "Two")
