"""Llama 3's JSON: a reply that is a call begins with {"name": …, "parameters": …} and is nothing else.

Source: https://www.llama.com/docs/model-cards-and-prompt-formats/llama3_1 (JSON based tool calling)
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mm_gateway.chat_templates.tool_formats.call_parser import CallParser
from mm_gateway.chat_templates.tool_formats.format import (
    PROBE,
    ToolFormat,
    arguments_of,
    as_turns,
    call_rules,
    declaration,
    with_system,
    write_json,
)
from mm_gateway.chat_templates.tool_formats.frame import Spell, quoted
from mm_gateway.core import Message, Tool, ToolCall, ToolUse
from mm_gateway.errors import UnsupportedParameterError

_HEADER = re.compile(r'\{\s*"name"\s*:\s*"(?P<name>[^"]*)"\s*,\s*"(?:parameters|arguments)"\s*:\s*(?=[{\[])')
_CLOSING = re.compile(r"\s*\}")
_PROBE = re.compile(rf'(?<![\[\s])\s*\{{\s*"name"\s*:\s*"{PROBE.name}"\s*,\s*"parameters"\s*:\s*\{{')


class LlamaJson(ToolFormat):
    name = "llama"
    families = "Llama 3.1 to 3.3"
    source = "https://www.llama.com/docs/model-cards-and-prompt-formats/llama3_1"

    def recognizes(self, rendered: str) -> bool:
        return _PROBE.search(rendered) is not None

    def taught_by(self, template: str) -> bool:
        return '"parameters":' in template.replace(" ", "") and "python_tag" in template

    def flatten(self, messages: Sequence[Message], tools: Sequence[Tool]) -> tuple[list[Message], str]:
        turns = as_turns(messages, _call, lambda name, content: write_json({"function": name, "output": content}))
        return (with_system(turns, _describe(tools)) if tools else turns), ""

    def grammar(self, use: ToolUse, text: str | None, spell: Spell = quoted) -> str:
        rules, calls = call_rules(use, _opened)
        more = '("; " call)*' if use.several else ""
        rules.append(f'call: ({calls}) "}}"')
        if use.required:
            return "\n".join([f"start: call {more}", *rules])
        if text is not None:
            # Both begin with a brace, so neither a grammar nor a reader could tell which one it is.
            raise UnsupportedParameterError(
                "response_format cannot be combined with tools for this model: it writes calls as plain JSON", param="response_format"
            )
        return "\n".join([f"start: TEXT? | call {more}", "TEXT: /[^{](?s:.*)/", *rules])

    def calls(self, tools: Sequence[Tool] = ()) -> CallParser:
        return CallParser('{"name"', _HEADER, _CLOSING, only_at_start=True, between=" ;\n")


def _describe(tools: Sequence[Tool]) -> str:
    listed = "\n".join(write_json(declaration(tool)) for tool in tools)
    return (
        f"These functions can be called:\n{listed}\n\n"
        'To call one, reply only with {"name": "function name", "parameters": {"parameter": "value"}}; '
        "separate several calls with a semicolon."
    )


def _opened(tool: Tool) -> str:
    return f'{{"name": {write_json(tool.name)}, "parameters": '


def _call(call: ToolCall) -> str:
    return write_json({"name": call.name, "parameters": arguments_of(call)})
