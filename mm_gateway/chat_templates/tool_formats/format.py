"""What a tool format is: how tools, calls and results are written for a model, what it may answer, and how calls are read back."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import msgspec

from mm_gateway.chat_templates.tool_formats.call_parser import CallParser
from mm_gateway.chat_templates.tool_formats.frame import Spell, quoted
from mm_gateway.chat_templates.tool_formats.free_text import in_json_string
from mm_gateway.chat_templates.tool_formats.parsed import ToolParser
from mm_gateway.core import Message, Tool, ToolCall, ToolUse


class ToolFormat(ABC):
    """One format. Adding one is a row in `formats.py`, and a module here where no other is like it.

    Attributes:
        families: of models that are trained on it. source: where it is described.
        literals: the texts that calls are written with, in which control tokens may be.
    """

    name: str
    families: str
    source: str

    @property
    def literals(self) -> Iterable[str]:
        return ()

    def recognizes(self, rendered: str) -> bool:
        """Whether a prompt, in which the template has written the call `PROBE`, has it in this format."""
        return False

    def taught_by(self, template: str) -> bool:
        """Whether a checkpoint's own chat template, which writes tools but not the calls of a history, teaches this format."""
        return False

    def written_id(self, call_id: str, name: str, number: int) -> str:
        """The id of a call as templates of this format want it. number: counts the calls of the conversation, from 0."""
        return call_id

    @abstractmethod
    def flatten(self, messages: Sequence[Message], tools: Sequence[Tool]) -> tuple[list[Message], str]:
        """The conversation for a template that knows no tools.

        Returns:
            Messages of plain text, and the text with which the assistant's turn has begun already.
        """
        ...

    @abstractmethod
    def grammar(self, use: ToolUse, text: str | None, spell: Spell = quoted) -> str:
        """What may be answered, in llguidance's dialect of Lark.

        Args:
            text: the rule body of an answer without calls; None: any text.
            spell: writes a literal text, whose control tokens have to be named as such.

        Raises:
            UnsupportedParameterError: the format cannot tell such an answer from a call.
        """
        ...

    def unheld(self, tool: Tool) -> tuple[str, ...]:
        """Paths of the keywords of a tool's parameters, of those that a grammar of JSON holds to, that this format's does not."""
        return ()

    @abstractmethod
    def calls(self, tools: Sequence[Tool] = ()) -> CallParser:
        """Tells calls from the text around them. tools: may be called."""
        ...

    def parser(self, begun: str = "", tools: Sequence[Tool] = ()) -> ToolParser:
        """begun: what `flatten` says that the assistant's turn has begun with."""
        return self.calls(tools)


INPUT_BEFORE, INPUT_AFTER = '{"input": "', '"}'
"""What stands around the text of a custom tool's call, as `write_json` writes its one argument."""
PROBE = ToolCall("probe0001", "probe_call", '{"probe_key": "probe_value"}')
"""The call that a template is asked to write, to see how."""


def declaration(tool: Tool) -> dict[str, Any]:
    """A tool as OpenAI's API writes it, which is how templates and models know it."""
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    function["parameters"] = tool.parameters if tool.parameters is not None else {"type": "object", "properties": {}}
    return {"type": "function", "function": function}


def write_json(value: object) -> str:
    """JSON as models are trained on it: a blank after commas and colons."""
    return json.dumps(value, ensure_ascii=False)


def arguments_of(call: ToolCall) -> dict[str, Any]:
    """The arguments as an object, which is what templates go through.

    {} where there are none. `{"arguments": …}` around what is no object: a list, or the text itself where it is no JSON, as of a call
    that was cut, or too deep to be read.
    """
    if not call.arguments.strip():
        return {}
    found: Any
    try:
        found = json.loads(call.arguments)
    except (ValueError, RecursionError):
        found = call.arguments
    if found is None:
        return {}
    return found if isinstance(found, dict) else {"arguments": found}


def arguments_rule(tool: Tool) -> str:
    """A Lark rule body for a tool's arguments, spaced like `write_json`."""
    if tool.input_grammar is not None:
        return f"{quoted(INPUT_BEFORE)} ({in_json_string(tool.input_grammar)}) {quoted(INPUT_AFTER)}"
    return spaced_json_rule(only_declared(tool.parameters if tool.parameters is not None else {"properties": {}}))


def spaced_json_rule(schema: Mapping[str, Any]) -> str:
    """A Lark rule body for JSON that is spaced like `write_json`."""
    spacing = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    return f"%json {json.dumps({**schema, 'x-guidance': spacing})}"


def _names(required: object) -> list[str]:
    """Of properties that have to be there; what is no list of names is left to the check of the schema."""
    return [name for name in cast(list[object], required) if isinstance(name, str)] if isinstance(required, list) else []


def only_declared(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """A function takes no other arguments than those it lists, be it as `required` alone, though a JSON schema would let them pass.

    Left as it is where something beside `properties` may name further ones.
    """
    opening = {"additionalProperties", "unevaluatedProperties", "patternProperties", "allOf", "anyOf", "oneOf", "$ref", "if"}
    if not isinstance(schema.get("properties"), Mapping) or opening & schema.keys():
        return schema
    listed = {name: {} for name in _names(schema.get("required"))}
    return {"type": "object", **schema, "properties": {**listed, **schema["properties"]}, "additionalProperties": False}


def json_rule(schema: Mapping[str, Any]) -> str:
    """A Lark rule body for the JSON that an answer without calls has to be."""
    return f"%json {json.dumps({**schema, 'x-guidance': {'whitespace_flexible': False}})}"


def call_rules(use: ToolUse, opened: Callable[[Tool], str]) -> tuple[list[str], str]:
    """Lark rules of the arguments of every function that may be called, and the alternatives of a call: `opened`, then arguments."""
    tools = [tool for tool in use.tools if use.only is None or tool.name == use.only]
    rules = [f"arguments_{i}: {arguments_rule(tool)}" for i, tool in enumerate(tools)]
    return rules, " | ".join(f"{quoted(opened(tool))} arguments_{i}" for i, tool in enumerate(tools))


def with_system(messages: Sequence[Message], text: str) -> list[Message]:
    """The conversation with `text` at the end of its system message, which is made where there is none."""
    if messages and messages[0].role in ("system", "developer"):
        first = msgspec.structs.replace(messages[0], content=f"{messages[0].content}\n\n{text}")
        return [first, *messages[1:]]
    return [Message(role="system", content=text), *messages]


def in_first_user_turn(messages: Sequence[Message]) -> list[Message]:
    """The conversation with its system message, which comes first, before the text of the first user message."""
    system, *turns = messages
    first = next((index for index, turn in enumerate(turns) if turn.role == "user"), None)
    if first is None:
        return [Message(role="user", content=system.content), *turns]
    turns[first] = msgspec.structs.replace(turns[first], content=f"{system.content}\n\n{turns[first].content}")
    return turns


def call_names(messages: Sequence[Message]) -> dict[str, str]:
    """Id of every call in the conversation -> the function's name."""
    return {call.id: call.name for message in messages for call in message.tool_calls}


def as_turns(messages: Sequence[Message], write_call: Any, write_result: Any) -> list[Message]:
    """Calls as text of the assistant, results as turns of the user; results that follow each other share a turn.

    Args:
        write_call: text of a ToolCall. write_result: text of a result, from its function's name and its content.
    """
    names = call_names(messages)
    turns: list[Message] = []
    for position, message in enumerate(messages):
        if message.role == "tool":
            text = write_result(names.get(message.tool_call_id or "", ""), message.content)
            if turns and position and messages[position - 1].role == "tool":
                text = f"{turns.pop().content}\n{text}"
            turns.append(Message(role="user", content=text))
        elif message.tool_calls:
            pieces = [message.content, *(write_call(call) for call in message.tool_calls)]
            turns.append(Message(role="assistant", content="\n".join(piece for piece in pieces if piece), reasoning=message.reasoning))
        else:
            turns.append(message)
    return turns
