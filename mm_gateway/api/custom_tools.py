"""Tools of type `custom`, whose call is a text: functions with one argument, `input`, to a model; clients see the text alone."""

from __future__ import annotations

import json
import re

import msgspec

from mm_gateway.api.replies.json_text import JsonText
from mm_gateway.core import Grammar, Tool
from mm_gateway.errors import InvalidRequestError
from mm_gateway.protocol.conversation import GrammarText
from mm_gateway.protocol.decoding import convert

INPUT = "input"
_OPENING = re.compile(rf'\s*\{{\s*"{INPUT}"\s*:\s*"')
_PARAMETERS = {"type": "object", "properties": {INPUT: {"type": "string"}}, "required": [INPUT], "additionalProperties": False}


def custom_tool(at: str, name: str, description: str | None, form: object) -> Tool:
    """The function that a custom tool is to a model.

    Args:
        at: path of the format in the body. form: the tool's `format`: any text, or a grammar.

    Raises:
        InvalidRequestError: the format is none.
    """
    grammar = _grammar(at, form)
    told = description or ""
    if grammar is not None:
        syntax = "grammar in Lark" if grammar.kind == "lark" else "regular expression"
        told = f"{told}\n\nThe input follows this {syntax}:\n{grammar.text}".lstrip()
    return Tool(name, told, _PARAMETERS, input_grammar=grammar)


def _grammar(at: str, form: object) -> Grammar | None:
    if form is None:
        return None
    if not isinstance(form, dict):
        raise InvalidRequestError(f"{at} must be an object, with type 'text' or 'grammar'", param=at)
    kind: object = form.get("type")  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if kind == "text":
        return None
    if kind != "grammar":
        raise InvalidRequestError(f"{at}.type must be 'text' or 'grammar'", param=f"{at}.type", code="invalid_value")
    fields: dict[str, object] = {name: value for name, value in form.items() if name != "type"}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(fields.get("grammar"), dict):  # chat has one object more
        fields, at = fields["grammar"], f"{at}.grammar"  # pyright: ignore[reportAssignmentType]
    found = convert(fields, GrammarText, at, None)
    return Grammar(found.syntax, found.definition, f"{at}.definition")


def arguments_of(text: str) -> str:
    """The arguments of the function that a call with this text is."""
    return json.dumps({INPUT: text}, ensure_ascii=False)


def input_of(arguments: str) -> str:
    """The text of a whole call; the arguments as they are where they hold none, which only a server elsewhere writes."""
    reader = InputText()
    return reader.feed(arguments) + reader.end()


class InputText:
    """Reads the text out of a call's arguments while they come."""

    def __init__(self) -> None:
        self._waiting = ""
        self._text: JsonText | None = None

    def feed(self, arguments: str) -> str:
        """What of the text is known by now, beyond what was told."""
        if self._text is None:
            self._waiting += arguments
            opening = _OPENING.match(self._waiting)
            if opening is None:
                return ""
            self._text = JsonText()
            arguments = self._waiting[opening.end() :]
        return self._text.feed(arguments)

    def end(self) -> str:
        """What is left of the text once no more arguments come."""
        if self._text is not None:
            return ""
        try:
            found: object = msgspec.json.decode(self._waiting)
        except (msgspec.DecodeError, RecursionError):
            found = None
        text = found.get(INPUT) if isinstance(found, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        if isinstance(text, str):
            return text
        return "" if f'{{"{INPUT}":"'.startswith("".join(self._waiting.split())) else self._waiting
