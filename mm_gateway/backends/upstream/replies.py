"""What an upstream server's whole replies hold: embeddings and tokens."""

from __future__ import annotations

import base64

import msgspec

from mm_gateway.core import Embedding, GenerationEvent, Tokenized, Usage


class _UpstreamVector(msgspec.Struct):
    embedding: list[float] | str
    """Base64 was asked for; servers that know none send numbers."""
    index: int


class _UpstreamUsage(msgspec.Struct):
    prompt_tokens: int = 0


class _UpstreamVectors(msgspec.Struct):
    data: list[_UpstreamVector]
    usage: _UpstreamUsage | None = None


class _UpstreamTokens(msgspec.Struct):
    tokens: list[int]
    token_strs: list[str] | None = None
    max_model_len: int | None = None


class _UpstreamText(msgspec.Struct):
    prompt: str


def embedding_events(reply: bytes, inputs: int) -> list[GenerationEvent]:
    """What a reply to `inputs` inputs holds.

    Raises:
        msgspec.MsgspecError, ValueError: it is none.
    """
    found = msgspec.json.decode(reply, type=_UpstreamVectors)
    if sorted(entry.index for entry in found.data) != list(range(inputs)):
        raise ValueError(f"{len(found.data)} embeddings for {inputs} inputs")
    events: list[GenerationEvent] = [_embedding(entry) for entry in found.data]
    return [*events, Usage(found.usage.prompt_tokens if found.usage else 0, 0)]


def tokenized(reply: bytes) -> Tokenized:
    """Raises msgspec.MsgspecError where the reply is none of /tokenize."""
    found = msgspec.json.decode(reply, type=_UpstreamTokens)
    return Tokenized(tuple(found.tokens), tuple(found.token_strs or ()), found.max_model_len)


def detokenized(reply: bytes) -> str:
    """Raises msgspec.MsgspecError where the reply is none of /detokenize."""
    return msgspec.json.decode(reply, type=_UpstreamText).prompt


def _embedding(entry: _UpstreamVector) -> Embedding:
    if isinstance(entry.embedding, list):
        return Embedding.of(entry.index, entry.embedding)
    vector = base64.b64decode(entry.embedding, validate=True)
    if len(vector) % 4:
        raise ValueError("an embedding of broken base64")
    return Embedding(entry.index, vector)
