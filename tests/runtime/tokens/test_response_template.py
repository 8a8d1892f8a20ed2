"""A repository's response template says how its model thinks and calls, before its chat template is asked."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer
from transformers.cli.serving.utils import _RESPONSE_TEMPLATE_FALLBACKS

from mm_gateway.chat_templates.found_formats import formats_of
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.runtime.checkpoints.chat_files import known_formats
from mm_gateway.runtime.model_loader import load_model_text
from mm_gateway.runtime.tokens.chat_encoding import chat_encoder_of
from mm_gateway.runtime.tokens.response_template import response_formats
from tests.support.checkpoints import make_tokenizer
from tests.support.thinking_checkpoint import thinking
from tests.support.thinking_templates import NO_THOUGHTS

TRANSFORMERS: dict[str, dict[str, Any]] = {names[0]: template for names, template in _RESPONSE_TEMPLATE_FALLBACKS.items()}
"""Those of transformers for families that bring none: real ones."""
OWN: dict[str, Any] = {
    "start_anchor": "<|assistant|>",
    "fields": {
        "thinking": {"open": "<muse>", "close": "</muse>"},
        "tool_calls": {
            "open_pattern": r"<\|tool_call_begin\|>functions\.(?P<name>\w+):\d+<\|tool_call_argument_begin\|>",
            "close": "<|tool_call_end|>",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}},
        },
        "content": {"close_pattern": r"<\|tool_calls_section_(?:begin|end)\|>"},
    },
}


def tokenizer(template: object) -> Any:
    found = make_tokenizer(["<|endoftext|>", "<|im_end|>"], eos_token="<|im_end|>")
    found.response_template = template
    return found


@pytest.mark.parametrize(
    ("template", "reasoning", "tools"),
    [("qwen2", "think", "hermes"), ("qwen3_5", "think", "qwen3-xml"), ("gemma4", "gemma", None)],
)
def test_those_of_families_are_read_as_our_formats(template: str, reasoning: str, tools: str | None) -> None:
    found = response_formats(tokenizer(TRANSFORMERS[template]))
    assert found.reasoning is not None and found.reasoning.name == reasoning
    assert (found.tools.name if found.tools is not None else None) == tools


def test_thoughts_in_tags_of_its_own_are_a_format_of_their_own() -> None:
    found = response_formats(tokenizer(OWN))
    assert found.tools is not None and found.tools.name == "kimi"
    assert found.reasoning is not None and (found.reasoning.opening, found.reasoning.closing) == ("<muse>", "</muse>")
    reader = found.reasoning.new_reader("undecided")
    pieces = [*reader.feed("<muse>Hm.</mu"), *reader.feed("se>\nYes."), *reader.end()]
    assert [(piece.part, piece.text) for piece in pieces if piece.part != "mark"] == [("thought", "Hm."), ("answer", "Yes.")]


def test_what_is_configured_goes_before_it_and_it_goes_before_the_chat_template() -> None:
    found = tokenizer(TRANSFORMERS["qwen3_5"])
    found.chat_template = "{{ tools }}{% for m in messages %}{{ m.content }}{% endfor %}"
    encoder, _ = chat_encoder_of(found, "other", ModelConfig(model_name="m"))
    assert encoder.thoughts is not None
    assert (encoder.thoughts.format.name, encoder.tool_format.name) == ("think", "qwen3-xml")
    said = ModelConfig(model_name="m", tool_format="glm", reasoning_format="seed")
    encoder, _ = chat_encoder_of(found, "other", said)
    assert encoder.thoughts is not None
    assert (encoder.thoughts.format.name, encoder.tool_format.name) == ("seed", "glm")


@pytest.mark.parametrize("template", ["text", {"fields": {}}, {"fields": {"content": {"open_pattern": "("}}, "start_anchor": "x"}, 5])
def test_one_that_cannot_be_read_says_nothing(template: object) -> None:
    assert response_formats(tokenizer(template)) == (None, None)
    assert response_formats(tokenizer(None)) == (None, None)


def test_it_comes_from_the_files_of_the_checkpoint(tmp_path: Path) -> None:
    config = ModelConfig(model_name="m", path=str(thinking(tmp_path, NO_THOUGHTS)), device="cpu")
    assert formats_of(load_model_text(config).chat.prompt).reasoning is None
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"response_template": copy.deepcopy(TRANSFORMERS["qwen2"])}))
    assert AutoTokenizer.from_pretrained(tmp_path).response_template is not None
    found = formats_of(load_model_text(config).chat.prompt)
    assert found.reasoning is not None and found.reasoning["format"] == "think"
    assert known_formats(config) is None  # until the model is loaded: what is cheap to look at is not all
