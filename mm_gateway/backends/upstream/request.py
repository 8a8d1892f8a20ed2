"""A request in an upstream server's words: what a client sent, or what a program or a workflow asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from mm_gateway.chat_templates.tool_formats.format import declaration
from mm_gateway.core import (
    ChatInput,
    CompletionInput,
    EmbeddingInput,
    ForwardedBody,
    GenerationConfig,
    GenerationRequest,
    Grammar,
    Message,
    Rendering,
    ToolUse,
)
from mm_gateway.errors import UnsupportedParameterError


def as_streaming_request(fields: Mapping[str, Any], model: str) -> dict[str, Any]:
    """A body with the server's name of the model, that asks for a stream which ends with its usage."""
    options = fields.get("stream_options")
    if isinstance(options, msgspec.Raw):
        options = msgspec.json.decode(options)
    return {**fields, "model": model, "stream": True, "stream_options": {**(options or {}), "include_usage": True}}


def as_embedding_request(fields: Mapping[str, Any], model: str) -> dict[str, Any]:
    """A body with the server's name of the model, that asks for vectors in their smaller form."""
    return {**fields, "model": model, "encoding_format": "base64"}


def body_of(request: GenerationRequest) -> ForwardedBody:
    """A request in the words of a client; only what it sets, because servers refuse what they do not know.

    Raises:
        UnsupportedParameterError: a server cannot be asked for that.
    """
    config = request.config
    fields: dict[str, Any] = {} if request.user is None else {"user": request.user}
    match request.input:
        case EmbeddingInput(inputs, dimensions, add_special_tokens, truncate_prompt_tokens, truncation_side):
            fields["input"] = [entry if isinstance(entry, str) else list(entry) for entry in inputs]
            if not add_special_tokens:
                fields["add_special_tokens"] = False
            given = {"dimensions": dimensions, "truncate_prompt_tokens": truncate_prompt_tokens, "truncation_side": truncation_side}
            fields |= {name: value for name, value in given.items() if value is not None}
            return ForwardedBody(model=request.model, endpoint="embeddings", fields=fields, choices=len(inputs))
        case ChatInput() as conversation:
            fields |= _parameters(config) | _chat_fields(conversation, config)
            if request.workflow is not None:  # a gateway like this one
                fields |= {"workflow": dict(request.workflow), "metadata": dict(request.metadata)}
            return ForwardedBody(model=request.model, endpoint="chat/completions", fields=fields, choices=config.n)
        case CompletionInput(prompts, echo, add_special_tokens, truncate_prompt_tokens):
            if request.best_of is not None and request.best_of > config.n:
                raise UnsupportedParameterError("best_of cannot be streamed from a remote model", param="best_of")
            entries = [prompt if isinstance(prompt, str) else list(prompt) for prompt in prompts]
            fields |= _parameters(config) | {"prompt": entries[0] if len(entries) == 1 else entries}
            if echo:
                fields["echo"] = True
            if not add_special_tokens:
                fields["add_special_tokens"] = False
            if truncate_prompt_tokens is not None:
                fields["truncate_prompt_tokens"] = truncate_prompt_tokens
            if config.logprobs is not None:
                fields["logprobs"] = config.logprobs
            return ForwardedBody(model=request.model, endpoint="completions", fields=fields, choices=len(prompts) * config.n)


def _chat_fields(input: ChatInput, config: GenerationConfig) -> dict[str, Any]:
    body: dict[str, Any] = {"messages": messages_body(input.messages), **rendering_body(input.rendering)}
    if input.echo:
        body["echo"] = True
    if input.truncate_prompt_tokens is not None:
        body["truncate_prompt_tokens"] = input.truncate_prompt_tokens
    if input.tools is not None:
        body |= tools_body(input.tools)
    if input.reasoning.effort is not None:
        body["reasoning_effort"] = input.reasoning.effort
    if input.reasoning.thinking_budget is not None:
        body["thinking_token_budget"] = input.reasoning.thinking_budget
    if input.truncate:
        raise UnsupportedParameterError(
            "truncation: a remote model cannot be told to leave out the oldest turns. Send the conversation without them",
            param="truncation",
            code="unsupported_value",
        )
    if config.logprobs is not None:
        body["logprobs"] = True
        if config.logprobs:
            body["top_logprobs"] = config.logprobs
    return body


def rendering_body(rendering: Rendering) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if not rendering.add_generation_prompt or rendering.continue_final_message:
        body["add_generation_prompt"] = False
    if rendering.continue_final_message:
        body["continue_final_message"] = True
    if rendering.add_special_tokens:
        body["add_special_tokens"] = True
    if rendering.documents:
        body["documents"] = [dict(document) for document in rendering.documents]
    if rendering.variables:
        body["chat_template_kwargs"] = dict(rendering.variables)
    return body


def messages_body(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """A conversation. Thoughts go with what followed the last question: some servers refuse those of turns that are over."""
    last = max((index for index, message in enumerate(messages) if message.role == "user"), default=-1)
    return [_message_body(message, thought=index > last) for index, message in enumerate(messages)]


def _message_body(message: Message, *, thought: bool) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.to_builtins(message)
    if body.pop("reasoning", None) is not None and thought:
        body["reasoning_content"] = message.reasoning
    if body.pop("parts", None):
        body["content"] = list(message.parts)
    if message.tool_calls:
        body["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}} for call in message.tool_calls
        ]
        body["content"] = message.content or None
    return body


def unenforced(use: ToolUse | None) -> tuple[str, ...]:
    """Paths of the grammars of custom tools, which another server is only told of."""
    return tuple(tool.input_grammar.param for tool in use.tools if tool.input_grammar is not None) if use is not None else ()


def tools_body(use: ToolUse) -> dict[str, Any]:
    body: dict[str, Any] = {"tools": [declaration(tool) for tool in use.tools]}
    for entry, tool in zip(body["tools"], use.tools, strict=True):
        if tool.strict:
            entry["function"]["strict"] = True
    if use.only is not None:
        body["tool_choice"] = {"type": "function", "function": {"name": use.only}}
    elif use.required:
        body["tool_choice"] = "required"
    elif use.shown_only:
        body["tool_choice"] = "none"
    if not use.parallel and use.only is None:
        body["parallel_tool_calls"] = False
    return body


def _parameters(config: GenerationConfig) -> dict[str, Any]:
    renamed = {"max_new_tokens": "max_tokens"}
    apart = {"logprobs", "end_logprobs", "prompt_logprobs", "logit_bias", "stop", "grammar", "clamp_to_context"}
    defaults = GenerationConfig()
    body: dict[str, Any] = {
        renamed.get(name, name): getattr(config, name)
        for name in config.__struct_fields__
        if name not in apart and getattr(config, name) != getattr(defaults, name)
    }
    if config.logit_bias:
        body["logit_bias"] = {str(token): bias for token, bias in config.logit_bias.items()}
    if config.stop:
        body["stop"] = list(config.stop)
    if config.grammar is not None:
        body |= _grammar(config.grammar)
    return body


def _grammar(grammar: Grammar) -> dict[str, Any]:
    """In the words of the field that asked for it, so that a server refuses what it does not know."""
    name, _, kind = grammar.param.partition(".")
    if name == "structured_outputs":
        as_json = grammar.kind in ("json_schema", "choice")  # a structural tag is JSON as text there
        return {name: {kind: msgspec.json.decode(grammar.text) if as_json else grammar.text or True}}
    match grammar.kind:
        case "json_object":
            return {"response_format": {"type": "json_object"}}
        case "json_schema" if not grammar.param.startswith("guided_"):
            schema = msgspec.json.decode(grammar.text)
            return {"response_format": {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema, "strict": True}}}
        case "json_schema" | "choice":
            return {grammar.param: msgspec.json.decode(grammar.text)}
        case "structural_tag":
            return {"response_format": {"type": "structural_tag", **msgspec.json.decode(grammar.text)}}
        case "regex" | "lark" | "gbnf":
            return {grammar.param: grammar.text}
