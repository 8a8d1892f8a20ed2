"""The mock's tool calls: which function it calls, and arguments that are made up from the schema, always the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mm_gateway.core import ChatInput, Tool, ToolUse
from mm_gateway.errors import InvalidRequestError


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
    return json.dumps(_example(tool.parameters or {"type": "object"}))


def _example(schema: Any) -> Any:
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
            return "text".ljust(schema.get("minLength", 0), "x")[: schema.get("maxLength")]
        case "integer" | "number":
            return max(schema.get("minimum", 0), schema.get("exclusiveMinimum", -1) + 1)
        case "boolean":
            return True
        case "array":
            return [_example(schema.get("items", {}))] * max(1, schema.get("minItems", 1))
        case "null":
            return None
        case _:
            return {name: _example(entry) for name, entry in schema.get("properties", {}).items()}
