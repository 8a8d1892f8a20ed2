"""What the mock makes up where a reply has to have a form: arguments of a tool call, and text that follows a grammar; always the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mm_gateway.core import ChatInput, Grammar, Tool, ToolUse
from mm_gateway.errors import InvalidRequestError, UnsupportedParameterError

MAX_EXAMPLE = 2**16
"""Values, and characters of texts, in what is made up."""


def called_tool(chat: ChatInput, ordered: str | None) -> Tool | None:
    """The function that has to be called: the one of the request's choice, else the one that `!mock call=` orders.

    Raises:
        InvalidRequestError: the request has no function of the name that is ordered.
    """
    use = chat.tools
    if use is None:
        return None
    name = use.only or ordered
    if name is None:
        return use.tools[0] if use.required else None
    return _named(use, name)


def _named(use: ToolUse, name: str) -> Tool:
    found = next((tool for tool in use.tools if tool.name == name), None)
    if found is None:
        raise InvalidRequestError(f"!mock call={name}: the request has no such tool", param="messages")
    return found


def arguments_for(tool: Tool) -> str:
    """JSON that fits a schema without `$ref`, patterns and combinations; those are not looked into."""
    return json.dumps(_example(tool.parameters or {"type": "object"}, "tools"))


def text_for(grammar: Grammar) -> str:
    """A text that follows a grammar; schemas as for `arguments_for`.

    Raises:
        UnsupportedParameterError: it is a regular expression or a grammar of its own, or asks for more than `MAX_EXAMPLE`.
    """
    match grammar.kind:
        case "json_object":
            return _compact({"text": "text"})
        case "json_schema":
            return _compact(_example(_loads(grammar), grammar.param))
        case "choice":
            return str(_loads(grammar)[0])
        case _:
            raise UnsupportedParameterError(f"The mock model does not support {grammar.param}", param=grammar.param)


def _example(schema: Any, param: str) -> Any:
    try:
        return _Examples(param).of(schema)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        # Nothing has checked it before, and any keyword may be of any type.
        raise InvalidRequestError(
            f"{param}: this is no JSON schema, a keyword has a value of the wrong type ({error})", param=param
        ) from None


def _loads(grammar: Grammar) -> Any:
    try:
        return json.loads(grammar.text)
    except ValueError as error:
        raise InvalidRequestError(f"{grammar.param}: {error}", param=grammar.param) from None


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


class _Examples:
    """Makes values that fit schemas.

    Args:
        param: the field that holds the schema, for errors. left: values and characters that may still be made.
    """

    def __init__(self, param: str) -> None:
        self._param = param
        self._left = MAX_EXAMPLE

    def of(self, schema: Any) -> Any:
        """A value for a schema.

        Raises:
            UnsupportedParameterError: it asks for more than the mock makes up.
        """
        self._take(1)
        if not isinstance(schema, Mapping):
            return {}
        for key in ("const", "default"):
            if key in schema:
                return schema[key]
        if schema.get("enum"):
            return schema["enum"][0]
        kind = schema.get("type")
        match kind[0] if isinstance(kind, list) and kind else kind:
            case "string":
                size = schema.get("minLength", 0)
                self._take(size)
                return "text".ljust(size, "x")[: schema.get("maxLength")]
            case "integer" | "number":
                return max(schema.get("minimum", 0), schema.get("exclusiveMinimum", -1) + 1)
            case "boolean":
                return True
            case "array":
                first = [self.of(entry) for entry in schema.get("prefixItems", ())]
                more = schema.get("minItems", 0 if first else 1) - len(first)
                return first + [self.of(schema.get("items", {})) for _ in range(more)]
            case "null":
                return None
            case _:
                return {name: self.of(entry) for name, entry in schema.get("properties", {}).items()}

    def _take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise UnsupportedParameterError(
                f"The mock model makes up at most {MAX_EXAMPLE} values and characters, and the schema asks for more", param=self._param
            )
