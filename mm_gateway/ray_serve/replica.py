"""One replica of the models: a catalog with its manager and engines, asked from elsewhere."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

from mm_gateway.api.observation.local_models import local_models
from mm_gateway.catalog import build_catalog
from mm_gateway.configuration.settings import Settings
from mm_gateway.core import Backend, ChatInput, GenerationEvent, GenerationRequest, Tokenized, TokenizingBackend
from mm_gateway.entries import ReplicaGlance
from mm_gateway.errors import GatewayError, ModelNotFoundError, ModelUnavailableError
from mm_gateway.ray_serve.lifelines import Callers
from mm_gateway.ray_serve.replicas import RETRY_AFTER_S
from mm_gateway.ray_serve.wire import batches


class ModelReplica:
    """Answers for every local and mock model of the settings. Which of them are in memory is the manager's to decide.

    Serve makes one in a process of its own, and calls its methods on one event loop.

    Args:
        settings: models, memory and engine of them count.
    """

    async def __init__(self, settings: Settings) -> None:  # type: ignore[misc] - Serve awaits it, on the loop of all calls
        from ray import serve  # type: ignore[import-not-found]
        from ray.util import get_node_ip_address  # type: ignore[import-not-found]

        self._callers = Callers()
        self._catalog = build_catalog(settings)
        await self._catalog.start()

        # The LRU that routers are told of, so that a model's requests go where it was used last. The manager, which has the same
        # bound, knows itself which models are used, and takes them out of memory.
        async def used(model: str) -> str:
            return model

        self._name, self._node = serve.get_replica_context().replica_tag, get_node_ip_address()
        bound: int = settings.memory.max_cached_models
        self._used: Callable[[str], Awaitable[str]] = serve.multiplexed(max_num_models_per_replica=bound)(used)

    async def generate(self, request: GenerationRequest, model: str, caller: tuple[str, int]) -> AsyncGenerator[bytes | GatewayError]:
        """The reply of a model, by the name of its entry, as `wire.batches` sends it. caller: ends when it goes; see `lifelines`."""
        await self._used(model)
        try:
            backend = self._catalog.resolve(model)
        except ModelNotFoundError:
            yield _of_another_version(model)
            return
        async with contextlib.aclosing(batches(self._events(backend, request, caller), backend.info())) as sent:
            async for batch in sent:
                yield batch

    async def _events(self, backend: Backend, request: GenerationRequest, caller: tuple[str, int]) -> AsyncGenerator[GenerationEvent]:
        with self._callers.working_for(caller):
            async with contextlib.aclosing(backend.generate(request)) as events:  # type: ignore[type-var] - Backends' are generators
                async for event in events:
                    yield event

    async def tokenize(self, input: str | ChatInput, model: str, *, add_special_tokens: bool) -> Tokenized | GatewayError:
        """As core.TokenizingBackend's; its errors are returned."""
        return await self._ask(lambda backend: backend.tokenize(input, add_special_tokens=add_special_tokens), model)

    async def detokenize(self, tokens: Sequence[int], model: str) -> str | GatewayError:
        """As core.TokenizingBackend's; its errors are returned."""
        return await self._ask(lambda backend: backend.detokenize(tokens), model)

    async def count_tokens(self, texts: Sequence[str], model: str) -> tuple[int, ...] | GatewayError:
        """As core.TokenizingBackend's; its errors are returned."""
        return await self._ask(lambda backend: backend.count_tokens(texts), model)

    async def glance(self) -> ReplicaGlance:
        """What this replica and its engines do now."""
        models = {model.name: (model.status, model.engine) for model in local_models(self._catalog)}
        return ReplicaGlance(self._name, self._node, os.environ.get("CUDA_VISIBLE_DEVICES", ""), models, self._catalog.manager_stats())

    async def _ask(self, question: Callable[[TokenizingBackend], Awaitable[Any]], model: str) -> Any:
        await self._used(model)
        try:
            backend = self._catalog.resolve(model)
        except ModelNotFoundError:
            return _of_another_version(model)
        assert isinstance(backend, TokenizingBackend)  # local and mock ones are
        try:
            return await question(backend)
        except GatewayError as error:
            return error

    async def __del__(self) -> None:
        """Serve awaits it when the replica ends."""
        await self._catalog.close()


def _of_another_version(model: str) -> ModelUnavailableError:
    """The API knows the model already, or still."""
    text = f"The model `{model}` is not served by the replica that was asked, which is of another version. Others take its place"
    return ModelUnavailableError(text, retryable=True, retry_after_s=RETRY_AFTER_S)
