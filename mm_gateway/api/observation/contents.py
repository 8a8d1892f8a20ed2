"""What was asked and answered, as traces show it where a setting asks for it; only then is any of it looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from mm_gateway.core import (
    ChatInput,
    CompletionInput,
    EmbeddingInput,
    ForwardedBody,
    GenerationEvent,
    GenerationRequest,
    Message,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
)

MAX_CHARACTERS = 256 * 2**10
"""Of what is asked, and of what is answered; the beginning is kept, and the span says that it is not all."""


class Contents:
    """Of one request."""

    def __init__(self) -> None:
        self._asked = ""
        self._pieces: dict[int, list[tuple[str, str]]] = {}
        self._characters = 0
        self._cut = False

    def asked(self, request: GenerationRequest | ForwardedBody) -> None:
        text = msgspec.json.encode(_forwarded(request) if isinstance(request, ForwardedBody) else _messages(request)).decode()
        self._cut = len(text) > MAX_CHARACTERS
        self._asked = text[:MAX_CHARACTERS]

    def event(self, event: GenerationEvent) -> None:
        match event:
            case TextDelta(index=index, text=text):
                self._add(index, "text", text)
            case ReasoningDelta(index=index, text=text):
                self._add(index, "reasoning", text)
            case ToolCallDelta(index=index, call=call, name=name, arguments=arguments):
                self._add(index, f"tool_call {call}", f"{name} {arguments}" if name is not None else arguments)
            case _:
                pass

    def attributes(self, finish_reasons: Sequence[str]) -> dict[str, Any]:
        """For the request's span."""
        reasons = dict(enumerate(finish_reasons))
        answered = [
            {"role": "assistant", "parts": _joined(pieces), "finish_reason": reasons.get(index, "error")}
            for index, pieces in sorted(self._pieces.items())
        ]
        found: dict[str, Any] = {"gen_ai.input.messages": self._asked, "gen_ai.output.messages": msgspec.json.encode(answered).decode()}
        return found | ({"mm_gateway.contents_cut": True} if self._cut else {})

    def _add(self, index: int, kind: str, text: str) -> None:
        if self._characters >= MAX_CHARACTERS:
            self._cut = True
            return
        self._characters += len(text)
        self._pieces.setdefault(index, []).append((kind, text))


def _joined(pieces: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Pieces of a kind that follow each other are one part."""
    parts: list[tuple[str, list[str]]] = []
    for kind, text in pieces:
        if not parts or parts[-1][0] != kind:
            parts.append((kind, []))
        parts[-1][1].append(text)
    found: list[dict[str, Any]] = []
    for kind, texts in parts:
        text = "".join(texts)
        if kind.startswith("tool_call"):
            name, _, arguments = text.partition(" ")
            found.append({"type": "tool_call", "name": name, "arguments": arguments})
        elif text:
            found.append({"type": kind, "content": text})
    return found


def _messages(request: GenerationRequest) -> list[dict[str, Any]]:
    match request.input:
        case ChatInput(messages=messages):
            return [_message(message) for message in messages]
        case CompletionInput(prompts=prompts):
            return [_user(prompt) for prompt in prompts]
        case EmbeddingInput(inputs=inputs):
            return [_user(entry) for entry in inputs]


def _message(message: Message) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{"type": "reasoning", "content": message.reasoning}] if message.reasoning else []
    if message.tool_call_id is not None:
        parts.append({"type": "tool_call_response", "id": message.tool_call_id, "response": message.content})
    elif message.content:
        parts.append({"type": "text", "content": message.content})
    parts += [{"type": "tool_call", "id": call.id, "name": call.name, "arguments": call.arguments} for call in message.tool_calls]
    return {"role": message.role, "parts": parts}


def _user(text: object) -> dict[str, Any]:
    """A prompt; one of token ids is told as they are."""
    return {"role": "user", "parts": [{"type": "text" if isinstance(text, str) else "token_ids", "content": text}]}


def _forwarded(body: ForwardedBody) -> Any:
    """As the client wrote it: what another server reads is not understood here."""
    return next((body.fields[name] for name in ("messages", "prompt", "input") if name in body.fields), None)
