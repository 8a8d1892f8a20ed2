"""How a checkpoint's own chat template writes tools and calls, found by letting it write one; never by the model's name.

llama.cpp (common/chat*) and OpenVINO Model Server find it in the same way.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from mm_gateway.chat_templates.tool_formats.format import PROBE, ToolFormat, declaration
from mm_gateway.chat_templates.tool_formats.formats import TOOL_FORMATS
from mm_gateway.core import Tool

_WRITES_TOOLS = re.compile(r"\btools\b")
_TOOL = declaration(Tool(PROBE.name, "Probe.", {"type": "object", "properties": {"probe_key": {"type": "string"}}}))
_IDS = (PROBE.id, f"functions.{PROBE.name}:0")
"""Nine letters or digits, which Mistral's templates ask for, and Kimi's, which is the name."""


class WrittenCalls(NamedTuple):
    """Attributes:
    form: None: none of ours.
    arguments_as_text: the template wants the arguments of a call as JSON text, not as an object.
    no_content: it writes calls only of messages whose content is None, not empty.
    one_call: of a message with several it writes the first alone, or refuses it.
    """

    form: ToolFormat | None
    arguments_as_text: bool = False
    no_content: bool = False
    one_call: bool = False


def writes_tools(template: str) -> bool:
    """Whether a chat template puts tools into the prompt by itself."""
    return _WRITES_TOOLS.search(template) is not None


def probe(template: str, render: Callable[[list[dict[str, Any]], list[dict[str, Any]]], str | None]) -> WrittenCalls:
    """What a template that writes tools shows of its format.

    Args:
        template: its source. render: messages and tools as a prompt; None: the template refuses them.
    """
    forms = TOOL_FORMATS.values()
    for call_id, as_text, no_content, answered in itertools.product(_IDS, (False, True), (False, True), (False, True)):
        turns = _conversation(call_id, as_text=as_text, no_content=no_content, answered=answered)
        rendered = render(turns, [_TOOL])
        if rendered is None or PROBE.name not in rendered:
            continue
        form = next((form for form in forms if form.recognizes(rendered)), None)
        if form is not None:
            several = render(_with_second_call(turns), [_TOOL])
            return WrittenCalls(
                form, as_text, no_content, one_call=several is None or several.count(PROBE.name) <= rendered.count(PROBE.name)
            )
    return WrittenCalls(next((form for form in forms if form.taught_by(template)), None))


def _conversation(call_id: str, *, as_text: bool, no_content: bool, answered: bool) -> list[dict[str, Any]]:
    arguments: object = PROBE.arguments if as_text else {"probe_key": "probe_value"}
    call = {"id": call_id, "type": "function", "function": {"name": PROBE.name, "arguments": arguments}}
    turns: list[dict[str, Any]] = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": None if no_content else "", "tool_calls": [call]},
    ]
    if answered:
        turns.append({"role": "tool", "content": "done", "tool_call_id": call_id, "name": PROBE.name})
    return turns


def _with_second_call(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    user, assistant, *results = turns
    (call,) = assistant["tool_calls"]
    other = {**call, "id": call["id"].replace("1", "2").replace(":0", ":1")}
    return [user, {**assistant, "tool_calls": [call, other]}, *results, *({**result, "tool_call_id": other["id"]} for result in results)]
