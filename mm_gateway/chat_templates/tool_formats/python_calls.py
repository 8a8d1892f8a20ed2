"""Calls as Python writes them, in a list: `[name(argument="value"), other()]`."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from typing import Any

from mm_gateway.chat_templates.tool_formats.call_parser import ArgumentsReader, CallParser
from mm_gateway.chat_templates.tool_formats.format import arguments_of
from mm_gateway.chat_templates.tool_formats.frame import NAME, Place, Spell, quoted
from mm_gateway.chat_templates.tool_formats.framed import FramedCalls
from mm_gateway.chat_templates.tool_formats.free_text import in_json_string
from mm_gateway.chat_templates.tool_formats.parameters import parameters_of
from mm_gateway.chat_templates.tool_formats.python_values import ANY_VALUE, PythonValues, sequence, unheld, written
from mm_gateway.core import Tool, ToolCall

_QUOTE = '"'
_WORDS = {"true": True, "false": False, "null": None}
_ARGUMENT = re.compile(r"\s*([A-Za-z_]\w*)\s*=\s*")


class PythonCalls(FramedCalls):
    """A ToolFormat; `between` is a comma."""

    def __init__(self, *args: Any, **frame: Any) -> None:
        super().__init__(*args, head=("", Place.NAME, "("), tail=(")",), between=", ", **frame)

    def calls(self, tools: Sequence[Tool] = ()) -> CallParser:
        header = re.compile(rf"(?:{re.escape(self._begin)})?\s*{NAME}\(")
        return CallParser(
            self._opening,
            header,
            re.compile(r"\s*\)"),
            end=self._end,
            only_at_start=self._only_at_start,
            between=self._blanks,
            arguments=_reader,
        )

    def _written_arguments(self, call: ToolCall) -> str:
        return ", ".join(f"{name}={written(value)}" for name, value in arguments_of(call).items())

    def _probe(self) -> str:
        return r"\s*probe_key\s*=\s*[\"']probe_value[\"']"

    def unheld(self, tool: Tool) -> tuple[str, ...]:
        paths = ((parameter.name, unheld(parameter.schema, parameter.root)) for parameter in parameters_of(tool)[0])
        return tuple(f"properties.{name}.{path}" for name, found in paths for path in found)

    def _argument_rules(self, tools: Sequence[Tool], spell: Spell) -> list[str]:
        rules: list[str] = []
        values = PythonValues()
        for i, tool in enumerate(tools):
            parameters, open_ended = parameters_of(tool)
            if tool.input_grammar is not None:  # Python reads what JSON escapes the same way
                rules.append(f"arguments_{i}: {spell('input=')} {quoted(_QUOTE)} ({in_json_string(tool.input_grammar)}) {quoted(_QUOTE)}")
                continue
            listed: list[str] = []
            for j, parameter in enumerate(parameters):
                rule = f"argument_{i}_{j}"
                rules.append(f"{rule}: {spell(f'{parameter.name}=')} {values.rule(parameter.schema, parameter.root)}")
                listed.append(rule)
            more = "other_argument" if open_ended else ""
            rules += sequence(f"arguments_{i}", listed, [parameter.required for parameter in parameters], more)
            if open_ended:
                values.use_any()
        if any("other_argument" in rule for rule in rules):
            rules += [f'other_argument: OTHER_NAME "=" {ANY_VALUE}', "OTHER_NAME: /[A-Za-z_][A-Za-z0-9_]{0,63}/"]
        return [*rules, *values.rules]


def _reader(_: str) -> ArgumentsReader:
    return PythonArguments()


class PythonArguments:
    """An ArgumentsReader: writes the JSON of each argument when it has ended."""

    def __init__(self) -> None:
        self.complete = False
        self._count = 0
        self._scanned = 0  # characters of the argument that were looked at
        self._depth = 0
        self._quote = ""
        self._escaped = False

    def read(self, text: str) -> tuple[int, str]:
        at = 0
        written: list[str] = []
        while not self.complete:
            end = self._end_of_argument(text, at)
            if end < 0:
                break
            argument = text[at:end].strip()
            if argument:
                written.append(("{" if not self._count else ", ") + _as_json(argument))
                self._count += 1
            self._scanned = 0
            if text[end] == ")":
                self.complete = True
                written.append("}" if self._count else "{}")
                return end, "".join(written)
            at = end + 1
        return at, "".join(written)

    def _end_of_argument(self, text: str, at: int) -> int:
        """Where the comma or the bracket behind an argument stands; -1: it has not come."""
        for position in range(at + self._scanned, len(text)):
            char = text[position]
            if self._quote:
                if self._escaped:
                    self._escaped = False
                elif char == "\\":
                    self._escaped = True
                elif char == self._quote:
                    self._quote = ""
            elif char in "\"'":
                self._quote = char
            elif char in "[{(":
                self._depth += 1
            elif self._depth and char in "]})":
                self._depth -= 1
            elif not self._depth and char in ",)":
                return position
        self._scanned = len(text) - at
        return -1


def _as_json(argument: str) -> str:
    match = _ARGUMENT.match(argument)
    if match is None:
        return f'"": {json.dumps(argument, ensure_ascii=False)}'
    text = argument[match.end() :]
    return f"{json.dumps(match[1])}: {json.dumps(_value(text), ensure_ascii=False)}"


def _value(text: str) -> object:
    """A Python literal's; what is none is text."""
    try:
        return _literal(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return text


def _literal(node: ast.expr) -> object:
    match node:
        case ast.Constant(value=bool() | int() | float() | str() | None as value):
            return value
        case ast.Name(id=word) if word in _WORDS:
            return _WORDS[word]
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_literal(item) for item in items]
        case ast.Dict(keys=keys, values=values):
            return {str(_literal(key)): _literal(value) for key, value in zip(keys, values, strict=True) if key is not None}
        case _:
            raise ValueError(ast.dump(node)[:100])
