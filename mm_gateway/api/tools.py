"""From `tools`, `tool_choice` and `parallel_tool_calls` of a chat body to what may and must be called."""

from __future__ import annotations

import re

from mm_gateway.core import Tool, ToolUse
from mm_gateway.errors import InvalidRequestError, UnsupportedParameterError
from mm_gateway.protocol import ChatCompletionRequest, FunctionTool, TokenizeRequest, ToolChoice

MAX_TOOLS = 128
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def read_tools(body: ChatCompletionRequest | TokenizeRequest) -> ToolUse | None:
    """None: nothing may be called.

    Raises:
        InvalidRequestError: a name, a schema or a choice is wrong. UnsupportedParameterError: a kind of tool that is not served.
    """
    tools = tuple(_tool(index, tool) for index, tool in enumerate(body.tools or ()))
    names = [tool.name for tool in tools]
    if len(tools) > MAX_TOOLS:
        raise InvalidRequestError(f"tools takes up to {MAX_TOOLS} functions, got {len(tools)}", param="tools")
    for index, name in enumerate(names):
        if name in names[:index]:
            raise InvalidRequestError(
                f"tools[{index}]: there is another function of the name '{name}'", param=f"tools[{index}].function.name"
            )
    choice = body.tool_choice
    if not tools:
        if choice not in (None, "none", "auto"):
            raise InvalidRequestError("tool_choice is only allowed when tools are specified", param="tool_choice")
        if body.parallel_tool_calls is not None:
            raise InvalidRequestError("parallel_tool_calls is only allowed when tools are specified", param="parallel_tool_calls")
        return None
    parallel = body.parallel_tool_calls is not False
    match choice:
        case None | "auto":
            return ToolUse(tools, parallel=parallel)
        case "none":
            return None
        case "required":
            return ToolUse(tools, required=True, parallel=parallel)
        case ToolChoice():
            return _chosen(choice, tools, parallel)
        case _:
            raise InvalidRequestError(f"tool_choice must be none, auto, required or a tool, got '{choice[:50]}'", param="tool_choice")


def _chosen(choice: ToolChoice, tools: tuple[Tool, ...], parallel: bool) -> ToolUse:
    if choice.type == "function" and choice.function is not None:
        _known(choice.function.name, tools, "tool_choice.function.name")
        return ToolUse(tools, required=True, only=choice.function.name, parallel=False)
    if choice.type == "allowed_tools" and choice.allowed_tools is not None:
        allowed = {tool.function.name if tool.function is not None else tool.name for tool in choice.allowed_tools.tools}
        for name in allowed:
            _known(name or "", tools, "tool_choice.allowed_tools.tools")
        if not allowed:
            raise InvalidRequestError("allowed_tools must hold at least one tool", param="tool_choice.allowed_tools.tools")
        kept = tuple(tool for tool in tools if tool.name in allowed)
        return ToolUse(kept, required=choice.allowed_tools.mode == "required", parallel=parallel)
    raise UnsupportedParameterError(
        f"tool_choice of type '{choice.type[:50]}' is not supported by this server, only 'function' and 'allowed_tools'",
        param="tool_choice.type",
        code="unsupported_value",
    )


def _known(name: str, tools: tuple[Tool, ...], param: str) -> None:
    if name not in [tool.name for tool in tools]:
        raise InvalidRequestError(f"Tool choice '{name[:64]}' not found in 'tools' parameter.", param=param)


def _tool(index: int, tool: FunctionTool) -> Tool:
    at = f"tools[{index}]"
    if tool.type != "function":
        raise UnsupportedParameterError(
            f"Tools of type '{tool.type[:50]}' are not supported by this server, only 'function'",
            param=f"{at}.type",
            code="unsupported_value",
        )
    function = tool.function
    if function is None:
        raise InvalidRequestError(f"You must provide the parameter: {at}.function", param=f"{at}.function")
    if _NAME.fullmatch(function.name) is None:
        raise InvalidRequestError(
            f"{at}.function.name must be 1 to 64 letters, digits, underscores or dashes, got '{function.name[:64]}'",
            param=f"{at}.function.name",
        )
    kind = (function.parameters or {}).get("type", "object")
    if kind != "object":
        raise InvalidRequestError(
            f"Invalid schema for function '{function.name}': schema must be a JSON Schema of 'type: \"object\"'",
            param=f"{at}.function.parameters",
            code="invalid_function_parameters",
        )
    # Without a type any JSON would do, but arguments are an object.
    parameters = {"type": "object", **function.parameters} if function.parameters is not None else None
    return Tool(function.name, function.description or "", parameters, bool(function.strict))
