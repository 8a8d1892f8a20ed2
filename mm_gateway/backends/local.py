"""A Hugging Face model on this machine as a Backend: lease, template, tokens, engine, events."""

from __future__ import annotations

import asyncio
import functools
import json
import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from mm_gateway.backends.best_of import keep_best
from mm_gateway.backends.embed import embed
from mm_gateway.backends.tool_calls import read_tool_calls
from mm_gateway.chat_templates.history import encode_fitting
from mm_gateway.chat_templates.tool_formats.format import json_rule
from mm_gateway.core import (
    ChatInput,
    CompletionInput,
    EmbeddingInput,
    GenerationConfig,
    GenerationEvent,
    GenerationRequest,
    Grammar,
    ModelInfo,
    Progress,
    TextDelta,
    Tokenized,
    ToolUse,
)
from mm_gateway.errors import InvalidRequestError
from mm_gateway.settings import ModelConfig

if TYPE_CHECKING:  # the manager is torch-free, but what it hands out is not
    from mm_gateway.runtime.model_text import ModelText
    from mm_gateway.runtime.real_model_manager import RealModelManager
    from mm_gateway.runtime.residents import Lease
    from mm_gateway.runtime.structured_output import CompiledGrammar


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
        self._text: ModelText | None = None
        self._text_lock = asyncio.Lock()

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

    async def tokenize(self, input: str | ChatInput, *, add_special_tokens: bool = True, add_generation_prompt: bool = True) -> Tokenized:
        text = await self._model_text()
        return await asyncio.to_thread(
            text.tokenize, input, add_special_tokens=add_special_tokens, add_generation_prompt=add_generation_prompt
        )

    async def detokenize(self, tokens: Sequence[int]) -> str:
        text = await self._model_text()
        return await asyncio.to_thread(text.detokenize, tokens)

    async def close(self) -> None:
        """The manager owns what there is to close."""

    async def _model_text(self) -> ModelText:
        """The text side alone, kept for good: counting tokens must neither wait for the weights nor push another model out."""
        async with self._text_lock:
            if self._text is None:
                from mm_gateway.runtime.model_loader import load_model_text

                self._text = await asyncio.to_thread(load_model_text, self._config)
            return self._text

    async def _run(self, lease: Lease, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        stop_strings: Sequence[str] = ()
        echo_texts: list[str] | None = None
        grammar: CompiledGrammar | None = None
        config = request.config
        match request.input:
            case EmbeddingInput() as embedding:
                async for event in embed(lease.engine, embedding):
                    yield event
                return
            case ChatInput() as chat:
                prompts = [await asyncio.to_thread(self._encode_chat, lease, chat, config.max_new_tokens)]
                stop_strings, param = lease.loaded.chat.stop_strings, "messages"
                if chat.tools is not None:
                    config, grammar = await asyncio.to_thread(_tool_grammar, lease, chat.tools, config)
            case CompletionInput(texts, echo):
                prompts = await asyncio.to_thread(_encode_all, lease, texts)
                param = "prompt"
                if echo:
                    echo_texts = await asyncio.to_thread(_texts, lease, texts)
        if grammar is None and config.grammar is not None:
            grammar = await asyncio.to_thread(lease.engine.compile, config.grammar)
        best_of = request.best_of if request.best_of is not None and request.best_of > config.n else None
        if best_of is not None:
            config = msgspec.structs.replace(config, n=best_of, logprobs=config.logprobs or 0)
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
            if isinstance(request.input, ChatInput) and request.input.tools is not None:
                tools, chat = request.input.tools, lease.loaded.chat
                begun = chat.begun(request.input.messages, tools.tools)
                events = read_tool_calls(events, tools, lambda: chat.tool_format.parser(begun))
            async for event in events:
                yield event
        finally:
            generation.cancel()

    def _encode_chat(self, lease: Lease, chat: ChatInput, reply_tokens: int | None) -> list[int]:
        tools = chat.tools.tools if chat.tools is not None else ()
        encode = functools.partial(lease.loaded.chat.encode, tools=tools)
        if not (self._config.truncate_history if chat.truncate is None else chat.truncate):
            return encode(chat.messages)
        return encode_fitting(encode, chat.messages, context_length=lease.engine.context_length, reply_tokens=reply_tokens)


def _tool_grammar(lease: Lease, use: ToolUse, config: GenerationConfig) -> tuple[GenerationConfig, CompiledGrammar]:
    """The request's parameters with a grammar that every call follows, whether it has to come or may come."""
    text = json_rule(config.grammar) if config.grammar is not None else None
    grammar = Grammar("lark", lease.loaded.chat.tool_format.grammar(use, text), "tools")
    try:
        compiled = lease.engine.compile(grammar)
    except InvalidRequestError:
        for index, tool in enumerate(use.tools):  # which of the schemas is it?
            schema = json.dumps(tool.parameters if tool.parameters is not None else {})
            lease.engine.compile(Grammar("json_schema", schema, f"tools[{index}].function.parameters"))
        raise
    return msgspec.structs.replace(config, grammar=grammar), compiled


def _tell(loop: asyncio.AbstractEventLoop, arrived: asyncio.Queue[Progress | None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(arrived.put_nowait, None)


def _encode_all(lease: Lease, prompts: Sequence[str | tuple[int, ...]]) -> list[list[int]]:
    return [lease.engine.encode(prompt) if isinstance(prompt, str) else list(prompt) for prompt in prompts]


def _texts(lease: Lease, prompts: Sequence[str | tuple[int, ...]]) -> list[str]:
    return [prompt if isinstance(prompt, str) else str(lease.engine.tokenizer.decode(list(prompt))) for prompt in prompts]
