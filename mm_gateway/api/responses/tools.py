"""From `tools` and `tool_choice` of `/v1/responses` to what may and must be called, and what each of it is to the client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec

from mm_gateway.api.custom_tools import custom_tool
from mm_gateway.api.responses.call_items import BUILT_IN, BuiltIn, Called, function_name
from mm_gateway.api.responses.searches import KINDS, AskedSearches
from mm_gateway.api.tools import (
    SERVER_TOOLS,
    OneFunction,
    SomeFunctions,
    check_name,
    function_tool,
    functions_of,
    tool_use,
    unserved_choice,
)
from mm_gateway.backends.searching import FUNCTIONS, Searcher
from mm_gateway.core import Tool, ToolUse
from mm_gateway.errors import InvalidRequestError, UnsupportedParameterError
from mm_gateway.protocol import FunctionDefinition
from mm_gateway.protocol.decoding import convert
from mm_gateway.protocol.response_request import ResponseRequest, ResponseToolChoice

LEFT_OUT = SERVER_TOOLS | {"programmatic_tool_calling", "tool_search"}
"""Types of tools that a model here cannot be given."""
_IN_CONTAINER = "shell in a container"


class _CustomTool(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    description: str | None = None
    format: dict[str, Any] | None = None


class _Namespace(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    tools: list[dict[str, Any]]
    description: str | None = None


class ResponseTools:
    """The tools of one body.

    Args:
        searcher: what can be searched; None: another server answers, which is asked for no searches. ignored: gets the paths of what is
            left out. unknown: as for `decode`.

    Attributes:
        use: what may and must be called; None: nothing. called: what each function is to the client, by the name that the model knows.
        searches: what the model may search; None: nothing.

    Raises:
        InvalidRequestError: a name, a schema, a grammar or a choice is wrong. UnsupportedParameterError: a kind of tool that is not served.
    """

    def __init__(self, body: ResponseRequest, searcher: Searcher | None, ignored: list[str], unknown: list[str] | None = None) -> None:
        self._unknown = unknown
        self._searches = AskedSearches(searcher, ignored, unknown) if searcher is not None else None
        self._served = self._searches.served if self._searches is not None else frozenset[str]()
        self.called: dict[str, Called] = {}
        given = body.tools or []
        choice = self._choice(body.tool_choice) if isinstance(body.tool_choice, ResponseToolChoice) else body.tool_choice
        self._left_out = (LEFT_OUT | {_IN_CONTAINER}) - self._served
        tools = functions_of(
            [_kind(tool) for tool in given],
            lambda index: self._read(f"tools[{index}]", given[index]),
            choice,
            ignored,
            self._left_out,
        )
        self.use: ToolUse | None = tool_use(tools, choice, parallel=body.parallel_tool_calls is not False, name_field="name")
        self.searches = self._searches.plan(body.max_tool_calls) if self._searches is not None and self.use is not None else None

    def shown(self, tools: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]]:
        """The tools as the response repeats them: those that were not left out, functions with all of their fields."""
        found: list[dict[str, Any]] = []
        for tool in tools or ():
            if tool.get("type") == "function":
                strict = tool.get("strict") is not False
                about = {"description": tool.get("description"), "parameters": tool.get("parameters")}
                found.append({"type": "function", "name": tool["name"], **about, "strict": strict})
            elif _kind(tool) not in self._left_out:
                found.append({"type": tool["type"], **_without_nulls(tool)})
        return found

    def _read(self, at: str, tool: Mapping[str, Any], group: str | None = None) -> list[Tool]:
        kind: Any = tool.get("type")
        if kind is None:
            raise InvalidRequestError(f"You must provide the parameter: {at}.type", param=f"{at}.type")
        if not isinstance(kind, str):
            raise InvalidRequestError(f"Invalid value for '{at}.type': Expected `str`", param=f"{at}.type")
        if kind == "function":
            return [self._named(at, function_tool(at, function_definition(at, tool, self._unknown)), Called("function", "", group))]
        if kind == "custom":
            given = convert(_without_nulls(tool), _CustomTool, at, self._unknown)
            check_name(f"{at}.name", given.name)
            return [self._named(at, custom_tool(f"{at}.format", given.name, given.description, given.format), Called("custom", "", group))]
        if group is None and kind in self._served and self._searches is not None:
            return [self._searches.read(at, kind, _without_nulls(tool))]
        if kind == "namespace" and group is None:
            return self._group(at, convert(_without_nulls(tool), _Namespace, at, self._unknown))
        if group is None and kind in BUILT_IN:
            which = cast(BuiltIn, kind)
            self.called[which] = Called(which, which)
            return [BUILT_IN[which]]
        served = ["function", "custom", *([] if group is not None else ["namespace", *BUILT_IN])]
        raise UnsupportedParameterError(
            f"Tools of type '{str(kind)[:50]}' are not supported by this server, only {', '.join(map(repr, served))}",
            param=f"{at}.type",
            code="unsupported_value",
        )

    def _choice(self, choice: ResponseToolChoice) -> OneFunction | SomeFunctions:
        if choice.type in self._served:
            return OneFunction(FUNCTIONS[KINDS[choice.type]].name, "tool_choice.type")
        return _chosen(choice)

    def _group(self, at: str, group: _Namespace) -> list[Tool]:
        check_name(f"{at}.name", group.name)
        tools = [tool for index, entry in enumerate(group.tools) for tool in self._read(f"{at}.tools[{index}]", entry, group.name)]
        if group.description is None:
            return tools
        return [msgspec.structs.replace(tool, description=f"{tool.description}\n\n{group.description}".lstrip()) for tool in tools]

    def _named(self, at: str, tool: Tool, called: Called) -> Tool:
        name = function_name(tool.name, called.namespace)
        check_name(f"{at}.name", name)
        self.called[name] = msgspec.structs.replace(called, name=tool.name)
        return msgspec.structs.replace(tool, name=name)


def function_definition(at: str, tool: Mapping[str, Any], unknown: list[str] | None) -> FunctionDefinition:
    """The function that a tool of type `function` at a path of the body is. unknown: as for `decode`.

    Raises:
        InvalidRequestError: a field is wrong.
    """
    return convert(_without_nulls(tool), FunctionDefinition, at, unknown)


def _kind(tool: Mapping[str, Any]) -> str:
    kind = str(tool.get("type"))
    environment: Any = tool.get("environment") if kind == "shell" else None
    match environment:
        case {"type": str(where)} if where != "local":
            return _IN_CONTAINER
        case _:
            return kind


def _without_nulls(tool: Mapping[str, Any]) -> dict[str, Any]:
    """A tool's fields; what turns a feature off that is not there is no request for it."""
    fields = {name: value for name, value in tool.items() if name != "type" and value is not None}
    for name in ("async", "defer_loading"):
        if fields.get(name) is False:
            del fields[name]
    if fields.get("allowed_callers") == ["direct"]:
        del fields["allowed_callers"]
    return fields


def _own_name(kind: str) -> str:
    """Of the function that a tool of a type without names is."""
    return FUNCTIONS[KINDS[kind]].name if kind in KINDS else kind if kind in BUILT_IN else ""


def _chosen(choice: ResponseToolChoice) -> OneFunction | SomeFunctions:
    if choice.type in ("function", "custom"):
        if choice.name is None:
            raise InvalidRequestError("You must provide the parameter: tool_choice.name", param="tool_choice.name")
        return OneFunction(function_name(choice.name, choice.namespace), "tool_choice.name")
    if choice.type in BUILT_IN:
        return OneFunction(choice.type, "tool_choice.type")
    if choice.type == "allowed_tools":
        if choice.mode is None or choice.tools is None:
            missing = "tool_choice.mode" if choice.mode is None else "tool_choice.tools"
            raise InvalidRequestError(f"You must provide the parameter: {missing}", param=missing)
        names = tuple(tool.name or _own_name(tool.type) for tool in choice.tools)
        return SomeFunctions(choice.mode, names, "tool_choice.tools")
    raise unserved_choice(choice.type)
