"""A body of `/v1/responses` in the words of chat, for a server that knows only those."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from mm_gateway.api.responses.request import LEFT_OUT, function_definition, wants_logprobs
from mm_gateway.api.tools import unserved_choice
from mm_gateway.backends.upstream.request import messages_body
from mm_gateway.core import ForwardedBody, Message
from mm_gateway.errors import UnsupportedParameterError
from mm_gateway.protocol import ChatCompletionRequest
from mm_gateway.protocol.forwarded import ForwardedFields
from mm_gateway.protocol.response_request import ResponseRequest, ResponseToolChoice, TextFormat

_READ_HERE = frozenset(
    {"model", "reasoning", "stream", "stream_options", "store", "tools", "tool_choice", "parallel_tool_calls", "top_logprobs"}
)
_SAME = tuple(sorted({*ResponseRequest.__struct_fields__} & {*ChatCompletionRequest.__struct_fields__} - _READ_HERE))
"""Fields that mean the same in both, and pass as they came."""


def as_chat(
    body: ResponseRequest,
    given: ForwardedFields,
    messages: Sequence[Message],
    ignored: list[str],
    unknown: list[str] | None = None,
) -> ForwardedBody:
    """The body that asks for the same.

    Args:
        given: all fields of the body. ignored: gets the paths of what is left out. unknown: as for `decode`.

    Raises:
        UnsupportedParameterError: chat has nothing that means the same.
    """
    if body.truncation == "auto":
        raise UnsupportedParameterError(
            "truncation: a remote model cannot be told to leave out the oldest turns. Send the conversation without them",
            param="truncation",
            code="unsupported_value",
        )
    fields: dict[str, Any] = {name: given[name] for name in _SAME if name in given}
    fields["messages"] = messages_body(messages)
    if body.max_output_tokens is not None:
        fields["max_tokens"] = body.max_output_tokens
    if wants_logprobs(body):
        fields |= {"logprobs": True, "top_logprobs": body.top_logprobs or 0}
    if body.text is not None and body.text.verbosity is not None:
        fields["verbosity"] = body.text.verbosity
    if body.text is not None and body.text.format is not None:
        fields["response_format"] = _response_format(body.text.format)
    if body.reasoning is not None and body.reasoning.effort is not None:
        fields["reasoning_effort"] = body.reasoning.effort
    fields |= _tools(body, ignored, unknown)
    # Of turns that are over no server is told what was thought.
    items = body.input if isinstance(body.input, list) else []
    last = max((index for index, item in enumerate(items) if item.get("role") == "user"), default=-1)
    ignored += [f"input[{index}]" for index, item in enumerate(items[: max(last, 0)]) if item.get("type") == "reasoning"]
    return ForwardedBody(model=body.model_name, endpoint="chat/completions", fields=fields, output_tokens=body.max_output_tokens or 0)


def _response_format(form: TextFormat) -> dict[str, Any]:
    if form.type != "json_schema":
        return {"type": form.type}
    schema = {name: value for name, value in msgspec.structs.asdict(form).items() if name != "type" and value is not None}
    return {"type": "json_schema", "json_schema": schema}


def _tools(body: ResponseRequest, ignored: list[str], unknown: list[str] | None) -> dict[str, Any]:
    tools: list[dict[str, Any]] = []
    for index, tool in enumerate(body.tools or ()):
        if tool.get("type") in LEFT_OUT:
            ignored.append(f"tools[{index}]")
            continue
        function = function_definition(f"tools[{index}]", tool, unknown)
        given = {name: value for name, value in msgspec.structs.asdict(function).items() if value is not None}
        tools.append({"type": "function", "function": given})
    fields: dict[str, Any] = {"tools": tools} if tools else {}
    if body.tool_choice is not None and (tools or body.tool_choice not in ("auto", "none")):
        fields["tool_choice"] = _choice(body.tool_choice)
    if body.parallel_tool_calls is not None and tools:
        fields["parallel_tool_calls"] = body.parallel_tool_calls
    return fields


def _choice(choice: str | ResponseToolChoice) -> Any:
    match choice:
        case str():
            return choice
        case ResponseToolChoice(type="function", name=name):
            return {"type": "function", "function": {"name": name}}
        case ResponseToolChoice(type="allowed_tools", mode=mode, tools=tools):
            functions = [{"type": tool.type, "function": {"name": tool.name}} for tool in tools or ()]
            return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": functions}}
        case _:
            raise unserved_choice(choice.type)
