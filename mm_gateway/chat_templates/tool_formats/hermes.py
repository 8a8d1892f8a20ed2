"""Hermes: JSON within <tool_call> tags, the format that Qwen2.5, Qwen3 and the Hermes models are trained on.

Source: https://github.com/NousResearch/Hermes-Function-Calling
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mm_gateway.chat_templates.tool_formats.call_parser import CallParser
from mm_gateway.chat_templates.tool_formats.format import (
    arguments_of,
    as_turns,
    call_rules,
    declaration,
    with_system,
    write_json,
)
from mm_gateway.core import Message, Tool, ToolCall, ToolUse

_HEADER = re.compile(r'<tool_call>\s*\{\s*"name"\s*:\s*"(?P<name>[^"]*)"\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=[{\[])')
_CLOSING = re.compile(r"\s*\}\s*</tool_call>")


class Hermes:
    name = "hermes"

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

    def grammar(self, use: ToolUse, text: str | None) -> str:
        more = '("\\n<tool_call>" call)*' if use.several else ""
        rules, calls = call_rules(use, _opened)
        rules.append(f'call: "\\n" ({calls}) "}}\\n</tool_call>"')
        if use.required:
            return "\n".join([f'start: "<tool_call>" call {more}', *rules])
        if text is not None:
            return "\n".join([f'start: answer | "<tool_call>" call {more}', f"answer: {text}", *rules])
        rules.append('before[suffix="<tool_call>"]: /(?s:.*)/')
        return "\n".join([f"start: TEXT | before call {more}", "TEXT: /(?s:.*)/ & ~/(?s:.*)<tool_call>(?s:.*)/", *rules])

    def calls(self) -> CallParser:
        return CallParser("<tool_call>", _HEADER, _CLOSING)

    def parser(self, begun: str = "") -> CallParser:
        return self.calls()


def _describe(tools: Sequence[Tool]) -> str:
    listed = "\n".join(write_json(declaration(tool)) for tool in tools)
    return (
        "# Tools\n\nYou may call functions to help with the request. Their signatures, as JSON, are within <tools></tools>:\n"
        f"<tools>\n{listed}\n</tools>\n\n"
        "To call a function, write a JSON object with its name and arguments within <tool_call></tool_call>:\n"
        '<tool_call>\n{"name":"…","arguments":{…}}\n</tool_call>'
    )


def _opened(tool: Tool) -> str:
    return f'{{"name": {write_json(tool.name)}, "arguments": '


def _call(call: ToolCall) -> str:
    return f"<tool_call>\n{write_json({'name': call.name, 'arguments': arguments_of(call)})}\n</tool_call>"
