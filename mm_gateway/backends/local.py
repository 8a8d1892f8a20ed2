"""A Hugging Face model on this machine as a Backend: a lease of the manager, and the events of its engine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from mm_gateway.backends import engine_backend as engine
from mm_gateway.backends.workflow_field import refuse_workflow
from mm_gateway.chat_templates.found_formats import ChatFormats
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.core import ChatInput, GenerationEvent, GenerationRequest, ModelInfo, Progress, Tokenized
from mm_gateway.errors import ModelUnavailableError
from mm_gateway.runtime.checkpoints.chat_files import known_formats
from mm_gateway.runtime.checkpoints.context_length import known_length
from mm_gateway.runtime.residency.factories import leave_out_of_collections
from mm_gateway.runtime.residency.leases import abandon, leased
from mm_gateway.timeline import span
from mm_gateway.work_pools import MODELS, encoding

if TYPE_CHECKING:  # the manager is torch-free, but what it hands out is not
    from mm_gateway.runtime.real_model_manager import RealModelManager
    from mm_gateway.runtime.tokens.model_text import ModelText

logger = logging.getLogger(__name__)

FAILED_FOR_S = 60.0
"""Seconds for which a load or an engine that failed speaks against the model; after that it may be tried anew."""


class LocalBackend:
    """One entry of `models.yaml` that this machine serves.

    Args:
        name: the entry's name. config: the entry. manager: brings the model into memory and keeps it there.
        created: Unix seconds at which the gateway started.

    Attributes:
        config: the entry.
    """

    def __init__(self, name: str, config: ModelConfig, manager: RealModelManager, created: int) -> None:
        self._name = name
        self.config = config
        self._manager = manager
        self._created = created
        self._known_length = config.max_context_length
        self._known_formats: ChatFormats | None = None
        self._text: ModelText | None = None
        self._text_lock = asyncio.Lock()

    def info(self) -> ModelInfo:
        status = self._manager.status(self.config)
        details: dict[str, object] = {"model_name": self.config.model_name, "pinned": status.pinned}
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
        if (formats := status.formats or self._known_formats) is not None:
            details |= formats.told()
        details["requests"] = {"running": status.leases, "waiting": status.waiting}
        return ModelInfo(
            id=self._name,
            created=self._created,
            backend="local",
            state=status.state,
            context_length=status.context_length or self._known_length,
            aliases=self.config.aliases,
            details=details,
        )

    async def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        """Wait for the model, tokenize off the event loop, and pass the engine's events on."""
        refuse_workflow(request)
        await self.find()
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[Progress | None] = asyncio.Queue()
        future = self._manager.acquire(
            self.config,
            keep_alive=request.keep_alive,
            on_progress=lambda progress: loop.call_soon_threadsafe(arrived.put_nowait, progress),
        )
        future.add_done_callback(lambda _: _tell(loop, arrived))
        try:
            with span("load", model=self._name):
                while (progress := await arrived.get()) is not None:
                    yield progress
        except BaseException:
            abandon(future)
            raise
        with future.result() as lease:
            running = engine.generate(
                lease.engine,
                lease.loaded.chat,
                request,
                truncate_history=self.config.truncate_history,
                thinking_budgets=self.config.thinking_budgets.by_effort(),
            )
            # Closed here, before the lease ends: what runs must not outlive the right to the model.
            async with contextlib.aclosing(running) as events:
                async for event in events:
                    yield event

    async def tokenize(self, input: str | ChatInput, *, add_special_tokens: bool = True) -> Tokenized:
        text = await self._model_text()
        pool = encoding(len(input) if isinstance(input, str) else input.characters)
        found = await pool.run(text.tokenize, input, add_special_tokens=add_special_tokens)
        return msgspec.structs.replace(found, context_length=self._manager.status(self.config).context_length or found.context_length)

    async def detokenize(self, tokens: Sequence[int]) -> str:
        text = await self._model_text()
        return await encoding(len(tokens)).run(text.detokenize, tokens)

    async def count_tokens(self, texts: Sequence[str]) -> tuple[int, ...]:
        """Waits for the model."""
        await self.find()
        async with leased(self._manager.acquire(self.config)) as lease:
            return await encoding(sum(map(len, texts))).run(engine.count_tokens, lease.engine, texts)

    async def read_files(self) -> None:
        """What the files say of a model that was not loaded yet, where they are here. The log tells of a draft that cannot guess for it."""
        self._known_length = await MODELS.run(known_length, self.config)
        self._known_formats = await MODELS.run(known_formats, self.config)
        if self.config.speculative_model is not None and (fault := await MODELS.run(_draft_fault, self.config)) is not None:
            logger.error("%s cannot be loaded: speculative_model: %s", self._name, fault)

    async def probe(self, timeout_s: float) -> bool:
        """By what the manager knows: nothing is loaded for it, and nothing is waited for."""
        status = self._manager.status(self.config)
        if status.failure is not None and status.failed_s is not None and status.failed_s < FAILED_FOR_S:
            raise ModelUnavailableError(f"it failed {status.failed_s:.0f} s ago: {status.failure}", retryable=True)
        return status.state in ("ready", "busy")

    async def find(self) -> None:
        """Make sure that there is such a model, before anything is done for it. That of an entry is taken to be there."""

    async def close(self) -> None:
        """The manager owns what there is to close."""

    async def _model_text(self) -> ModelText:
        """The text side alone, kept for good: counting tokens must neither wait for the weights nor push another model out."""
        async with self._text_lock:
            if self._text is None:
                await self.find()
                self._text = await MODELS.run(_read_text, self.config)
            return self._text


def _read_text(config: ModelConfig) -> ModelText:
    """In a thread the import too, which takes seconds where no model was loaded yet."""
    from mm_gateway.runtime.model_loader import load_model_text

    leave_out_of_collections()
    return load_model_text(config)


def _draft_fault(config: ModelConfig) -> str | None:
    from mm_gateway.runtime.checkpoints.draft import draft_fault

    leave_out_of_collections()
    return draft_fault(config)


def _tell(loop: asyncio.AbstractEventLoop, arrived: asyncio.Queue[Progress | None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(arrived.put_nowait, None)
