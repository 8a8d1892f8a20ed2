"""Formats that write the arguments of a call one by one between tags: strings as they are, anything else as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mm_gateway.chat_templates.tool_formats.call_parser import ArgumentsReader, CallParser
from mm_gateway.chat_templates.tool_formats.format import arguments_of, spaced_json_rule
from mm_gateway.chat_templates.tool_formats.frame import Frame, Place, Spell, lark, pattern, quoted, split, write
from mm_gateway.chat_templates.tool_formats.framed import FramedCalls
from mm_gateway.chat_templates.tool_formats.free_text import as_it_is
from mm_gateway.chat_templates.tool_formats.parameters import Parameter, parameters_of, value_of
from mm_gateway.chat_templates.tool_formats.string_rules import StringRule, string_rule, unheld
from mm_gateway.core import Grammar, Tool, ToolCall
from mm_gateway.text import begun_at_end

_ANY_NAME = "/[A-Za-z_][A-Za-z0-9_.-]{0,63}/"
_TEXT = frozenset({"string", "null"})
_MAX_TAG = 512  # characters of a tag with the name of an argument


class TaggedCalls(FramedCalls):
    """A ToolFormat.

    Args:
        argument: what each argument is written in, with KEY and VALUE. A string that holds what follows VALUE there cannot be written.
    """

    def __init__(self, *args: Any, argument: Frame, **frame: Any) -> None:
        super().__init__(*args, **frame)
        self._before, after = split(argument, Place.VALUE)
        (self._after,) = (piece for piece in after if isinstance(piece, str))

    @property
    def literals(self) -> Iterator[str]:
        yield from super().literals
        yield from (piece for piece in (*self._before, self._after) if isinstance(piece, str))

    def calls(self, tools: Sequence[Tool] = ()) -> CallParser:
        known = {tool.name: {parameter.name: parameter for parameter in parameters_of(tool)[0]} for tool in tools}
        return CallParser(
            self._opening,
            self._header(),
            re.compile(pattern(self._tail)),
            end=self._end,
            between=self._blanks,
            arguments=lambda name: self._reader(known.get(name, {})),
        )

    def _reader(self, parameters: Mapping[str, Parameter]) -> ArgumentsReader:
        return TaggedArguments(re.compile(pattern(self._before, exact=True)), self._after, self._tail_text, parameters)

    @property
    def _tail_text(self) -> str:
        first = self._tail[0]
        assert isinstance(first, str)
        return first.strip()

    def _written_arguments(self, call: ToolCall) -> str:
        pieces: list[str] = []
        for name, value in arguments_of(call).items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            pieces.append(write(self._before, {Place.KEY: name}) + text + self._after)
        return "".join(pieces)

    def _probe(self) -> str:
        before = pattern(self._before).replace(pattern((Place.KEY,)), "probe_key")
        return before + r"\s*probe_value\s*" + pattern((self._after,))

    def unheld(self, tool: Tool) -> tuple[str, ...]:
        found: list[str] = []
        for parameter in parameters_of(tool)[0]:
            types = parameter.types
            if "string" not in types or parameter.texts:
                continue
            missing = string_rule(parameter).left_out if types <= _TEXT else unheld(parameter)
            found += [f"properties.{parameter.name}.{path}" for path in missing]
        return tuple(found)

    def _argument_rules(self, tools: Sequence[Tool], spell: Spell) -> list[str]:
        rules: list[str] = []
        for i, tool in enumerate(tools):
            parameters, open_ended = parameters_of(tool)
            names: list[str] = []
            if tool.input_grammar is not None:
                before = lark(self._before, spell, {Place.KEY: spell("input")})
                rules.append(f"arguments_{i}: {before} {self._free_text(tool.input_grammar, spell)}")
                continue
            for j, parameter in enumerate(parameters):
                rule = f"argument_{i}_{j}"
                value, needed = self._value(rule, parameter, spell)
                rules += [f"{rule}: {lark(self._before, spell, {Place.KEY: spell(parameter.name)})} {value}", *needed]
                names.append(rule if parameter.required else f"{rule}?")
            if open_ended:
                names.append("others")
            rules.append(f"arguments_{i}: {' '.join(names) or quoted('')}")
            if open_ended and not any(rule.startswith("others:") for rule in rules):
                rules += [f"others: ({lark(self._before, spell, {Place.KEY: 'ANY_NAME'})} any_text)*", f"ANY_NAME: {_ANY_NAME}"]
                rules += self._text("any_text", StringRule(), spell)
        return rules

    def _value(self, rule: str, parameter: Parameter, spell: Spell) -> tuple[str, list[str]]:
        """A value with what follows it, as Lark, and the rules for that."""
        after = spell(self._after)
        types, texts = parameter.types, parameter.texts
        if "string" not in types:
            return f"{rule}_json {after}", [f"{rule}_json: {spaced_json_rule(parameter.whole_schema)}"]
        if texts is not None and (texts or types != {"string"}):
            others = sorted(types - {"string"})
            alternatives = [spell(text) if text else '""' for text in texts]
            needed: list[str] = []
            if others:
                alternatives.append(f"{rule}_json")
                needed.append(f"{rule}_json: {spaced_json_rule(_narrowed(parameter, others))}")
            return f"({' | '.join(alternatives)}) {after}", needed
        # What is no string but was asked for beside strings is text as well: it is told from a string where it is read.
        return f"{rule}_text", self._text(f"{rule}_text", string_rule(parameter) if types <= _TEXT else StringRule(), spell)

    def _free_text(self, grammar: Grammar, spell: Spell) -> str:
        """A custom tool's text with what follows it."""
        after = spell(self._after)
        control = after.startswith("<[")
        return f"({as_it_is(grammar, '' if control else self._after)}){f' {after}' if control else ''}"

    def _text(self, rule: str, text: StringRule, spell: Spell) -> list[str]:
        """A rule of free text with what follows it."""
        after = spell(self._after)
        if after.startswith("<["):
            optional = "?" if text.may_be_empty else ""
            return [f"{rule}: {rule.upper()}{optional} {after}", f"{rule.upper()}: {text.regex}"]
        return [f"{rule}[suffix={quoted(self._after)}]: {text.regex}"]


class TaggedArguments:
    """An ArgumentsReader: writes the JSON of arguments that come between tags. A string goes on while it comes, other values when they end.

    Args:
        before: matches what stands before a value; its group `key` is the argument's name. after: what follows a value.
        end: what follows the last argument. parameters: those that the function lists.
    """

    def __init__(self, before: re.Pattern[str], after: str, end: str, parameters: Mapping[str, Parameter]) -> None:
        self._before, self._after, self._end = before, after, end
        self._parameters = parameters
        self._value: Parameter | None = None
        self._in_value = False
        self._searched = 0  # characters of the value that hold no beginning of what follows it
        self._count = 0
        self._string = False
        self.complete = False

    def read(self, text: str) -> tuple[int, str]:
        at = 0
        written: list[str] = []
        while not self.complete:
            size, json_text = self._read_value(text, at) if self._in_value else self._read_tag(text, at)
            if not size and not json_text:
                break
            at += size
            written.append(json_text)
        return at, "".join(written)

    def _read_tag(self, text: str, at: int) -> tuple[int, str]:
        rest = text[at : at + _MAX_TAG]
        blanks = len(rest) - len(rest.lstrip())
        if rest.startswith(self._end, blanks):
            self.complete = True
            return blanks, "}" if self._count else "{}"
        match = self._before.match(rest, blanks)
        if match is None:
            return 0, ""
        key = match["key"]
        self._value, self._in_value, self._searched = self._parameters.get(key), True, 0
        self._string = self._value is not None and self._value.types == {"string"}
        self._count += 1
        opening = "{" if self._count == 1 else ", "
        return match.end(), f"{opening}{json.dumps(key, ensure_ascii=False)}: " + ('"' if self._string else "")

    def _read_value(self, text: str, at: int) -> tuple[int, str]:
        end = text.find(self._after, at + self._searched)
        if end >= 0:
            value = text[at:end]
            self._in_value = False
            written = _inside(value) + '"' if self._string else value_of(value, self._value)
            return end - at + len(self._after), written
        # The end alone is copied: what waits for its end may be long.
        free = len(text) - at - begun_at_end(text[max(at, len(text) - len(self._after)) :], self._after)
        if self._string:
            return free, _inside(text[at : at + free])
        self._searched = free
        return 0, ""


def _inside(text: str) -> str:
    """A text as it stands in a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _narrowed(parameter: Parameter, types: Sequence[str]) -> dict[str, Any]:
    """The parameter's schema where its value has one of some types."""
    whole = parameter.whole_schema
    definitions = {key: whole.pop(key) for key in ("$defs", "definitions") if key in whole}
    return {**definitions, "allOf": [whole, {"type": list(types)}]}
