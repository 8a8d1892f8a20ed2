"""OpenAI's Responses API, as an upstream speaks it (https://platform.openai.com/docs/api-reference/responses)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from mm_gateway.backends.upstream.chunks import chat_logprobs_of
from mm_gateway.backends.upstream.connection import bearer
from mm_gateway.backends.upstream.dialects.dialect import (
    Choice,
    ReportedError,
    Thoughts,
    conversation_of,
    unsayable_grammar,
    unsayable_part,
)
from mm_gateway.chat_templates.tool_formats.format import declaration
from mm_gateway.core import (
    FinishReason,
    GenerationConfig,
    GenerationEvent,
    GenerationRequest,
    Grammar,
    Message,
    MessageFields,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolUse,
    UrlCitation,
    Usage,
)

_API = "responses"
_CONFIG = ("max_new_tokens", "temperature", "top_p", "logprobs", "grammar", "truncation")
_INCOMPLETE: Mapping[Any, FinishReason] = {"content_filter": "content_filter"}


class ResponsesDialect:
    path = "responses"

    def headers(self, key: str | None) -> dict[str, str]:
        return bearer(key)

    def body(self, request: GenerationRequest, model: str, thoughts: Thoughts) -> tuple[dict[str, Any], tuple[str, ...]]:
        input = conversation_of(request, _API, _CONFIG)
        config, reasoning = request.config, input.reasoning
        body: dict[str, Any] = {
            "model": model,
            "input": list(_items(input.messages, thoughts)),
            "stream": True,
            "store": False,
            "include": ["reasoning.encrypted_content"],
            **_sampling(config),
        }
        if request.user is not None:
            body["user"] = request.user
        if input.tools is not None:
            body |= _tools(input.tools)
        if reasoning.effort is not None:
            body["reasoning"] = {"effort": reasoning.effort}
        if input.truncate:
            body["truncation"] = "auto"
        return body, (reasoning.budget_param,) if reasoning.thinking_budget is not None else ()

    def reader(self, request: GenerationRequest, thoughts: Thoughts) -> ResponsesReader:
        return ResponsesReader(Choice(request), thoughts)


def _sampling(config: GenerationConfig) -> dict[str, Any]:
    named = {"max_output_tokens": config.max_new_tokens, "temperature": config.temperature, "top_p": config.top_p}
    body: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    if config.logprobs is not None:
        body["top_logprobs"] = config.logprobs
        body["include"] = ["reasoning.encrypted_content", "message.output_text.logprobs"]
    if config.grammar is not None:
        body["text"] = {"format": _format(config.grammar)}
    return body


def _format(grammar: Grammar) -> dict[str, Any]:
    match grammar.kind:
        case "json_object":
            return {"type": "json_object"}
        case "json_schema":
            return {"type": "json_schema", "name": "reply", "schema": msgspec.json.decode(grammar.text), "strict": True}
        case _:
            raise unsayable_grammar(_API, grammar.param)


def _tools(use: ToolUse) -> dict[str, Any]:
    tools = [{"type": "function", "strict": tool.strict, **declaration(tool)["function"]} for tool in use.tools]
    body: dict[str, Any] = {"tools": tools}
    if use.only is not None:
        body["tool_choice"] = {"type": "function", "name": use.only}
    elif use.required:
        body["tool_choice"] = "required"
    elif use.shown_only:
        body["tool_choice"] = "none"
    if not use.parallel and use.only is None:
        body["parallel_tool_calls"] = False
    return body


def _items(messages: Sequence[Message], thoughts: Thoughts) -> Iterator[dict[str, Any]]:
    for message in messages:
        if message.role == "tool":
            yield {"type": "function_call_output", "call_id": message.tool_call_id, "output": _content(message)}
            continue
        if message.reasoning is not None and (sealed := thoughts.of(message.reasoning)) is not None:
            yield {"type": "reasoning", **sealed}
        if message.content or not message.tool_calls:
            yield {"type": "message", "role": message.role, "content": _content(message)}
        for call in message.tool_calls:
            yield {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments or "{}"}


def _content(message: Message) -> str | list[dict[str, Any]]:
    return [_part(part) for part in message.parts] if message.parts else message.content


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    match part:
        case {"type": "image_url", "image_url": {"url": url, **more}}:
            return {"type": "input_image", "image_url": url, "detail": more.get("detail") or "auto"}
        case {"type": "file", "file": dict(file)}:
            return {"type": "input_file", **file}
        case {"type": "input_audio", "input_audio": audio}:
            return {"type": "input_audio", "input_audio": audio}
        case {"type": "text", "text": text}:
            return {"type": "input_text", "text": text}
        case _:
            raise unsayable_part(_API, part)


class ResponsesReader:
    """An EventReader."""

    def __init__(self, choice: Choice, thoughts: Thoughts) -> None:
        self._choice, self._thoughts = choice, thoughts
        self._start = self._length = 0  # characters of the text before the open part, and of all of it
        self._arguments: dict[int, int] = {}  # characters told of each call
        self._thought: list[str] = []

    def read(self, event: Mapping[str, Any]) -> Iterator[GenerationEvent]:
        match event:
            case {"type": "response.output_text.delta", "delta": str(text)}:
                self._length += len(text)
                yield TextDelta(0, text, logprobs=chat_logprobs_of(event.get("logprobs")))
            case {"type": "response.content_part.added"}:
                self._start = self._length
            case {"type": "response.reasoning_text.delta" | "response.reasoning_summary_text.delta", "delta": str(text)}:
                self._thought.append(text)
                yield ReasoningDelta(0, text)
            case {"type": "response.refusal.delta", "delta": str(text)}:
                yield MessageFields(0, {"refusal": text})
            case {"type": "response.output_text.annotation.added", "annotation": {"type": "url_citation"} as cited}:
                start, end = cited["start_index"] + self._start, cited["end_index"] + self._start
                yield UrlCitation(0, start, end, cited.get("title") or cited["url"], cited["url"])
            case {"type": "response.output_item.added", "output_index": int(number), "item": {"type": "function_call"} as item}:
                self._arguments[number] = 0
                yield ToolCallDelta(0, self._choice.begin_call(number), id=item["call_id"], name=item["name"])
            case {"type": "response.function_call_arguments.delta", "output_index": int(number), "delta": str(text)}:
                self._arguments[number] += len(text)
                yield ToolCallDelta(0, self._choice.calls[number], text)
            case {"type": "response.output_item.done", "output_index": int(number), "item": item}:
                yield from self._item(number, item)
            case {"type": "response.completed" | "response.incomplete", "response": response}:
                yield from self._finish(response)
            case {"type": "error" | "response.failed"}:
                raise ReportedError(event)
            case _:
                pass

    def end(self) -> Usage:
        return self._choice.end()

    def _item(self, number: int, item: Mapping[str, Any]) -> Iterator[GenerationEvent]:
        if item.get("type") == "function_call":
            if number not in self._arguments:  # told of at its end alone
                self._arguments[number] = 0
                yield ToolCallDelta(0, self._choice.begin_call(number), id=item["call_id"], name=item["name"])
            if rest := item["arguments"][self._arguments[number] :]:
                yield ToolCallDelta(0, self._choice.calls[number], rest)
        elif item.get("type") == "reasoning":
            if sealed := item.get("encrypted_content"):
                kept = {"id": item.get("id"), "summary": item.get("summary") or [], "encrypted_content": sealed}
                self._thoughts.keep("".join(self._thought), {name: value for name, value in kept.items() if value is not None})
            self._thought = []

    def _finish(self, response: Mapping[str, Any]) -> Iterator[GenerationEvent]:
        usage = response.get("usage") or {}
        cached = (usage.get("input_tokens_details") or {}).get("cached_tokens") or 0
        thought = (usage.get("output_tokens_details") or {}).get("reasoning_tokens") or 0
        self._choice.usage = Usage(usage.get("input_tokens") or 0, usage.get("output_tokens") or 0, cached, thought)
        if response.get("status") == "incomplete":
            why = (response.get("incomplete_details") or {}).get("reason")
            return self._choice.finish(_INCOMPLETE.get(why, "length"))
        return self._choice.finish("stop")
