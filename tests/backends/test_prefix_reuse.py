"""An agent's conversation with 24 tools over ten turns: each prompt goes on where the one before it ended, so that its work is reused."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from mm_gateway.backends.engine_backend import generate
from mm_gateway.chat_templates.encoder import ChatEncoder
from mm_gateway.chat_templates.templates import BUILT_IN
from mm_gateway.chat_templates.tool_formats.formats import TOOL_FORMATS
from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import ChatInput, GenerationConfig, GenerationRequest, Message, Tool, ToolCall, ToolUse, Usage
from mm_gateway.runtime.inference_engine import InferenceEngine
from mm_gateway.runtime.tokens.chat_tokenizer import ChatTokenizer
from tests.support.checkpoints import make_tokenizer
from tests.support.thinking_checkpoint import HARMONY
from tests.support.thinking_templates import GPT_OSS
from tests.support.tool_templates import FAMILIES

TURNS = 10
TOOLS = tuple(
    Tool(
        f"tool_{number:02}",
        f"Does the thing {number}.",
        # Neither in the order of the alphabet nor in that of a schema's own description.
        {
            "type": "object",
            "required": ["zone"],
            "properties": {"zone": {"type": "string", "description": "Where."}, "at": {"type": "integer"}},
        },
    )
    for number in range(24)
)
ARGUMENTS = '{"zone": "b", "at": 3}'
TEMPLATES = {name: family.template for name, family in FAMILIES.items()} | {"GPT-OSS": GPT_OSS}
ENDS = 48
"""Tokens at the end of a prompt that the next one need not begin with: what begins the assistant's turn."""


@dataclass
class Stand:
    engine: InferenceEngine
    encoders: dict[str, ChatEncoder]


@pytest.fixture(scope="module")
def stand() -> Iterator[Stand]:
    """One engine for all templates: a tokenizer with every family's marks."""
    marks = dict.fromkeys(mark for family in FAMILIES.values() for mark in family.marks)
    tokenizer = make_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>", *marks, *HARMONY], vocab_size=560, eos_token="<|im_end|>")
    shape: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=8192, **shape)).eval()
    engine = InferenceEngine(model, tokenizer, settings=EngineSettings(max_running=2))
    encoders = {name: ChatEncoder(template, ChatTokenizer(tokenizer)) for name, template in TEMPLATES.items()}
    variables = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    for name, built_in in BUILT_IN.items():
        form = TOOL_FORMATS[built_in.tool_format]
        encoders[f"built-in {name}"] = ChatEncoder(built_in.source, ChatTokenizer(tokenizer), variables=variables, tool_format=form)
    yield Stand(engine, encoders)
    engine.close()


def conversation(turns: int, name: str = "") -> list[Message]:
    """A question for each turn, a call, its result, and an answer; it ends with the last question's result.

    Qwen 1's makers describe tools before the last question, so there one question takes all the calls.
    """
    messages: list[Message] = []
    for turn in range(turns):
        call = ToolCall(f"call{turn:05}", f"tool_{turn:02}", ARGUMENTS)
        one_question = turn and name == "built-in qwen-chat"
        messages += [] if one_question else [Message("user", f"Question {turn}?")]
        messages += [Message("assistant", "", tool_calls=(call,)), Message("tool", f"Result {turn}.", tool_call_id=call.id)]
        messages += [] if name == "built-in qwen-chat" else [Message("assistant", f"Answer {turn}.")]
    return messages if name == "built-in qwen-chat" else messages[:-1]


def common(first: Sequence[int], second: Sequence[int]) -> int:
    return next((place for place, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second)))


async def usage_of(stand: Stand, chat: ChatEncoder, messages: Sequence[Message]) -> Usage:
    input = ChatInput(tuple(messages), ToolUse(TOOLS))
    request = GenerationRequest(request_id="r", model="m", input=input, config=GenerationConfig(max_new_tokens=1, temperature=0))
    async for event in generate(stand.engine, chat, request, truncate_history=False):
        if isinstance(event, Usage):
            return event
    raise AssertionError("no usage")


NAMES = [*TEMPLATES, *(f"built-in {name}" for name in BUILT_IN)]


def test_every_tool_format_is_tried(stand: Stand) -> None:
    assert {encoder.tool_format.name for encoder in stand.encoders.values()} == set(TOOL_FORMATS)


@pytest.mark.parametrize("name", NAMES)
def test_each_prompt_begins_with_the_one_before_it(stand: Stand, name: str) -> None:
    prompts = [stand.encoders[name].encode(conversation(turns, name), TOOLS) for turns in range(1, TURNS + 1)]
    for before, after in itertools.pairwise(prompts):
        assert common(before, after) >= len(before) - ENDS
    rendered = stand.encoders[name].render(conversation(2), TOOLS)
    assert rendered == stand.encoders[name].render(conversation(2), TOOLS)
    if name != "GPT-OSS":  # which writes tools as types, and no JSON
        assert json.dumps(TOOLS[3].parameters) in rendered
    assert rendered.index("zone", rendered.index("Question 0?")) < rendered.index(
        "at", rendered.index("zone", rendered.index("Question 0?"))
    )


@pytest.mark.parametrize("name", NAMES)
def test_ten_turns_compute_little_more_than_what_is_new(stand: Stand, name: str) -> None:
    chat = stand.encoders[name]

    async def all_turns() -> list[Usage]:
        return [await usage_of(stand, chat, conversation(turns, name)) for turns in range(1, TURNS + 1)]

    found = asyncio.run(all_turns())
    for before, after in itertools.pairwise(found):
        assert after.cached_tokens >= before.prompt_tokens - ENDS
        assert after.cached_tokens > 0.9 * before.prompt_tokens
