"""Hermes: JSON within <tool_call> tags, the format that Qwen2.5, Qwen3 and the Hermes models are trained on."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mm_gateway.chat_templates.tool_formats.format import PROBE, arguments_of, as_turns, declaration, with_system, write_json
from mm_gateway.chat_templates.tool_formats.frame import Place
from mm_gateway.chat_templates.tool_formats.framed import JsonCalls
from mm_gateway.core import Message, Tool, ToolCall

_PROBE = re.compile(rf'<tool_call>\s*\{{[^<]*"name"\s*:\s*"{PROBE.name}"')


class Hermes(JsonCalls):
    """The format for templates that know no tools, too: the most widely trained one."""

    def __init__(self) -> None:
        super().__init__(
            "hermes",
            "Qwen 2.5, Qwen 3, Hermes; all whose template knows no tools",
            "https://github.com/NousResearch/Hermes-Function-Calling",
            opening="<tool_call>",
            head=('<tool_call>\n{"name": "', Place.NAME, '", "arguments": '),
            tail=("}\n</tool_call>",),
            between="\n",
        )

    def recognizes(self, rendered: str) -> bool:
        return _PROBE.search(rendered) is not None

    def taught_by(self, template: str) -> bool:
        # Others put XML or arguments one by one between the same tags.
        return "<tool_call>" in template and "<function=" not in template and "<arg_key>" not in template

    def flatten(self, messages: Sequence[Message], tools: Sequence[Tool]) -> tuple[list[Message], str]:
        turns = as_turns(messages, _call, lambda _, content: f"<tool_response>\n{content}\n</tool_response>")
        if not tools:
            return turns, ""
        if not turns or turns[0].role not in ("system", "developer"):
            turns.insert(0, Message(role="system", content="You are a helpful assistant."))
        return with_system(turns, _describe(tools)), ""


def _describe(tools: Sequence[Tool]) -> str:
    listed = "\n".join(write_json(declaration(tool)) for tool in tools)
    return (
        "# Tools\n\nYou may call functions to help with the request. Their signatures, as JSON, are within <tools></tools>:\n"
        f"<tools>\n{listed}\n</tools>\n\n"
        "To call a function, write a JSON object with its name and arguments within <tool_call></tool_call>:\n"
        '<tool_call>\n{"name":"…","arguments":{…}}\n</tool_call>'
    )


def _call(call: ToolCall) -> str:
    return f"<tool_call>\n{write_json({'name': call.name, 'arguments': arguments_of(call)})}\n</tool_call>"
