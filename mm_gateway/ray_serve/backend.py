"""A model that runs on Ray as a Backend: what a replica sends becomes events, and a lost replica another try or an error."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import msgspec

from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.core import ChatInput, CompletionInput, GenerationEvent, GenerationRequest, ModelInfo, Progress, Tokenized
from mm_gateway.errors import GatewayError
from mm_gateway.ray_serve.replicas import ReplicaLostError, Replicas
from mm_gateway.ray_serve.wire import decode

logger = logging.getLogger(__name__)

ATTEMPTS = 3
"""Of a request whose replicas are lost before anything of the reply has come."""
PROMPT_BEGINNING = 1024
"""Characters, or tokens, of a text prompt by which it is routed."""


class RayBackend:
    """One local or mock entry of `models.yaml`, in the replicas.

    Args:
        name: the entry's name. config: the entry. replicas: to be asked. created: Unix seconds at which the gateway started.
    """

    def __init__(self, name: str, config: ModelConfig, replicas: Replicas, created: int) -> None:
        self._name = name
        self._replicas = replicas
        self._info = ModelInfo(
            id=name,
            created=created,
            backend="ray",
            context_length=config.max_context_length,
            aliases=config.aliases,
            details={"model_name": config.model_name},
        )

    def info(self) -> ModelInfo:
        """As the replica saw the model that answered last."""
        running = self._replicas.running
        return msgspec.structs.replace(
            self._info, state="ready" if running else "cold", details={**self._info.details, "replicas": running}
        )

    async def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        """The events of the replica that Serve's router picks; of another one where that is lost before the first of the reply."""
        for attempt in range(1, ATTEMPTS + 1):
            begun = False
            try:
                async with contextlib.aclosing(self._events(request)) as events:
                    async for event in events:
                        begun = begun or not isinstance(event, Progress)
                        yield event
                return
            except ReplicaLostError as error:
                logger.debug("%s: %s", request.request_id, error.__cause__)
                if begun or attempt == ATTEMPTS:
                    raise

    async def _events(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        sent = self._replicas.stream("generate", request, self._name, model=self._name, session=beginning(request, self._name))
        async with contextlib.aclosing(sent) as received:
            async for data in received:
                if isinstance(data, GatewayError):
                    raise data
                batch = decode(data)
                if batch.info is not None:
                    self._learn(batch.info)
                for event in batch.events:
                    yield event

    async def tokenize(self, input: str | ChatInput, *, add_special_tokens: bool = True) -> Tokenized:
        return await self._ask("tokenize", input, add_special_tokens=add_special_tokens)

    async def detokenize(self, tokens: Sequence[int]) -> str:
        return await self._ask("detokenize", tokens)

    async def count_tokens(self, texts: Sequence[str]) -> tuple[int, ...]:
        return await self._ask("count_tokens", texts)

    async def close(self) -> None:
        """Whoever connected to the cluster closes the connection."""

    def _learn(self, info: ModelInfo) -> None:
        self._info = msgspec.structs.replace(info, backend="ray", created=self._info.created)

    async def _ask(self, method: str, argument: Any, **options: Any) -> Any:
        answer = await self._replicas.ask(method, argument, self._name, model=self._name, **options)
        if isinstance(answer, GatewayError):
            raise answer
        return answer


def beginning(request: GenerationRequest, model: str) -> str:
    """What is alike in all requests of a conversation, as a hash: everything up to the first message of the user, or the first text."""
    match request.input:
        case ChatInput(messages):
            first = next((index for index, message in enumerate(messages) if message.role == "user"), len(messages) - 1)
            parts: list[object] = [(message.role, message.content) for message in messages[: first + 1]]
        case CompletionInput(prompts):
            parts = [prompts[0][:PROMPT_BEGINNING] if prompts else ""]
        case _:
            return ""
    return hashlib.sha256(repr((model, parts)).encode("utf-8", "surrogatepass")).hexdigest()
