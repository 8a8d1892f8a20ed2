"""Anthropic's Messages API, as an upstream speaks it (https://docs.anthropic.com/en/api/messages)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from mm_gateway.backends.upstream.dialects.dialect import (
    Choice,
    ReportedError,
    Thoughts,
    conversation_of,
    unsayable_grammar,
    unsayable_part,
)
from mm_gateway.backends.upstream.dialects.message_blocks import block_of
from mm_gateway.chat_templates.tool_formats.format import arguments_of
from mm_gateway.core import (
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    Grammar,
    Message,
    Reasoning,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolUse,
    UrlCitation,
    Usage,
    UsageSoFar,
)

VERSION = "2023-06-01"
MAX_TOKENS = 8192
"""Of a reply, where the request gives no limit, without which this API does nothing."""
_API = "messages"
_CONFIG = ("max_new_tokens", "temperature", "top_p", "top_k", "stop", "grammar")
_EFFORTS = {"minimal": "low", "xhigh": "max"}
_REASONS: Mapping[Any, FinishReason] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


class MessagesDialect:
    path = "messages"

    def headers(self, key: str | None) -> dict[str, str]:
        return {"anthropic-version": VERSION} | ({} if key is None else {"x-api-key": key})

    def body(self, request: GenerationRequest, model: str, thoughts: Thoughts) -> tuple[dict[str, Any], tuple[str, ...]]:
        input = conversation_of(request, _API, _CONFIG, ("continue_final_message",))
        config = request.config
        system, messages = _conversation(input.messages, thoughts)
        named = {
            "system": system or None,
            "temperature": config.temperature,
            "top_p": config.top_p,
            "top_k": config.top_k or None,
            "stop_sequences": list(config.stop) or None,
            "metadata": {"user_id": request.user} if request.user is not None else None,
        }
        body: dict[str, Any] = {"model": model, "messages": messages, "max_tokens": config.max_new_tokens or MAX_TOKENS, "stream": True}
        body |= {name: value for name, value in named.items() if value is not None}
        body |= _thinking(input.reasoning)
        if config.grammar is not None:
            body["output_config"] = body.get("output_config", {}) | {"format": _format(config.grammar)}
        if input.tools is not None:
            body |= _tools(input.tools)
        details = any(part.get("image_url", {}).get("detail", "auto") != "auto" for message in input.messages for part in message.parts)
        return body, ("image_url.detail",) if details else ()

    def reader(self, request: GenerationRequest, thoughts: Thoughts) -> MessagesReader:
        return MessagesReader(Choice(request), thoughts)


def _format(grammar: Grammar) -> dict[str, Any]:
    if grammar.kind != "json_schema":
        raise unsayable_grammar(_API, grammar.param)
    return {"type": "json_schema", "schema": msgspec.json.decode(grammar.text)}


def _thinking(reasoning: Reasoning) -> dict[str, Any]:
    if reasoning.wanted is False:
        return {"thinking": {"type": "disabled"}}
    body: dict[str, Any] = {}
    if reasoning.thinking_budget is not None:
        body["thinking"] = {"type": "enabled", "budget_tokens": reasoning.thinking_budget}
    if reasoning.effort is not None:
        body["output_config"] = {"effort": _EFFORTS.get(reasoning.effort, reasoning.effort)}
    return body


def _tools(use: ToolUse) -> dict[str, Any]:
    tools = [
        {"name": tool.name, "input_schema": tool.parameters if tool.parameters is not None else {"type": "object", "properties": {}}}
        | ({"description": tool.description} if tool.description else {})
        for tool in use.tools
    ]
    choice: dict[str, Any] = {"type": "any" if use.required else "none" if use.shown_only else "auto"}
    if use.only is not None:
        choice = {"type": "tool", "name": use.only}
    if not use.several and not use.shown_only:
        choice["disable_parallel_tool_use"] = True
    return {"tools": tools} | ({"tool_choice": choice} if choice != {"type": "auto"} else {})


def _conversation(messages: Sequence[Message], thoughts: Thoughts) -> tuple[str, list[dict[str, Any]]]:
    """The system's text, and the turns: of each role one after the other. A system message among them is told by the user."""
    first = next((index for index, message in enumerate(messages) if message.role not in ("system", "developer")), len(messages))
    turns: list[dict[str, Any]] = []
    for message in messages[first:]:
        role = "assistant" if message.role == "assistant" else "user"
        if not turns or turns[-1]["role"] != role:
            turns.append({"role": role, "content": []})
        turns[-1]["content"] += _blocks(message, thoughts)
    for part in (part for message in messages[:first] for part in message.parts if part.get("type") != "text"):
        raise unsayable_part(_API, part, "place for it in a system message")
    return "\n\n".join(message.content for message in messages[:first]), [turn for turn in turns if turn["content"]]


def _blocks(message: Message, thoughts: Thoughts) -> Iterator[dict[str, Any]]:
    if message.role == "tool":
        yield {"type": "tool_result", "tool_use_id": message.tool_call_id, "content": _result(message)}
        return
    if message.reasoning is not None and (signature := thoughts.of(message.reasoning)) is not None:
        yield {"type": "thinking", "thinking": message.reasoning, "signature": signature}
    if message.parts:
        yield from map(block_of, message.parts)
    elif message.content:
        yield {"type": "text", "text": message.content}
    for call in message.tool_calls:
        yield {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments_of(call)}


def _result(message: Message) -> str | list[dict[str, Any]]:
    return [block_of(part) for part in message.parts] if message.parts else message.content


class MessagesReader:
    """An EventReader."""

    def __init__(self, choice: Choice, thoughts: Thoughts) -> None:
        self._choice, self._thoughts = choice, thoughts
        self._given: dict[str, int] = {}
        self._start = self._length = 0  # characters of the text before the open block, and of all of it
        self._thought: list[str] = []
        self._signature = ""

    def read(self, event: Mapping[str, Any]) -> Iterator[GenerationEvent]:
        match event:
            case {"type": "message_start", "message": {"usage": dict(usage)}}:
                self._count(usage)
                yield UsageSoFar(self._choice.usage.prompt_tokens, 0)
            case {"type": "content_block_start", "index": int(number), "content_block": block}:
                yield from self._begin(number, block)
            case {"type": "content_block_delta", "index": int(number), "delta": delta}:
                yield from self._delta(number, delta)
            case {"type": "content_block_stop"}:
                if self._thought and self._signature:
                    self._thoughts.keep("".join(self._thought), self._signature)
                self._thought, self._signature = [], ""
            case {"type": "message_delta", "delta": delta}:
                self._count(event.get("usage") or {})
                if (reason := delta.get("stop_reason")) is not None:
                    yield from self._choice.finish(_REASONS.get(reason, "stop"), delta.get("stop_sequence"))
            case {"type": "error"}:
                raise ReportedError(event)
            case _:
                pass

    def end(self) -> Usage:
        return self._choice.end()

    def _begin(self, number: int, block: Mapping[str, Any]) -> Iterator[GenerationEvent]:
        match block:
            case {"type": "text", "text": text}:
                self._start = self._length
                if text:
                    yield from self._delta(number, {"type": "text_delta", "text": text})
            case {"type": "tool_use", "id": str(id), "name": str(name)}:
                yield ToolCallDelta(0, self._choice.begin_call(number), id=id, name=name)
                if block.get("input"):  # told at once
                    yield ToolCallDelta(0, self._choice.calls[number], msgspec.json.encode(block["input"]).decode())
            case _:
                pass

    def _delta(self, number: int, delta: Mapping[str, Any]) -> Iterator[GenerationEvent]:
        match delta:
            case {"type": "text_delta", "text": str(text)}:
                self._length += len(text)
                yield TextDelta(0, text)
            case {"type": "thinking_delta", "thinking": str(text)}:
                self._thought.append(text)
                yield ReasoningDelta(0, text)
            case {"type": "signature_delta", "signature": str(signature)}:
                self._signature += signature
            case {"type": "input_json_delta", "partial_json": str(text)} if number in self._choice.calls:
                if text:
                    yield ToolCallDelta(0, self._choice.calls[number], text)
            case {"type": "citations_delta", "citation": {"url": str(url)} as citation}:
                yield UrlCitation(0, self._start, self._length, citation.get("title") or url, url)
            case _:
                pass

    def _count(self, usage: Mapping[str, Any]) -> None:
        """Each event tells some of the counts; those that were reused or written into the cache are counted apart."""
        self._given |= {name: value for name, value in usage.items() if isinstance(value, int)}
        given, details = self._given, usage.get("output_tokens_details") or {}
        cached = given.get("cache_read_input_tokens", 0)
        prompt = given.get("input_tokens", 0) + cached + given.get("cache_creation_input_tokens", 0)
        thought = details.get("reasoning_tokens") or details.get("thinking_tokens") or 0
        self._choice.usage = Usage(prompt, given.get("output_tokens", 0), cached, thought)
