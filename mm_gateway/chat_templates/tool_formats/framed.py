"""Formats that are a frame around each call, and what they have in common; a format of this kind is one row of `formats.py`."""

from __future__ import annotations

import hashlib
import re
from abc import abstractmethod
from collections.abc import Iterator, Sequence

from mm_gateway.chat_templates.tool_formats.call_parser import CallParser
from mm_gateway.chat_templates.tool_formats.format import (
    PROBE,
    ToolFormat,
    arguments_of,
    arguments_rule,
    as_turns,
    declaration,
    with_system,
    write_json,
)
from mm_gateway.chat_templates.tool_formats.frame import Frame, Place, Spell, lark, literals, pattern, quoted, split, write
from mm_gateway.core import Message, Tool, ToolCall, ToolUse
from mm_gateway.errors import UnsupportedParameterError

_ANY = "/(?s:.*)/"


class FramedCalls(ToolFormat):
    """A ToolFormat.

    Args:
        families: that are trained on it, for the documentation.
        source: where the format is described.
        head: what a call begins with, its name included. tail: what it ends with.
        begin, between, end: before the first call of a reply, between two, and after the last.
        opening: what tells a call from text; None: `begin`, or the first literal of a call.
        only_at_start: a reply with calls has no text before them.
        call_id: how this format's templates want the ids of calls; None: any.
    """

    def __init__(
        self,
        name: str,
        families: str,
        source: str,
        *,
        head: Frame,
        tail: Frame,
        begin: str = "",
        between: str = "",
        end: str = "",
        opening: str | None = None,
        only_at_start: bool = False,
        call_id: str | None = None,
    ) -> None:
        self.name, self.families, self.source = name, families, source
        self._head, self._tail = head, tail
        self._begin, self._between, self._end = begin, between, end
        first = head[0]
        assert isinstance(first, str)
        self._first = begin + first
        self._opening = opening or begin or first
        self._only_at_start = only_at_start
        self._call_id = call_id

    @property
    def literals(self) -> Iterator[str]:
        """The texts that calls are written with."""
        yield from (self._begin, self._between, self._end)
        yield from literals((*self._head, *self._tail))

    @abstractmethod
    def _written_arguments(self, call: ToolCall) -> str:
        """The arguments of a call between head and tail."""

    @abstractmethod
    def _argument_rules(self, tools: Sequence[Tool], spell: Spell) -> list[str]:
        """Lark rules `arguments_0`, `arguments_1`… of the functions, and what they need."""

    @abstractmethod
    def _probe(self) -> str:
        """A regular expression of the probe's arguments."""

    def recognizes(self, rendered: str) -> bool:
        head = pattern(self._head).replace(pattern((Place.NAME,)), PROBE.name)
        begin = pattern((self._begin,)) + r"\s*" if self._begin else ""
        tail = pattern(self._tail) + (r"\s*" + pattern((self._end,)) if self._end else "")
        return re.search(begin + head + self._probe() + r"\s*" + tail, rendered) is not None

    def written_id(self, call_id: str, name: str, number: int) -> str:
        match self._call_id:
            case "functions.name:number":
                return f"functions.{name}:{number}"
            case "nine":
                nine = re.fullmatch("[A-Za-z0-9]{9}", call_id) is not None
                return call_id if nine else hashlib.sha256(call_id.encode()).hexdigest()[:9]
            case _:
                return call_id

    def flatten(self, messages: Sequence[Message], tools: Sequence[Tool]) -> tuple[list[Message], str]:
        turns = as_turns(messages, self._write, lambda name, content: f"Result of {name}: {content}" if name else content)
        return (with_system(turns, self._describe(tools)) if tools else turns), ""

    def grammar(self, use: ToolUse, text: str | None, spell: Spell = quoted) -> str:
        tools = [tool for tool in use.tools if use.only is None or tool.name == use.only]
        before, after = split(self._head, Place.NAME)
        rules = self._argument_rules(tools, spell)
        names = " | ".join(f"{lark((tool.name, *after), spell)} arguments_{i}" for i, tool in enumerate(tools))
        rules.append(f"named: ({names}) {lark(self._tail, spell)}")
        more = f"({lark((self._between, *before), spell)} named)*" if use.several else ""
        rules.append(f"calls: named {more} {lark((self._end,), spell)}")
        rest = lark((self._first.removeprefix(self._opening), *before[1:]), spell)
        opening = spell(self._opening)
        if use.required:
            return "\n".join([f"start: {opening} {rest} calls", *rules])
        if text is not None:
            if not opening.startswith("<[") and self._opening in ("[", "{"):
                # Both could begin alike, so neither a grammar nor a reader could tell which one it is.
                raise UnsupportedParameterError(
                    "response_format cannot be combined with tools for this model: it writes calls as plain JSON or Python",
                    param="response_format",
                )
            return "\n".join([f"start: answer | {opening} {rest} calls", f"answer: {text}", *rules])
        if self._only_at_start:
            first = re.escape(self._opening[0]) if not opening.startswith("<[") else None
            text_rule = f"TEXT: /[^{first}](?s:.*)/" if first else "TEXT: /(?s:.+)/"
            return "\n".join([f"start: TEXT? | {opening} {rest} calls", text_rule, *rules])
        if opening.startswith("<["):  # a control token, which is never part of a text
            return "\n".join([f"start: TEXT? | TEXT? {opening} {rest} calls", "TEXT: /(?s:.+)/", *rules])
        rules.append(f"before[suffix={quoted(self._opening)}]: {_ANY}")
        free = f"{_ANY} & ~/(?s:.*){_regex_escaped(self._opening)}(?s:.*)/"
        return "\n".join([f"start: TEXT | before {rest} calls", f"TEXT: {free}", *rules])

    def _header(self) -> re.Pattern[str]:
        begin = rf"(?:{pattern((self._begin,))})?\s*" if self._begin else ""
        return re.compile(begin + pattern(self._head))

    @property
    def _blanks(self) -> str:
        """Characters that may stand between calls."""
        return " \n" + "".join(char for char in self._between if char in ",;")

    def _write(self, call: ToolCall) -> str:
        values = {Place.NAME: call.name, Place.NUMBER: "0", Place.ID: self.written_id(call.id, call.name, 0)}
        call_text = write(self._head, values) + self._written_arguments(call) + write(self._tail, values)
        return f"{self._begin}{call_text}{self._end}"

    def _describe(self, tools: Sequence[Tool]) -> str:
        listed = "\n".join(write_json(declaration(tool)) for tool in tools)
        example = self._write(ToolCall("", "function_name", '{"parameter": "value"}'))
        return f"These functions can be called:\n{listed}\n\nTo call one, write:\n{example}"


class JsonCalls(FramedCalls):
    """Calls whose arguments are one JSON object."""

    def _written_arguments(self, call: ToolCall) -> str:
        return write_json(arguments_of(call))

    def _argument_rules(self, tools: Sequence[Tool], spell: Spell) -> list[str]:
        return [f"arguments_{i}: {arguments_rule(tool)}" for i, tool in enumerate(tools)]

    def _probe(self) -> str:
        return r'\{\s*"probe_key"\s*:\s*"probe_value"\s*\}'

    def calls(self, tools: Sequence[Tool] = ()) -> CallParser:
        header = re.compile(self._header().pattern + r"(?=[{\[])")
        return CallParser(
            self._opening,
            header,
            re.compile(pattern(self._tail)),
            end=self._end,
            only_at_start=self._only_at_start,
            between=self._blanks,
        )


def _regex_escaped(text: str) -> str:
    return re.escape(text).replace("/", r"\/")
