"""Calls of all kinds of tools: what each is as a function, which is all that a model knows, and as the item that a client knows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

import jiter
import msgspec

from mm_gateway.api.custom_tools import arguments_of, input_of
from mm_gateway.core import Tool
from mm_gateway.protocol.response_calls import (
    ApplyPatchCallItem,
    ApplyPatchCallOutputItem,
    CustomCallItem,
    CustomCallOutputItem,
    LocalShellCallItem,
    LocalShellCallOutputItem,
    ShellCallItem,
    ShellCallOutputItem,
    ToolCallItem,
    ToolOutputItem,
)
from mm_gateway.protocol.responses import FunctionCallItem, FunctionCallOutputItem, ItemStatus

CallKind = Literal["function", "custom", "local_shell", "shell", "apply_patch"]
BuiltIn = Literal["local_shell", "shell", "apply_patch"]
CallItem = FunctionCallItem | ToolCallItem
OutputOfCall = FunctionCallOutputItem | ToolOutputItem
CALL_ITEMS = (FunctionCallItem, CustomCallItem, LocalShellCallItem, ShellCallItem, ApplyPatchCallItem)
OUTPUT_ITEMS = (FunctionCallOutputItem, CustomCallOutputItem, LocalShellCallOutputItem, ShellCallOutputItem, ApplyPatchCallOutputItem)

ITEM_TYPES: Mapping[CallKind, str] = {
    "function": "function_call",
    "custom": "custom_tool_call",
    "local_shell": "local_shell_call",
    "shell": "shell_call",
    "apply_patch": "apply_patch_call",
}
_MILLISECONDS = {"type": "integer", "minimum": 1, "description": "After which it is stopped."}


def _object(properties: Mapping[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


BUILT_IN: Mapping[BuiltIn, Tool] = {
    "local_shell": Tool(
        "local_shell",
        "Run a command on the user's machine.",
        _object(
            {
                "command": {"type": "array", "items": {"type": "string"}, "minItems": 1, "description": "The program and its arguments."},
                "working_directory": {"type": "string", "description": "The folder to run it in."},
                "timeout_ms": _MILLISECONDS,
                "env": {"type": "object", "additionalProperties": {"type": "string"}, "description": "Further environment variables."},
                "user": {"type": "string", "description": "The user to run it as."},
            },
            "command",
        ),
    ),
    "shell": Tool(
        "shell",
        "Run commands in a shell, one after the other.",
        _object(
            {
                "commands": {"type": "array", "items": {"type": "string"}, "minItems": 1, "description": "The command lines."},
                "timeout_ms": _MILLISECONDS,
                "max_output_length": {"type": "integer", "minimum": 1, "description": "Most characters of output to be returned."},
            },
            "commands",
        ),
    ),
    "apply_patch": Tool(
        "apply_patch",
        "Create, change or delete one file.",
        _object(
            {
                "type": {"type": "string", "enum": ["create_file", "update_file", "delete_file"], "description": "What to do."},
                "path": {"type": "string", "description": "The file."},
                "diff": {
                    "type": "string",
                    "description": "create_file: the content, each line after a +. update_file: the changes, after lines of @@ and "
                    "context: lines that stay after a blank, that go after a -, that come after a +.",
                },
            },
            "type",
            "path",
        ),
    ),
}
"""Tools of OpenAI's that clients run, by type, with the shape of its call items."""


class Called(msgspec.Struct, frozen=True):
    """What a function of a request is to the client.

    Attributes:
        name: as the client knows it. namespace: the group that it is in.
    """

    kind: CallKind
    name: str
    namespace: str | None = None


def function_name(name: str, namespace: str | None) -> str:
    """Under which a model knows a tool of a group; other servers take nothing but letters, digits, underscores and dashes."""
    return name if namespace is None else f"{namespace}__{name}"


def call_item(called: Called, id: str, call_id: str, arguments: str, status: ItemStatus) -> CallItem:
    """A call, or what there is of one so far."""
    namespace = called.namespace if called.namespace is not None else msgspec.UNSET
    match called.kind:
        case "function":
            return FunctionCallItem(id, call_id, called.name, arguments, status, namespace)
        case "custom":
            return CustomCallItem(id, call_id, called.name, input_of(arguments), status, namespace)
        case "local_shell":
            return LocalShellCallItem(id, call_id, {"type": "exec", "command": [], "env": {}, **_found(arguments)}, status)
        case "shell":
            return ShellCallItem(id, call_id, {"commands": [], **_found(arguments)}, status)
        case "apply_patch":
            return ApplyPatchCallItem(id, call_id, _operation(_found(arguments)), status)


def as_function(item: CallItem) -> tuple[str, str]:
    """The name and the arguments of the function that a call is to a model."""
    match item:
        case FunctionCallItem(name=name, arguments=arguments, namespace=namespace):
            return function_name(name, namespace or None), arguments
        case CustomCallItem(name=name, input=text, namespace=namespace):
            return function_name(name, namespace or None), arguments_of(text)
        case LocalShellCallItem(action=action):
            return "local_shell", _json({name: value for name, value in action.items() if name != "type" and value})
        case ShellCallItem(action=action):
            return "shell", _json({name: value for name, value in action.items() if value})
        case ApplyPatchCallItem(operation=operation):
            return "apply_patch", _json(operation)


def as_text(item: LocalShellCallOutputItem | ShellCallOutputItem | ApplyPatchCallOutputItem) -> str:
    """A result as a model reads it."""
    match item:
        case LocalShellCallOutputItem(output=output):
            return output
        case ShellCallOutputItem(output=output):
            return "\n".join(map(_printed, output))
        case ApplyPatchCallOutputItem(status=status, output=output):
            return output or ("Done." if status == "completed" else "Failed.")


def _printed(output: Mapping[str, Any]) -> str:
    """What one command printed, and how it ended where that is not plain success."""
    outcome: Any = output.get("outcome")
    end = ""
    if isinstance(outcome, Mapping):
        if outcome.get("type") == "timeout":  # pyright: ignore[reportUnknownMemberType]
            end = "(stopped: it took too long)"
        elif code := outcome.get("exit_code"):  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
            end = f"(exit status {code})"
    return "\n".join(str(text).rstrip("\n") for text in (output.get("stdout"), output.get("stderr"), end) if text)


def _found(arguments: str) -> dict[str, Any]:
    """As far as they came."""
    try:
        found: Any = jiter.from_json(arguments.encode() or b"{}", partial_mode="trailing-strings")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}  # pyright: ignore[reportUnknownVariableType]


def _operation(found: Mapping[str, Any]) -> dict[str, Any]:
    kind = found.get("type", "update_file")
    changes = {} if kind == "delete_file" else {"diff": found.get("diff", "")}
    return {"type": kind, "path": found.get("path", ""), **changes}


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)
