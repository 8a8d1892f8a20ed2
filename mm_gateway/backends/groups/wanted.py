"""What routing has to know of a request: where its beginning may be in a KV cache, and about how many tokens it takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from hashlib import blake2b
from typing import Any

import msgspec

from mm_gateway.core import ChatInput, CompletionInput, EmbeddingInput, ForwardedBody, GenerationRequest

KEY_BYTES = 2048
"""Of a text that is no conversation, and of each piece of one, what counts for its key."""
BYTES_PER_TOKEN = 3
"""Fewer than nearly all texts have, so that the estimate is on the high side: one token a Chinese character, one for three letters."""


class Wanted:
    """One request to a group.

    Attributes:
        tried: member -> why it did not answer. refused_context: tokens of the largest context that was too small; 0: none was.
        wait_s: seconds for which it may still wait for a member with room.
    """

    def __init__(self, request: GenerationRequest | ForwardedBody, wait_s: float) -> None:
        self._request = request
        self.wait_s = wait_s
        self.tried: dict[str, str] = {}
        self.refused_context = 0

    @cached_property
    def key(self) -> int | None:
        """64 bits of the conversation's beginning: its tools and messages up to the first of the user, which all its turns share, and
        other conversations rarely. Of a text its first bytes. None: embeddings, which no KV cache outlives."""
        digest = blake2b(digest_size=8)
        pieces = list(_beginning(self._request))
        for piece in pieces:
            digest.update(piece[:KEY_BYTES])
            digest.update(b"\0")
        return int.from_bytes(digest.digest()) if pieces else None

    @cached_property
    def tokens(self) -> int:
        """Of the longest prompt and the reply that is asked for, estimated on the high side."""
        return -(-_prompt_bytes(self._request) // BYTES_PER_TOKEN) + _room(self._request)

    def fits(self, context_length: int | None) -> bool:
        """Whether a model of such a context very likely has room for it; None: nobody knows."""
        return context_length is None or self.tokens <= context_length


def _beginning(request: GenerationRequest | ForwardedBody) -> Iterator[bytes]:
    if isinstance(request, ForwardedBody):
        yield from _beginning_of_body(request.fields)
        return
    match request.input:
        case ChatInput(messages, tools):
            for tool in tools.tools if tools is not None else ():
                yield tool.name.encode()
            for message in messages:
                yield f"{message.role}:{message.content[:KEY_BYTES]}".encode()
                if message.role == "user":
                    return
        case CompletionInput(prompts):
            yield repr(prompts[0][:KEY_BYTES]).encode()
        case _:
            return


class _Role(msgspec.Struct):
    role: str = ""


def _beginning_of_body(fields: Mapping[str, Any]) -> Iterator[bytes]:
    """JSON as the client wrote it; who writes a turn again writes it in the same way."""
    if "messages" in fields:
        if "tools" in fields:
            yield _json(fields["tools"])
        # What is no conversation has no beginning, and is refused by whoever gets it.
        with suppress(msgspec.MsgspecError):
            for message in msgspec.json.decode(_json(fields["messages"]), type=list[msgspec.Raw]):
                yield bytes(message)
                if msgspec.json.decode(message, type=_Role).role == "user":
                    return
    elif "prompt" in fields:
        yield _json(fields["prompt"])


def _json(value: Any) -> bytes:
    return bytes(value) if isinstance(value, msgspec.Raw) else msgspec.json.encode(value)


def _prompt_bytes(request: GenerationRequest | ForwardedBody) -> int:
    """Token ids count as BYTES_PER_TOKEN bytes."""
    if isinstance(request, ForwardedBody):
        named = (request.fields[name] for name in ("messages", "tools", "prompt", "input") if name in request.fields)
        return sum(len(memoryview(value)) if isinstance(value, msgspec.Raw) else len(msgspec.json.encode(value)) for value in named)
    match request.input:
        case ChatInput(messages, tools):
            texts = [text for message in messages for text in (message.content, message.reasoning or "")]
            texts += [call.arguments for message in messages for call in message.tool_calls]
            return sum(len(text.encode()) for text in texts) + (len(msgspec.json.encode(tools)) if tools is not None else 0)
        case CompletionInput(prompts):
            return max(map(_entry_bytes, prompts), default=0)
        case EmbeddingInput(inputs):
            return max(map(_entry_bytes, inputs), default=0)


def _entry_bytes(entry: str | tuple[int, ...]) -> int:
    return len(entry.encode()) if isinstance(entry, str) else len(entry) * BYTES_PER_TOKEN


def _room(request: GenerationRequest | ForwardedBody) -> int:
    if isinstance(request, ForwardedBody):
        return request.output_tokens // max(request.choices, 1)
    return request.config.required_room or 0
