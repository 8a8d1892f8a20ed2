"""A body of `/v1/responses` in the words of chat, for a server that knows only those."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import msgspec

from mm_gateway.api.responses.request import wants_logprobs
from mm_gateway.backends.upstream.request import messages_body, tools_body, unenforced
from mm_gateway.core import ForwardedBody, Message, ToolUse
from mm_gateway.errors import UnsupportedParameterError
from mm_gateway.protocol import ChatCompletionRequest
from mm_gateway.protocol.forwarded import ForwardedFields
from mm_gateway.protocol.response_request import ResponseRequest, TextFormat

_READ_HERE = frozenset(
    {"model", "reasoning", "stream", "stream_options", "store", "tools", "tool_choice", "parallel_tool_calls", "top_logprobs"}
)
_SAME = tuple(sorted({*ResponseRequest.__struct_fields__} & {*ChatCompletionRequest.__struct_fields__} - _READ_HERE))
"""Fields that mean the same in both, and pass as they came."""


def as_chat(
    body: ResponseRequest,
    given: ForwardedFields,
    messages: Sequence[Message],
    tools: ToolUse | None,
    ignored: list[str],
) -> ForwardedBody:
    """The body that asks for the same.

    Args:
        given: all fields of the body. tools: what may and must be called. ignored: gets the paths of what is left out.

    Raises:
        UnsupportedParameterError: chat has nothing that means the same.
    """
    if body.truncation == "auto":
        raise UnsupportedParameterError(
            "truncation: a remote model cannot be told to leave out the oldest turns. Send the conversation without them",
            param="truncation",
            code="unsupported_value",
        )
    if any("file_url" in part.get("file", ()) for message in messages for part in message.parts):
        raise _no_addresses(body)
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
    if tools is not None:
        fields |= tools_body(tools)
        ignored += unenforced(tools)
    # Of turns that are over no server is told what was thought.
    items = body.input if isinstance(body.input, list) else []
    last = max((index for index, item in enumerate(items) if item.get("role") == "user"), default=-1)
    ignored += [f"input[{index}]" for index, item in enumerate(items[: max(last, 0)]) if item.get("type") == "reasoning"]
    return ForwardedBody(model=body.model_name, endpoint="chat/completions", fields=fields, output_tokens=body.max_output_tokens or 0)


def _no_addresses(body: ResponseRequest) -> UnsupportedParameterError:
    """Of a file: at its path, where the body itself holds it and no earlier turn."""
    param = "input"
    for index, item in enumerate(body.input if isinstance(body.input, list) else ()):
        for name in ("content", "output"):
            parts = cast("list[dict[str, Any]] | str | None", item.get(name))
            places = [place for place, part in enumerate(parts) if part.get("file_url")] if isinstance(parts, list) else []
            param = f"input[{index}].{name}[{places[0]}].file_url" if places else param
    return UnsupportedParameterError(
        f"{param}: the server of this model is asked by chat, which has no files by address. Send file_data",
        param=param,
        code="unsupported_value",
    )


def _response_format(form: TextFormat) -> dict[str, Any]:
    if form.type != "json_schema":
        return {"type": form.type}
    schema = {name: value for name, value in msgspec.structs.asdict(form).items() if name != "type" and value is not None}
    return {"type": "json_schema", "json_schema": schema}
