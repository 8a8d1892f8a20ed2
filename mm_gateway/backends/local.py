"""A Hugging Face model on this machine as a Backend: lease, template, tokens, engine, events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from mm_gateway.backends.best_of import keep_best
from mm_gateway.chat_templates.history import encode_fitting
from mm_gateway.core import (
    ChatInput,
    CompletionInput,
    GenerationEvent,
    GenerationRequest,
    Message,
    ModelInfo,
    Progress,
    TextDelta,
)
from mm_gateway.settings import ModelConfig

if TYPE_CHECKING:  # the manager is torch-free, but what it hands out is not
    from mm_gateway.runtime.real_model_manager import RealModelManager
    from mm_gateway.runtime.residents import Lease


class LocalBackend:
    """One entry of `models.yaml` that this machine serves.

    Args:
        name: the entry's name. config: the entry. manager: brings the model into memory and keeps it there.
        created: Unix seconds at which the gateway started.
    """

    def __init__(self, name: str, config: ModelConfig, manager: RealModelManager, created: int) -> None:
        self._name = name
        self._config = config
        self._manager = manager
        self._created = created

    def info(self) -> ModelInfo:
        status = self._manager.status(self._config)
        details: dict[str, object] = {"model_name": self._config.model_name, "pinned": status.pinned}
        if status.progress is not None:
            details["progress"] = status.progress.detail
            details["fraction"] = status.progress.fraction
        if status.footprint_bytes is not None:
            details["footprint_bytes"] = status.footprint_bytes
        if status.device is not None:
            details["device"] = status.device
        if status.idle_s is not None:
            details["last_used"] = int(time.time() - status.idle_s)
        if status.in_host_memory:
            details["in_host_memory"] = True
        details["requests"] = {"running": status.leases, "waiting": status.waiting}
        return ModelInfo(
            id=self._name,
            created=self._created,
            backend="local",
            state=status.state,
            context_length=self._config.max_context_length,
            aliases=self._config.aliases,
            details=details,
        )

    async def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        """Wait for the model, tokenize off the event loop, and pass the engine's events on."""
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[Progress | None] = asyncio.Queue()
        future = self._manager.acquire(
            self._config,
            keep_alive=request.keep_alive,
            on_progress=lambda progress: loop.call_soon_threadsafe(arrived.put_nowait, progress),
        )
        future.add_done_callback(lambda _: _tell(loop, arrived))
        try:
            while (progress := await arrived.get()) is not None:
                yield progress
        except BaseException:
            if not future.cancel() and future.exception() is None:
                future.result().release()
            raise
        with future.result() as lease:
            async for event in self._run(lease, request):
                yield event

    async def close(self) -> None:
        """The manager owns what there is to close."""

    async def _run(self, lease: Lease, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        stop_strings: Sequence[str] = ()
        echo_texts: list[str] | None = None
        match request.input:
            case ChatInput(messages):
                prompts = [await asyncio.to_thread(self._encode_chat, lease, messages, request.config.max_new_tokens)]
                stop_strings, param = lease.loaded.chat.stop_strings, "messages"
            case CompletionInput(texts, echo):
                prompts = await asyncio.to_thread(_encode_all, lease, texts)
                param = "prompt"
                if echo:
                    echo_texts = await asyncio.to_thread(_texts, lease, texts)
        config = request.config
        best_of = request.best_of if request.best_of is not None and request.best_of > config.n else None
        if best_of is not None:
            config = msgspec.structs.replace(config, n=best_of, logprobs=config.logprobs or 0)
        grammar = await asyncio.to_thread(lease.engine.compile, config.grammar) if config.grammar is not None else None
        loop = asyncio.get_running_loop()
        generation = lease.engine.submit(
            prompts, config, stop_strings=stop_strings, grammar=grammar, echo_texts=echo_texts, param=param, loop=loop
        )
        try:
            if echo_texts is not None and not config.prompt_logprobs:
                for index in range(len(prompts) * request.config.n):
                    yield TextDelta(index, echo_texts[index // request.config.n])
            events = aiter(generation)
            if best_of is not None:
                events = keep_best(events, prompts=len(prompts), best_of=best_of, n=request.config.n, logprobs=request.config.logprobs)
            async for event in events:
                yield event
        finally:
            generation.cancel()

    def _encode_chat(self, lease: Lease, messages: Sequence[Message], reply_tokens: int | None) -> list[int]:
        encode = lease.loaded.chat.encode
        if not self._config.truncate_history:
            return encode(messages)
        return encode_fitting(encode, messages, context_length=lease.engine.context_length, reply_tokens=reply_tokens)


def _tell(loop: asyncio.AbstractEventLoop, arrived: asyncio.Queue[Progress | None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(arrived.put_nowait, None)


def _encode_all(lease: Lease, prompts: Sequence[str | tuple[int, ...]]) -> list[list[int]]:
    return [lease.engine.encode(prompt) if isinstance(prompt, str) else list(prompt) for prompt in prompts]


def _texts(lease: Lease, prompts: Sequence[str | tuple[int, ...]]) -> list[str]:
    return [prompt if isinstance(prompt, str) else str(lease.engine.tokenizer.decode(list(prompt))) for prompt in prompts]
