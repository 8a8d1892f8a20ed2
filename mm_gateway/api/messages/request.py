"""From a body of `/v1/messages` to a GenerationRequest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import msgspec

from mm_gateway.api.generation_config import keep_alive_s
from mm_gateway.api.messages.conversation import read_messages, read_system
from mm_gateway.api.messages.signature import Signer
from mm_gateway.api.messages.tools import read_tools
from mm_gateway.backends.searching import Searcher
from mm_gateway.core import ChatInput, Effort, GenerationConfig, GenerationRequest, Grammar, Message, Reasoning, Rendering
from mm_gateway.errors import InvalidRequestError, UnsupportedParameterError
from mm_gateway.protocol.message_request import CountTokensRequest, MessageRequest
from mm_gateway.protocol.policy import refuse_unserved


class Given(msgspec.Struct, frozen=True):
    """What a body is read with.

    Attributes:
        signer: of thoughts. searcher: what can be searched. media: the model may take more than text. unknown: as for `decode`.
    """

    signer: Signer
    searcher: Searcher
    media: bool = False
    unknown: list[str] | None = None


def message_request(body: MessageRequest, request_id: str, ignored: list[str], given: Given) -> GenerationRequest:
    """What a body asks for.

    Args:
        ignored: gets the paths of what is left out.

    Raises:
        InvalidRequestError: a value out of range; UnsupportedParameterError: something that is not served.
    """
    if body.thread is not None:
        # The code on which Anthropic's client sends the whole conversation in place of it.
        raise UnsupportedParameterError(
            "thread: conversations are not kept by this server. Send the whole of it", param="thread", code="thread_unsupported_request"
        )
    return GenerationRequest(
        request_id=request_id,
        model=body.model_name,
        input=chat_input(body, ignored, given),
        config=GenerationConfig(
            max_new_tokens=body.max_tokens,
            clamp_to_context=True,
            temperature=body.temperature,
            top_p=body.top_p,
            top_k=body.top_k,
            seed=body.seed,
            stop=tuple(body.stop_sequences or ()),
            grammar=_grammar(body),
            speculation=body.speculation is not False,
        ),
        keep_alive=keep_alive_s(body.keep_alive),
        workflow=body.workflow,
        user=body.metadata.user_id if body.metadata is not None else None,
    )


def chat_input(body: CountTokensRequest, ignored: list[str], given: Given) -> ChatInput:
    """The conversation that a body holds; arguments and errors as for `message_request`."""
    refuse_unserved(body)
    ignored += _left_out(body)
    system = read_system(body.system, ignored)
    messages = (*system, *read_messages(body.messages, ignored, given.signer, media=given.media))
    tools = read_tools(body, given.searcher, ignored, given.unknown)
    return ChatInput(
        messages,
        tools,
        _rendering(body, messages),
        # An agent shortens its conversation itself, once it is told that it is too long.
        truncate=False,
        reasoning=_reasoning(body),
    )


def _rendering(body: CountTokensRequest, messages: tuple[Message, ...]) -> Rendering:
    """A turn of the assistant at the end is gone on with."""
    begun = messages[-1].role == "assistant"
    return Rendering(add_generation_prompt=not begun, continue_final_message=begun, variables=body.chat_template_kwargs or {})


def _reasoning(body: CountTokensRequest) -> Reasoning:
    thinking = body.thinking
    given = body.output_config.effort if body.output_config is not None else None
    effort = cast("Effort | None", "xhigh" if given == "max" else given)
    if thinking is None:
        return Reasoning(effort=effort, param="output_config.effort")
    if thinking.type == "disabled":
        return Reasoning(effort="none", param="thinking")
    if thinking.type == "enabled":
        if thinking.budget_tokens is None:
            raise InvalidRequestError("You must provide the parameter: thinking.budget_tokens", param="thinking.budget_tokens")
        if isinstance(body, MessageRequest) and body.max_tokens is not None and thinking.budget_tokens >= body.max_tokens:
            raise InvalidRequestError("max_tokens must be greater than thinking.budget_tokens", param="max_tokens")
        return Reasoning(effort=effort, thinking_budget=thinking.budget_tokens, param="output_config.effort", budget_param="thinking")
    return Reasoning(effort=effort, param="output_config.effort")


def _grammar(body: CountTokensRequest) -> Grammar | None:
    config = body.output_config
    if config is not None and config.format is not None:
        if body.output_format is not None:
            raise InvalidRequestError("output_config.format and output_format exclude each other", param="output_format")
        return Grammar("json_schema", msgspec.json.encode(config.format.schema).decode(), "output_config.format.schema")
    if body.output_format is not None:
        return Grammar("json_schema", msgspec.json.encode(body.output_format.schema).decode(), "output_format.schema")
    return None


def _left_out(body: CountTokensRequest) -> list[str]:
    """Fields of Anthropic's that would change the reply if they were followed, and are asked for."""
    found: list[str] = []
    if body.compaction:
        found.append("compaction")
    if body.output_config is not None and body.output_config.task_budget is not None:
        found.append("output_config.task_budget")
    management: Any = body.context_management
    edits: Any = cast(Mapping[str, Any], management).get("edits") if isinstance(management, Mapping) else None
    for index, edit in enumerate(cast(list[Any], edits) if isinstance(edits, list) else []):
        kind = cast(Mapping[str, Any], edit).get("type") if isinstance(edit, Mapping) else None
        if not str(kind).startswith("clear_thinking"):
            found.append(f"context_management.edits[{index}]")
    return found
