"""`POST /v1/embeddings`."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterable

import msgspec
from litestar import post
from litestar.datastructures import State
from litestar.response.base import ASGIResponse

from mm_gateway.api.connection import HTTPRequest
from mm_gateway.api.endpoint import Asked, serve
from mm_gateway.api.generation_config import check_count, keep_alive_s, texts_or_tokens
from mm_gateway.api.replies.reply import ChunkedReply
from mm_gateway.core import Embedding, EmbeddingInput, ForwardedBody, GenerationEvent, GenerationRequest, Usage
from mm_gateway.errors import InvalidRequestError
from mm_gateway.protocol import EmbeddingItem, EmbeddingList, EmbeddingRequest, EmbeddingUsage
from mm_gateway.protocol.forwarded import ForwardedEmbeddings, ForwardedFields, entries

_decoder = msgspec.json.Decoder(EmbeddingRequest)
_forwarded_decoder = msgspec.json.Decoder(ForwardedEmbeddings)


@post(
    "/v1/embeddings",
    status_code=200,
    summary="Turn texts into vectors",
    description="Vectors have length 1, so their dot product is their cosine similarity.",
)
async def embeddings(request: HTTPRequest, state: State) -> ASGIResponse:
    return await serve(request, state, _decoder, _asked, _forwarded_decoder, _forwarded)


def _asked(body: EmbeddingRequest, _: list[str]) -> Asked:
    generation = embedding_request(body, f"embd-{secrets.token_hex(16)}")
    return Asked(generation, EmbeddingReply(body.model_name, body.encoding_format or "float"))


def _forwarded(model: str, body: ForwardedEmbeddings, fields: ForwardedFields) -> Asked:
    inputs = entries(body.input)
    check_count(inputs, 1, "input")
    forwarded = ForwardedBody(model=model, endpoint="embeddings", fields=fields, choices=inputs)
    return Asked(forwarded, EmbeddingReply(model, body.encoding_format or "float"))


def embedding_request(body: EmbeddingRequest, request_id: str) -> GenerationRequest:
    """What a body asks for.

    Raises:
        InvalidRequestError: nothing to embed, an empty entry, or too many; or nothing is to be read of them.
    """
    if body.truncate_prompt_tokens is not None and body.truncate_prompt_tokens < 1 and body.truncate_prompt_tokens != -1:
        raise InvalidRequestError(
            "truncate_prompt_tokens must be at least 1, or -1 for what the context holds", param="truncate_prompt_tokens"
        )
    inputs = texts_or_tokens(body.input, "input")
    check_count(len(inputs), 1, "input")
    for index, entry in enumerate(inputs):
        if not entry:
            at = f"input[{index}]" if isinstance(body.input, list) else "input"
            raise InvalidRequestError(f"{at} must not be empty", param=at)
    return GenerationRequest(
        request_id=request_id,
        model=body.model_name,
        input=EmbeddingInput(
            inputs,
            body.dimensions,
            add_special_tokens=body.add_special_tokens is not False,
            truncate_prompt_tokens=body.truncate_prompt_tokens,
            truncation_side=body.truncation_side,
        ),
        keep_alive=keep_alive_s(body.keep_alive),
        user=body.user,
    )


class EmbeddingReply(ChunkedReply):
    """Reply of `/v1/embeddings`; it is never streamed.

    Args:
        model: as asked for. encoding: `float`, or `base64` of little-endian float32.
    """

    def __init__(self, model: str, encoding: str) -> None:
        self._model = model
        self._encoding = encoding

    def start(self) -> bytes:
        return b""

    def chunk(self, event: GenerationEvent) -> bytes:
        return b""

    def _fold(self, events: Iterable[GenerationEvent]) -> bytes:
        items: list[EmbeddingItem] = []
        usage = Usage(0, 0)
        for event in events:
            match event:
                case Embedding(index=index):
                    items.append(EmbeddingItem(index, self._encoded(event)))
                case Usage():
                    usage = event
                case _:
                    pass
        items.sort(key=lambda item: item.index)
        return msgspec.json.encode(EmbeddingList(items, self._model, EmbeddingUsage(usage.prompt_tokens, usage.prompt_tokens)))

    def _encoded(self, embedding: Embedding) -> list[float] | str:
        return base64.b64encode(embedding.vector).decode() if self._encoding == "base64" else list(embedding.numbers())
