"""From `tools`, `tool_choice` and `parallel_tool_calls` of a body to what may and must be called."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence

import msgspec

from mm_gateway.api.custom_tools import custom_tool
from mm_gateway.core import Tool, ToolUse
from mm_gateway.errors import InvalidRequestError, UnsupportedParameterError
from mm_gateway.protocol import ChatCompletionRequest, FunctionDefinition, TokenizeRequest, ToolChoice, ToolEntry

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


SERVER_TOOLS = frozenset(
    {
        "code_interpreter",
        "computer",
        "computer_use_preview",
        "file_search",
        "image_generation",
        "mcp",
        "web_search",
        "web_search_2025_08_26",
        "web_search_preview",
        "web_search_preview_2025_03_11",
    }
)
"""Types of tools that OpenAI's servers run themselves."""


class OneFunction(msgspec.Struct, frozen=True):
    """The choice of one function. at: path of its name in the body."""

    name: str
    at: str


class SomeFunctions(msgspec.Struct, frozen=True):
    """The choice among some of the functions. at: path of the list in the body."""

    mode: str
    names: tuple[str, ...]
    at: str


def read_tools(body: ChatCompletionRequest | TokenizeRequest, ignored: list[str]) -> ToolUse | None:
    """None: nothing may be called.

    Args:
        ignored: gets the paths of tools that are left out, see `functions_of`.

    Raises:
        InvalidRequestError: a name, a schema or a choice is wrong. UnsupportedParameterError: a kind of tool that is not served.
    """
    if not body.tools and body.parallel_tool_calls is not None:
        raise InvalidRequestError("parallel_tool_calls is only allowed when tools are specified", param="parallel_tool_calls")
    choice = _choice(body.tool_choice) if isinstance(body.tool_choice, ToolChoice) else body.tool_choice
    tools = functions_of([tool.type for tool in body.tools or ()], lambda index: _tool(index, (body.tools or [])[index]), choice, ignored)
    return tool_use(tools, choice, parallel=body.parallel_tool_calls is not False, name_field="function.name")


def functions_of(
    kinds: Sequence[str],
    read: Callable[[int], Tool | Sequence[Tool]],
    choice: object,
    ignored: list[str],
    left_out: Collection[str] = SERVER_TOOLS,
) -> list[tuple[int, Tool]]:
    """The functions among the tools of a body, with their place there.

    Args:
        kinds: the `type` of each tool. read: the function at a place, or the functions. choice: the body's.
        ignored: gets the paths of tools that cannot be run, which are left out: a model that may choose has nothing to choose there.
        left_out: types that are treated so.
    """
    unserved = [index for index, kind in enumerate(kinds) if kind in left_out]
    if choice == "required" and unserved and len(unserved) == len(kinds):
        raise unserved_tool(kinds[0], "tools[0]")
    ignored += [f"tools[{index}]" for index in unserved]
    found: list[tuple[int, Tool]] = []
    for index in range(len(kinds)):
        if index not in unserved:
            tools = read(index)
            found += [(index, tool) for tool in ([tools] if isinstance(tools, Tool) else tools)]
    return found


def tool_use(
    tools: Sequence[tuple[int, Tool]], choice: str | OneFunction | SomeFunctions | None, *, parallel: bool, name_field: str
) -> ToolUse | None:
    """What may and must be called; None: nothing.

    Args:
        tools: with their place in the body. choice: `none`, `auto`, `required`, a function, some functions, or None, which means `auto`.
        name_field: where in an entry of the body's `tools` its name stands.

    Raises:
        InvalidRequestError: a name twice, or a choice that does not fit them.
    """
    seen: set[str] = set()
    for index, tool in tools:
        if tool.name in seen:
            at = f"tools[{index}]"
            raise InvalidRequestError(f"{at}: there is another function of the name '{tool.name}'", param=f"{at}.{name_field}")
        seen.add(tool.name)
    if not tools:
        if choice not in (None, "none", "auto"):
            raise InvalidRequestError("tool_choice is only allowed when tools are specified", param="tool_choice")
        return None
    match choice:
        case None | "auto":
            return _use(tools, parallel=parallel)
        case "none":
            return None
        case "required":
            return _use(tools, required=True, parallel=parallel)
        case OneFunction(name, at):
            _known(name, seen, at)
            return _use(tools, required=True, only=name, parallel=False)
        case SomeFunctions(mode, allowed, at):
            for name in allowed:
                _known(name, seen, at)
            if not allowed:
                raise InvalidRequestError("allowed_tools must hold at least one tool", param=at)
            some = [(index, tool) for index, tool in tools if tool.name in allowed]
            return _use(some, required=mode == "required", parallel=parallel)
        case _:
            raise InvalidRequestError(f"tool_choice must be none, auto, required or a tool, got '{choice[:50]}'", param="tool_choice")


def _use(tools: Sequence[tuple[int, Tool]], *, required: bool = False, only: str | None = None, parallel: bool) -> ToolUse:
    places = tuple(index for index, _ in tools)
    places = () if places == tuple(range(len(tools))) else places
    return ToolUse(tuple(tool for _, tool in tools), required=required, only=only, parallel=parallel, places=places)


def unserved_choice(kind: str) -> UnsupportedParameterError:
    return UnsupportedParameterError(
        f"tool_choice of type '{kind[:50]}' is not supported by this server, only 'function', 'custom' and 'allowed_tools'",
        param="tool_choice.type",
        code="unsupported_value",
    )


def unserved_tool(kind: str, at: str) -> UnsupportedParameterError:
    return UnsupportedParameterError(
        f"Tools of type '{kind[:50]}' are not supported by this server, only 'function' and 'custom'",
        param=f"{at}.type",
        code="unsupported_value",
    )


def check_name(at: str, name: str) -> None:
    """Raises InvalidRequestError where a tool cannot be named so; at: path of the name."""
    if _NAME.fullmatch(name) is None:
        raise InvalidRequestError(f"{at} must be 1 to 64 letters, digits, underscores or dashes, got '{name[:64]}'", param=at)


def function_tool(at: str, function: FunctionDefinition) -> Tool:
    """A function as it was given at a path of the body; errors as for `read_tools`."""
    check_name(f"{at}.name", function.name)
    kind = (function.parameters or {}).get("type", "object")
    if kind != "object":
        raise InvalidRequestError(
            f"Invalid schema for function '{function.name}': schema must be a JSON Schema of 'type: \"object\"'",
            param=f"{at}.parameters",
            code="invalid_function_parameters",
        )
    parameters = function.parameters
    if parameters is not None and "type" not in parameters:
        # Without a type any JSON would do, but arguments are an object. One that is there keeps its place, as templates write it.
        parameters = {"type": "object", **parameters}
    return Tool(function.name, function.description or "", parameters, bool(function.strict))


def _choice(choice: ToolChoice) -> OneFunction | SomeFunctions:
    if choice.type == "function" and choice.function is not None:
        return OneFunction(choice.function.name, "tool_choice.function.name")
    if choice.type == "custom" and choice.custom is not None:
        return OneFunction(choice.custom.name, "tool_choice.custom.name")
    if choice.type == "allowed_tools" and choice.allowed_tools is not None:
        named = [(tool.function or tool.custom, tool.name) for tool in choice.allowed_tools.tools]
        names = [tool.name if tool is not None else name for tool, name in named]
        return SomeFunctions(choice.allowed_tools.mode, tuple(name or "" for name in names), "tool_choice.allowed_tools.tools")
    raise unserved_choice(choice.type)


def _tool(index: int, tool: ToolEntry) -> Tool:
    at = f"tools[{index}]"
    if tool.type == "custom":
        if tool.custom is None:
            raise InvalidRequestError(f"You must provide the parameter: {at}.custom", param=f"{at}.custom")
        check_name(f"{at}.custom.name", tool.custom.name)
        return custom_tool(f"{at}.custom.format", tool.custom.name, tool.custom.description, tool.custom.format)
    if tool.type != "function":
        raise unserved_tool(tool.type, at)
    if tool.function is None:
        raise InvalidRequestError(f"You must provide the parameter: {at}.function", param=f"{at}.function")
    return function_tool(f"{at}.function", tool.function)


def _known(name: str, names: Collection[str], param: str) -> None:
    if name not in names:
        raise InvalidRequestError(f"Tool choice '{name[:64]}' not found in 'tools' parameter.", param=param)
