"""A plain format of this project for models that were trained on none, GPT-2 above all: lines of `CALL name {arguments}`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mm_gateway.chat_templates.tool_formats.call_parser import CallParser
from mm_gateway.chat_templates.tool_formats.format import (
    ToolFormat,
    arguments_of,
    as_turns,
    call_rules,
    with_system,
    write_json,
)
from mm_gateway.chat_templates.tool_formats.frame import Spell, quoted
from mm_gateway.core import Message, Tool, ToolCall, ToolUse

_HEADER = re.compile(r"CALL (?P<name>[A-Za-z0-9_.-]+) (?=[{\[])")
_CLOSING = re.compile(r"\n?")


class Plain(ToolFormat):
    name = "plain"
    families = "none: for models that were trained on no format, GPT-2 above all"
    source = "this project"

    def flatten(self, messages: Sequence[Message], tools: Sequence[Tool]) -> tuple[list[Message], str]:
        turns = as_turns(messages, _call, lambda name, content: f"RESULT {name} {content}")
        return (with_system(turns, _describe(tools)) if tools else turns), ""

    def grammar(self, use: ToolUse, text: str | None, spell: Spell = quoted) -> str:
        rules, calls = call_rules(use, lambda tool: f"{tool.name} ")
        rules.append(f"call: {calls}")
        more = '("\\nCALL " call)*' if use.several else ""
        if use.required:
            return "\n".join([f'start: " "? "CALL " call {more}', *rules])
        if text is not None:
            return "\n".join([f'start: answer | "CALL " call {more}', f"answer: {text}", *rules])
        rules.append('before[suffix="CALL "]: /(?s:.*)/')
        return "\n".join([f"start: TEXT | before call {more}", "TEXT: /(?s:.*)/ & ~/(?s:.*)CALL (?s:.*)/", *rules])

    def calls(self, tools: Sequence[Tool] = ()) -> CallParser:
        return CallParser("CALL ", _HEADER, _CLOSING)


def _describe(tools: Sequence[Tool]) -> str:
    lines = [f"{tool.name}: {tool.description or 'no description'} Arguments: {write_json(tool.parameters or {})}" for tool in tools]
    listed = "\n".join(lines)
    return (
        f"Functions that can be called, with the JSON schema of their arguments:\n{listed}\n"
        'To call one, write a line: CALL name {"argument": "value"}'
    )


def _call(call: ToolCall) -> str:
    return f"CALL {call.name} {write_json(arguments_of(call))}"
