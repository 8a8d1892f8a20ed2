"""Engines of models that think, with random weights: what is a thought, when it is closed, and where grammars and tools begin."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mm_gateway.backends.engine_backend import generate
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import (
    ChatInput,
    ChoiceFinished,
    GenerationConfig,
    GenerationRequest,
    Grammar,
    Ignored,
    Message,
    Reasoning,
    ReasoningDelta,
    Rendering,
    TextDelta,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolUse,
    Usage,
)
from mm_gateway.runtime.inference_engine import InferenceEngine
from mm_gateway.runtime.model_loader import ModelLoader
from tests.support import thinking_templates as templates
from tests.support.checkpoints import token_id
from tests.support.thinking_checkpoint import HARMONY, thinking

TEMPLATES = {
    "qwen3": templates.QWEN3,
    "deepseek-r1": templates.DEEPSEEK_R1,
    "mistral": templates.MISTRAL,
    "gpt-oss": templates.GPT_OSS,
    "seed": templates.SEED,
    "cohere": templates.COHERE,
    "gemma": templates.GEMMA,
    "none": templates.NO_THOUGHTS,
}
DIGITS = Grammar("regex", "[0-9]{3}", "structured_outputs.regex")
TOOLS = ToolUse(
    (Tool("clock", "The time.", {"type": "object", "properties": {}, "additionalProperties": False}),), required=True, parallel=False
)


@dataclass
class Model:
    engine: InferenceEngine
    chat: Any

    def token(self, name: str) -> int:
        return token_id(self.engine.tokenizer, name)


@dataclass
class Told:
    """One choice."""

    thought: str = ""
    answer: str = ""
    call: str = ""
    ids: list[int] = field(default_factory=list[int])
    thought_ids: list[int] = field(default_factory=list[int])
    logprobs: int = 0
    reason: str = ""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Model]]:
    found: dict[str, Model] = {}
    for name, template in TEMPLATES.items():
        words = () if name == "deepseek-r1" else ("<think>", "</think>")
        folder: Path = thinking(tmp_path_factory.mktemp(name), template, words=words)
        loaded = ModelLoader().load(ModelConfig(model_name=str(folder), device="cpu", dtype="fp32"))
        found[name] = Model(InferenceEngine.for_loaded_model(loaded, EngineSettings(max_running=16)), loaded.chat)
    yield found
    for model in found.values():
        model.engine.close()


def ask(
    model: Model,
    *,
    reasoning: Reasoning | None = None,
    tools: ToolUse | None = None,
    messages: tuple[Message, ...] = (Message("user", "Which one?"),),
    rendering: Rendering | None = None,
    **config: Any,
) -> tuple[list[Told], Usage, list[str]]:
    """The choices, the usage, and what was ignored."""
    values: dict[str, Any] = {"max_new_tokens": 60, "seed": 7, "return_token_ids": True} | config
    conversation = ChatInput(messages, tools, rendering or Rendering(), reasoning=reasoning or Reasoning())
    request = GenerationRequest(request_id="1", model="m", input=conversation, config=GenerationConfig(**values))

    async def read() -> tuple[list[Told], Usage, list[str]]:
        told = [Told() for _ in range(request.config.n)]
        ignored: list[str] = []
        async for event in generate(model.engine, model.chat, request, truncate_history=False):
            match event:
                case ReasoningDelta(index=index, text=text, token_ids=ids):
                    assert not told[index].answer
                    told[index].thought += text
                    told[index].thought_ids += ids
                    told[index].ids += ids
                case TextDelta(index=index, text=text, token_ids=ids, logprobs=logprobs):
                    told[index].answer += text
                    told[index].ids += ids
                    told[index].logprobs += len(logprobs)
                case ToolCallDelta(index=index, name=name, arguments=arguments):
                    told[index].call += f"{name or ''}{arguments}"
                case ChoiceFinished(index=index, finish_reason=reason):
                    told[index].reason = reason
                case Ignored(fields=fields):
                    ignored += fields
                case Usage():
                    return told, event, ignored
                case _:
                    pass
        raise AssertionError("no usage")

    return asyncio.run(read())


def bias(model: Model, **biases: float) -> dict[int, float]:
    names = {"think": "<think>", "close": "</think>", "end": "<|im_end|>", "THINK": "[THINK]", "CLOSE": "[/THINK]"}
    return {model.token(names[name]): value for name, value in biases.items()}


def test_a_thought_that_the_model_opens_is_no_part_of_the_answer(models: dict[str, Model]) -> None:
    model = models["qwen3"]
    free, usage, _ = ask(model)
    assert (free[0].thought, usage.reasoning_tokens) == ("", 0)
    told, usage, _ = ask(model, logit_bias=bias(model, think=100.0))
    assert (told[0].answer, told[0].reason, usage.completion_tokens) == ("", "length", 60)
    assert told[0].thought == "<think>" * 59 and usage.reasoning_tokens == 60


def test_a_thought_that_the_template_opens_is_read_from_the_first_token_on(models: dict[str, Model]) -> None:
    told, usage, _ = ask(models["deepseek-r1"])
    assert told[0].thought and not told[0].answer and usage.reasoning_tokens == usage.completion_tokens == 60


def test_the_answer_begins_behind_the_thought(models: dict[str, Model]) -> None:
    model = models["mistral"]
    start, close = model.token("[THINK]"), model.token("[/THINK]")
    # Both are as probable as all else together, so that in 40 choices most thoughts are opened and closed.
    told, usage, _ = ask(model, n=40, logit_bias={start: 9.0, close: 9.0}, max_new_tokens=30)
    thinking = [choice for choice in told if choice.ids[:1] == [start]]
    assert len(thinking) > 3
    for choice in thinking:
        if close in choice.ids:
            text = str(model.engine.tokenizer.decode(choice.ids[1 : choice.ids.index(close)], skip_special_tokens=True))
            assert text.strip() == choice.thought
        else:
            assert choice.answer == ""
    assert any(choice.answer for choice in thinking)
    assert all(choice.thought == "" for choice in told if start not in choice.ids)
    assert 0 < usage.reasoning_tokens <= usage.completion_tokens == sum(len(choice.ids) for choice in told)


@pytest.mark.parametrize("name", ["qwen3", "deepseek-r1", "mistral", "gpt-oss", "cohere"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_budget_closes_the_thought_and_changes_nothing_before(models: dict[str, Model], name: str, temperature: float) -> None:
    model = models[name]
    form = model.chat.thoughts.format
    opening, closing, forced = (model.engine.encode(text, add_special_tokens=False) for text in (form.opening, form.closing, form.forced))
    prefix = {"messages": (Message("user", "Which one?"), Message("assistant", "", reasoning="It")), "n": 3, "temperature": temperature}
    if name == "deepseek-r1":  # opens the thought itself
        prefix["messages"] = (Message("user", "Which one?"),)
        rendering = Rendering()
    else:
        rendering = Rendering(add_generation_prompt=False, continue_final_message=True)
    marks = [model.token(mark) for mark in HARMONY] if name == "gpt-oss" else [*opening, *closing]
    never = {token: -100.0 for token in (*marks, 2)} if name != "deepseek-r1" else {}
    free, _, _ = ask(model, rendering=rendering, logit_bias=never, **prefix)
    for budget in (0, 1, 9):
        told, usage, _ = ask(model, rendering=rendering, logit_bias=never, reasoning=Reasoning(thinking_budget=budget), **prefix)
        for choice, without in zip(told, free, strict=True):
            assert choice.ids[:budget] == without.ids[:budget]
            assert choice.ids[budget : budget + len(forced)] == forced
            assert without.thought.startswith(choice.thought)
            assert choice.answer
        assert usage.reasoning_tokens >= 3 * (budget + len(forced))


@pytest.mark.parametrize("name", ["seed", "gemma"])
def test_a_budget_that_the_template_is_told_of_is_held_too(models: dict[str, Model], name: str) -> None:
    model = models[name]
    form = model.chat.thoughts.format
    opening, closing, forced = (model.engine.encode(text, add_special_tokens=False) for text in (form.opening, form.closing, form.forced))
    never = {token: -100.0 for token in (*opening, *closing, 2)}
    talk = (Message("user", "Which one?"), Message("assistant", "", reasoning="It"))
    rendering = Rendering(add_generation_prompt=False, continue_final_message=True)
    for budget in (1, 9):
        told, _, _ = ask(
            model, messages=talk, rendering=rendering, logit_bias=never, reasoning=Reasoning(thinking_budget=budget), n=3, grammar=DIGITS
        )
        for choice in told:
            assert choice.ids[budget : budget + len(forced)] == forced and not set(choice.ids[:budget]) & set(closing)
            assert choice.thought and re.fullmatch("[0-9]{3}", choice.answer)


@pytest.mark.parametrize("name", ["qwen3", "deepseek-r1", "mistral", "gpt-oss"])
@pytest.mark.parametrize("tools", [None, TOOLS])
def test_grammars_and_calls_begin_behind_the_thought(models: dict[str, Model], name: str, tools: ToolUse | None) -> None:
    model = models[name]
    form = model.chat.thoughts.format
    opens = {model.engine.encode(form.opening, add_special_tokens=False)[0]: 20.0} if name != "deepseek-r1" else {}
    grammar = DIGITS if tools is None else None
    for budget in (0, 5, 12):
        told, usage, _ = ask(
            model, tools=tools, grammar=grammar, reasoning=Reasoning(thinking_budget=budget), n=4, logit_bias=opens, max_new_tokens=120
        )
        for choice in told:
            assert choice.reason in ("stop", "tool_calls")
            if tools is None:
                assert re.fullmatch("[0-9]{3}", choice.answer)
            else:
                assert choice.call.startswith("clock") and json.loads(choice.call.removeprefix("clock")) == {}
            opened = name != "gpt-oss" or bool(choice.thought)  # the headers of thoughts and calls begin alike
            assert len(choice.thought_ids) > budget or not budget or not opened
        assert (usage.reasoning_tokens > 0) == (budget > 0 or name in ("deepseek-r1", "gpt-oss"))


@pytest.mark.parametrize("name", ["qwen3", "deepseek-r1", "mistral", "gpt-oss", "cohere"])
def test_an_answer_beside_tools_is_the_json_that_was_asked_for_or_a_call_whatever_was_thought(models: dict[str, Model], name: str) -> None:
    model = models[name]
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
    answer = Grammar("json_schema", json.dumps(schema), "response_format.json_schema.schema")
    opening = model.engine.encode(model.chat.thoughts.format.opening, add_special_tokens=False)[0]
    ended = 0
    for budget in (0, 1, 5):
        opens = {opening: 8.0} if budget else {}
        given = Reasoning(thinking_budget=budget)
        use = ToolUse(TOOLS.tools, parallel=False)
        told, _, _ = ask(model, tools=use, grammar=answer, reasoning=given, n=5, logit_bias=opens, max_new_tokens=150, stop=("<", "k"))
        for choice in told:
            assert not (choice.answer and choice.call)
            if choice.reason == "tool_calls":
                assert choice.call == "clock{}"
            elif choice.reason == "stop" and choice.answer:
                assert json.loads(choice.answer).keys() == {"a"}
            ended += choice.reason != "length"
    assert ended


@pytest.mark.parametrize("name", ["qwen3", "mistral", "gpt-oss"])
def test_a_call_that_is_cut_behind_a_thought_is_no_text(models: dict[str, Model], name: str) -> None:
    for limit in (1, 2, 3, 5, 8, 13, 21):
        told, _, _ = ask(models[name], tools=TOOLS, reasoning=Reasoning(thinking_budget=2), n=3, max_new_tokens=limit)
        assert all(len(choice.ids) <= limit and not choice.answer for choice in told)


def test_a_model_under_a_grammar_need_not_think(models: dict[str, Model]) -> None:
    model = models["qwen3"]
    told, usage, _ = ask(model, grammar=DIGITS, n=4, logit_bias=bias(model, think=-100.0))
    assert all(re.fullmatch("[0-9]{3}", choice.answer) and not choice.thought for choice in told)
    assert usage.reasoning_tokens == 0


def test_nothing_but_its_closing_ends_a_thought_that_a_grammar_waits_for(models: dict[str, Model]) -> None:
    model = models["deepseek-r1"]
    told, _, _ = ask(model, grammar=DIGITS, logit_bias={2: 100.0}, reasoning=Reasoning(thinking_budget=5))
    assert re.fullmatch("[0-9]{3}", told[0].answer) and told[0].thought
    ended, usage, _ = ask(model, logit_bias={2: 100.0})
    assert (ended[0].thought, ended[0].answer, ended[0].reason) == ("", "", "stop")
    assert usage.reasoning_tokens == usage.completion_tokens == 1


def test_stops_and_least_tokens_are_of_the_answer(models: dict[str, Model]) -> None:
    model = models["deepseek-r1"]
    x = model.engine.encode("x")[0]
    biased: dict[str, Any] = {"logit_bias": {x: 100.0}, "stop": ("xx",), "reasoning": Reasoning(thinking_budget=6)}
    told, _, _ = ask(model, **biased)
    assert (told[0].thought, told[0].answer, told[0].reason) == ("x" * 6, "", "stop")
    told, _, _ = ask(model, min_tokens=5, **biased)
    assert (told[0].thought, told[0].answer) == ("x" * 6, "xxxx")
    told, _, _ = ask(model, stop_token_ids=(x,), **{**biased, "stop": ()})
    assert (told[0].thought, told[0].answer, told[0].reason) == ("x" * 6, "", "stop")


def test_log_probabilities_are_of_the_answer(models: dict[str, Model]) -> None:
    model = models["deepseek-r1"]
    told, usage, _ = ask(model, logprobs=2, reasoning=Reasoning(thinking_budget=6), max_new_tokens=40)
    assert told[0].logprobs == usage.completion_tokens - usage.reasoning_tokens > 0


def test_no_effort_is_no_thought(models: dict[str, Model]) -> None:
    for name in ("qwen3", "deepseek-r1", "mistral", "gpt-oss"):
        told, _, ignored = ask(models[name], reasoning=Reasoning(effort="none"), n=3)
        assert all(not choice.thought and choice.answer for choice in told)
        assert ignored == []


def test_an_effort_is_ignored_where_nothing_thinks_and_said_to_be(models: dict[str, Model]) -> None:
    assert ask(models["none"], reasoning=Reasoning(effort="high", thinking_budget=5))[2] == ["reasoning_effort", "thinking_budget"]
    assert ask(models["none"], reasoning=Reasoning(effort="none"))[2] == []


def test_a_forced_closing_is_written_whatever_is_barred(models: dict[str, Model]) -> None:
    model = models["deepseek-r1"]
    told, _, _ = ask(model, bad_words=("</think>", "\n", "think"), reasoning=Reasoning(thinking_budget=4))
    assert told[0].answer and told[0].thought


def test_calls_in_channels_are_calls_and_what_is_said_in_them_is_text(models: dict[str, Model]) -> None:
    model = models["gpt-oss"]
    use = ToolUse(TOOLS.tools)
    channel = model.token("<|channel|>")
    calls = texts = 0
    for budget in (None, 0, 6):
        told, usage, _ = ask(model, tools=use, n=12, reasoning=Reasoning(thinking_budget=budget), max_new_tokens=150)
        for choice in told:
            assert "<|" not in choice.answer + choice.call and "to=" not in choice.answer
            if choice.call:
                assert choice.call.startswith("clock") and choice.reason in ("tool_calls", "length")
            calls += bool(choice.call)
            texts += bool(choice.answer)
            assert choice.ids[0] == channel
        assert usage.completion_tokens == sum(len(choice.ids) for choice in told)
    assert calls and texts
    only, _, _ = ask(model, tools=ToolUse(TOOLS.tools, required=True, only="clock"), n=4, max_new_tokens=150)
    assert all(choice.call == "clock{}" and choice.reason == "stop" for choice in only if choice.reason != "length")


def test_a_history_of_calls_and_thoughts_is_gone_on_with(models: dict[str, Model]) -> None:
    model = models["gpt-oss"]
    call = ToolCall("c1", "clock", "{}")
    talk = (
        Message("user", "Which one?"),
        Message("assistant", "I look.", tool_calls=(call,), reasoning="It depends."),
        Message("tool", "noon", tool_call_id="c1"),
    )
    told, _, _ = ask(model, tools=TOOLS, messages=talk, reasoning=Reasoning(thinking_budget=4), max_new_tokens=150)
    assert told[0].call == "clock{}"
