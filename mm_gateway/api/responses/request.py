"""From a body of `/v1/responses` to a GenerationRequest: tools, text format, and what is not served refused by name."""

from __future__ import annotations

from typing import Any

import msgspec

from mm_gateway.api.generation_config import check_logprob_entries, generation_config, keep_alive_s, only_grammar, structured_outputs
from mm_gateway.api.reasoning import response_reasoning
from mm_gateway.core import ChatInput, GenerationRequest, Grammar, Message, Rendering, ToolUse
from mm_gateway.errors import InvalidRequestError, UnsupportedParameterError
from mm_gateway.protocol.policy import refuse_unserved
from mm_gateway.protocol.response_request import ResponseRequest, ResponseToolChoice, TextFormat
from mm_gateway.protocol.responses import ReasoningReply, ResponseObject

LOGPROBS = "message.output_text.logprobs"
ENCRYPTED = "reasoning.encrypted_content"


def wants_logprobs(body: ResponseRequest) -> bool:
    """Asked for by `include`, or by a number of them."""
    return LOGPROBS in (body.include or ()) or bool(body.top_logprobs)


def check(body: ResponseRequest) -> None:
    """What can be said before anything is looked up.

    Raises:
        InvalidRequestError: fields are missing or do not go together. UnsupportedParameterError: something that is not served.
    """
    refuse_unserved(body)
    if body.input is None and body.previous_response_id is None:
        raise InvalidRequestError(
            "One of 'input' or 'previous_response_id' must be provided.", param="input", code="missing_required_parameter"
        )
    if body.input == []:
        raise InvalidRequestError("input must hold at least one item", param="input", code="empty_array")
    if body.background and body.store is False:
        raise InvalidRequestError("background: true is only allowed when the response is stored: leave store: false out", param="store")
    if body.stream_options is not None and not body.stream:
        raise InvalidRequestError("stream_options is only allowed when stream is true", param="stream_options")
    check_logprob_entries(
        1,
        (body.top_logprobs or 0) if wants_logprobs(body) else None,
        body.max_output_tokens,
        limit_field="max_output_tokens",
        logprobs_field="top_logprobs",
    )


def response_request(
    body: ResponseRequest, request_id: str, messages: tuple[Message, ...], tools: ToolUse | None, *, media: bool
) -> GenerationRequest:
    """What a body asks for, over the messages of its conversation.

    Args:
        tools: what may and must be called. media: messages may have parts that are no text.

    Raises:
        InvalidRequestError: a value out of range; UnsupportedParameterError: something that is not served.
    """
    if not media and any(message.parts for message in messages):
        raise UnsupportedParameterError(
            "The conversation so far has parts that are not text, which this model cannot read", param="previous_response_id"
        )
    return GenerationRequest(
        request_id=request_id,
        model=body.model_name,
        input=ChatInput(
            messages,
            tools,
            Rendering(variables=body.chat_template_kwargs or {}),
            truncate=body.truncation == "auto",
            reasoning=response_reasoning(body),
        ),
        config=generation_config(
            body,
            max_new_tokens=body.max_output_tokens,
            logprobs=(body.top_logprobs or 0) if wants_logprobs(body) else None,
            grammar=_grammar(body),
        ),
        keep_alive=keep_alive_s(body.keep_alive),
        metadata=body.metadata or {},
        workflow=body.workflow,
        user=body.user,
    )


def new_response(body: ResponseRequest, id: str, created_at: int, tools: list[dict[str, Any]]) -> ResponseObject:
    """The response as it is before anything was generated; what the body asked for is in it. tools: as they are shown."""
    form = body.text.format if body.text is not None else None
    choice = body.tool_choice
    return ResponseObject(
        id=id,
        created_at=created_at,
        instructions=body.instructions,
        max_output_tokens=body.max_output_tokens,
        max_tool_calls=body.max_tool_calls,
        metadata=body.metadata or {},
        model=body.model_name,
        status="queued" if body.background else "in_progress",
        background=bool(body.background),
        parallel_tool_calls=body.parallel_tool_calls is not False,
        previous_response_id=body.previous_response_id,
        prompt_cache_key=body.prompt_cache_key,
        prompt_cache_retention=body.prompt_cache_retention,
        safety_identifier=body.safety_identifier,
        store=body.store is not False,
        temperature=body.temperature,
        reasoning=ReasoningReply(effort=body.reasoning.effort if body.reasoning is not None else None),
        text={
            "format": _without_nulls(form) if form is not None else {"type": "text"},
            "verbosity": (body.text.verbosity if body.text is not None else None) or "medium",
        },
        tool_choice=_without_nulls(choice) if isinstance(choice, ResponseToolChoice) else choice or "auto",
        tools=tools,
        top_logprobs=body.top_logprobs or 0,
        top_p=body.top_p,
        truncation=body.truncation or "disabled",
        user=body.user,
    )


def _without_nulls(value: msgspec.Struct) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(value)
    return {
        name: [{key: part for key, part in entry.items() if part is not None} for entry in item] if name == "tools" else item
        for name, item in found.items()
        if item is not None
    }


def _grammar(body: ResponseRequest) -> Grammar | None:
    format = _format(body.text.format if body.text is not None else None)
    return only_grammar([*([format] if format is not None else []), *structured_outputs(body.structured_outputs)])


def _format(form: TextFormat | None) -> Grammar | None:
    if form is None or form.type == "text":
        return None
    if form.type == "json_object":
        return Grammar("json_object", param="text.format")
    for name, value in (("name", form.name), ("schema", form.schema)):
        if value is None:
            raise InvalidRequestError(f"You must provide the parameter: text.format.{name}", param=f"text.format.{name}")
    return Grammar("json_schema", msgspec.json.encode(form.schema).decode(), "text.format.schema")
