"""What a repository's own `response_template` says of thoughts and calls: which of our formats it reads as we would.

It is transformers' description of how a reply becomes a message (`tokenizer_config.json`, transformers.utils.chat_parsing). A format is its
own where it finds in what we would write what we have written: never by names.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from transformers import PreTrainedTokenizerBase

from mm_gateway.chat_templates.reasoning_formats.format import ReasoningFormat
from mm_gateway.chat_templates.reasoning_formats.formats import REASONING_FORMATS, tags
from mm_gateway.chat_templates.tool_formats.format import PROBE, ToolFormat, declaration
from mm_gateway.chat_templates.tool_formats.formats import TOOL_FORMATS
from mm_gateway.core import Message, Tool

logger = logging.getLogger(__name__)

_THOUGHT, _ANSWER = "It was the first.", "The first."
_FIELDS = ("reasoning_content", "reasoning", "thinking")
_TOOL = declaration(Tool(PROBE.name, parameters={"type": "object", "properties": {"probe_key": {"type": "string"}}}))


class ResponseFormats(NamedTuple):
    """None: it has none, or none that we know."""

    reasoning: ReasoningFormat | None = None
    tools: ToolFormat | None = None


def response_formats(tokenizer: PreTrainedTokenizerBase) -> ResponseFormats:
    """The formats of a tokenizer's response template, where it has one. One that cannot be read is logged, and says nothing."""
    template = getattr(tokenizer, "response_template", None)
    if template is None:
        return ResponseFormats()
    try:
        tools = next((form for form in TOOL_FORMATS.values() if _reads_call(tokenizer, form)), None)
        return ResponseFormats(_reasoning(tokenizer, template), tools)
    except Exception as error:  # noqa: BLE001 - a file that comes with a checkpoint, read by transformers
        logger.warning("response_template is ignored: %s", str(error)[:300])
        return ResponseFormats()


def _reasoning(tokenizer: PreTrainedTokenizerBase, template: object) -> ReasoningFormat | None:
    known = next((form for form in REASONING_FORMATS.values() if _reads_thought(tokenizer, form)), None)
    if known is not None:
        return known
    fields = cast(Mapping[str, Any], template)["fields"]
    for name in _FIELDS:
        opening, closing = (fields.get(name, {}).get(key) for key in ("open", "close"))
        if isinstance(opening, str) and isinstance(closing, str):
            return tags("response_template", opening, closing)
    return None


def _reads_thought(tokenizer: PreTrainedTokenizerBase, form: ReasoningFormat) -> bool:
    message = _parsed(tokenizer, f"{form.opening}{_THOUGHT}{form.forced}{_ANSWER}")
    return str(message.get("content", "")).strip() == _ANSWER and any(str(message.get(name, "")).strip() == _THOUGHT for name in _FIELDS)


def _reads_call(tokenizer: PreTrainedTokenizerBase, form: ToolFormat) -> bool:
    turns, begun = form.flatten([Message("assistant", "", tool_calls=(PROBE,))], ())
    message = _parsed(tokenizer, turns[0].content if turns else begun)
    match message.get("tool_calls"):
        case [{"function": {"name": PROBE.name, "arguments": arguments}}]:
            return arguments in (PROBE.arguments, json.loads(PROBE.arguments))
        case _:
            return False


def _parsed(tokenizer: PreTrainedTokenizerBase, text: str) -> Mapping[str, Any]:
    """The message that the template makes of a reply; {}: it refuses it."""
    try:
        return cast(Mapping[str, Any], tokenizer.parse_response(text, prefix="", tools=[_TOOL]))
    except ValueError:
        return {}
