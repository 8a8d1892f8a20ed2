"""An engine as a Backend: template, tokens, engine, events. LocalBackend leases the engine it uses, callers in Python bring theirs."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from mm_gateway.backends.best_of import with_best_of
from mm_gateway.backends.embed import embed
from mm_gateway.backends.prompts import check_prompt_logprobs, echo_of_chat, with_echo
from mm_gateway.backends.tool_calls import StopsOutsideCalls, read_tool_calls
from mm_gateway.backends.tool_schemas import read_schemas, tried, unheld_paths
from mm_gateway.chat_templates.encoder import ChatEncoder
from mm_gateway.chat_templates.history import Fitting, encode_fitting, tokens_kept
from mm_gateway.chat_templates.reasoning_formats.format import ThoughtPlan
from mm_gateway.chat_templates.token_limit import WHOLE
from mm_gateway.chat_templates.tool_formats.format import json_rule
from mm_gateway.configuration.model_config import ModelType
from mm_gateway.core import (
    ChatInput,
    CompletionInput,
    Effort,
    EmbeddingInput,
    GenerationConfig,
    GenerationEvent,
    GenerationRequest,
    Grammar,
    Ignored,
    ModelInfo,
    Tokenized,
    ToolUse,
    UsageSoFar,
)
from mm_gateway.errors import InvalidRequestError
from mm_gateway.runtime.grammars.enforceable import Enforceable
from mm_gateway.runtime.grammars.measuring import check_size
from mm_gateway.runtime.grammars.sources import enforced_schema
from mm_gateway.runtime.grammars.trials import TRIALS
from mm_gateway.runtime.tokens.model_text import check_text_size
from mm_gateway.stop_strings import StopStrings, TextStops
from mm_gateway.timeline import span
from mm_gateway.work_pools import ENCODING, check_wanted, encoding

if TYPE_CHECKING:
    from mm_gateway.runtime.inference_engine import InferenceEngine
    from mm_gateway.runtime.sampling.structured_output import CompiledGrammar


NO_BUDGETS: Mapping[Effort, int] = {}
_END_TOKENS = 24
"""Of a prompt, which show whether its template has opened a thought."""


class EngineBackend:
    """One engine that somebody else made and closes.

    Args:
        model_type: its chat template; None: the tokenizer's own, else by the model's architecture.
    """

    def __init__(self, engine: InferenceEngine, *, model_type: ModelType | None = None) -> None:
        from mm_gateway.runtime.tokens.model_text import ModelText

        self._engine = engine
        self._chat = engine.chat_encoder(model_type)
        self._text = ModelText(engine.tokenizer, self._chat, context_length=engine.context_length, vocab_size=engine.vocab_size)

    def info(self) -> ModelInfo:
        return ModelInfo(id=self._engine.name, created=0, context_length=self._engine.context_length)

    async def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        async with contextlib.aclosing(generate(self._engine, self._chat, request, truncate_history=True)) as events:
            async for event in events:
                yield event

    async def tokenize(self, input: str | ChatInput, *, add_special_tokens: bool = True) -> Tokenized:
        pool = encoding(len(input) if isinstance(input, str) else input.characters)
        return await pool.run(self._text.tokenize, input, add_special_tokens=add_special_tokens)

    async def detokenize(self, tokens: Sequence[int]) -> str:
        return await encoding(len(tokens)).run(self._text.detokenize, tokens)

    async def count_tokens(self, texts: Sequence[str]) -> tuple[int, ...]:
        return await encoding(sum(map(len, texts))).run(count_tokens, self._engine, texts)

    async def close(self) -> None:
        """The engine is not ours."""


def generate(
    engine: InferenceEngine,
    chat: ChatEncoder,
    request: GenerationRequest,
    *,
    truncate_history: bool,
    thinking_budgets: Mapping[Effort, int] = NO_BUDGETS,
) -> AsyncGenerator[GenerationEvent]:
    """A request's events from an engine; tokenizing and grammars stay off the event loop.

    Args:
        chat: renders conversations for the engine's model. truncate_history: leave out oldest turns that do not fit.
        thinking_budgets: tokens of thought by effort, in place of those that are usual.
    """
    if isinstance(request.input, EmbeddingInput):
        return embed(engine, request.input)
    return with_best_of(functools.partial(_generate, engine, chat, truncate_history, thinking_budgets), request)


async def _generate(
    engine: InferenceEngine,
    chat: ChatEncoder,
    truncate_history: bool,
    thinking_budgets: Mapping[Effort, int],
    request: GenerationRequest,
) -> AsyncGenerator[GenerationEvent]:
    stop_strings: Sequence[str] = ()
    stops_within: Callable[[StopStrings], TextStops] | None = None
    shown: Sequence[str] = ()
    grammar: CompiledGrammar | None = None
    thoughts: ThoughtPlan | None = None
    config = request.config
    assert not isinstance(request.input, EmbeddingInput)
    match request.input:
        case ChatInput() as conversation:
            if conversation.tools is not None and not conversation.tools.shown_only:
                tool_grammar, ignored = await _tool_grammar(chat, conversation.tools, config.grammar)
                config = msgspec.structs.replace(config, grammar=tool_grammar)
                if ignored:
                    yield Ignored(ignored)
                stops_within = functools.partial(StopsOutsideCalls, functools.partial(chat.tool_format.calls, conversation.tools.tools))
                shown = chat.tool_marks
            if unused := chat.unused_variables(conversation.rendering):
                yield Ignored(tuple(f"chat_template_kwargs.{name}" for name in unused))
            encode = functools.partial(_encode_chat, engine, chat, conversation, config.required_room, truncate_history, thinking_budgets)
            with span("render"):
                fitting, thoughts = await encoding(conversation.characters).run(encode)
            if fitting.left_out:
                yield Ignored(fitting.ignored)
            if thoughts is None and conversation.reasoning.fields:
                yield Ignored(conversation.reasoning.fields)
            prompts, echo = [fitting.ids], echo_of_chat(conversation)
            stop_strings, param, scored = chat.stop_strings, "messages", False
            if not config.return_token_ids:  # with which the prompt itself is told
                yield UsageSoFar(len(fitting.ids), 0)
        case CompletionInput() as completion:
            with span("render"):
                prompts, echo = await encoding(completion.characters).run(_encode_all, engine, completion, config.required_room)
            param, scored = "prompt", config.prompt_logprobs is not None
    check_prompt_logprobs(config, sum(map(len, prompts)), echo=scored and bool(echo))
    if config.grammar is not None:
        with span("grammar"):
            grammar, config = await engine.grammars.compiled(config.grammar), msgspec.structs.replace(config, grammar=None)
    bad_words = await ENCODING.run(engine.spellings, config.bad_words) if config.bad_words else ()
    prediction = await _prediction(engine, config)
    generation = engine.submit(
        prompts,
        config,
        stop_strings=stop_strings,
        stops_within=stops_within,
        shown=shown,
        grammar=grammar,
        bad_words=bad_words,
        prediction=prediction,
        thoughts=thoughts,
        echo_texts=echo if scored else None,
        param=param,
        loop=asyncio.get_running_loop(),
    )
    try:
        events = _with_tool_calls(aiter(generation), chat, request)
        async for event in events if scored or echo is None else with_echo(events, echo, config.n):
            yield event
    finally:
        generation.cancel()
        generation.tell_times()


async def _prediction(engine: InferenceEngine, config: GenerationConfig) -> Sequence[int]:
    """Tokens of what the text is likely to be."""
    text = config.prediction
    if not text or not config.speculation:
        return ()
    check_text_size([text], "prediction.content", context_length=engine.context_length)
    return await encoding(len(text)).run(engine.encode_whole, text)


def _with_tool_calls(
    events: AsyncIterator[GenerationEvent], chat: ChatEncoder, request: GenerationRequest
) -> AsyncIterator[GenerationEvent]:
    input = request.input
    if not isinstance(input, ChatInput) or input.tools is None or input.tools.shown_only:
        return events
    tools = input.tools.tools
    begun = "" if input.rendering.continue_final_message else chat.begun(input.messages, tools)
    return read_tool_calls(events, input.tools, lambda: chat.tool_format.parser(begun, tools), token_ids=request.config.return_token_ids)


def count_tokens(engine: InferenceEngine, texts: Sequence[str]) -> tuple[int, ...]:
    """Tokens of each text for an engine's model, without control tokens; blocks."""
    counts: list[int] = []
    for text in texts:
        check_wanted()
        counts.append(len(engine.encode_whole(text)))
    return tuple(counts)


def _encode_chat(
    engine: InferenceEngine,
    chat: ChatEncoder,
    conversation: ChatInput,
    reply_tokens: int | None,
    truncate_history: bool,
    thinking_budgets: Mapping[Effort, int],
) -> tuple[Fitting, ThoughtPlan | None]:
    """The prompt, and how its replies think; None: the model does not, as far as its template shows, which is found out here once."""
    fitting = _fitting(engine, chat, conversation, reply_tokens, truncate_history)
    if chat.thoughts is None:
        return fitting, None
    return fitting, chat.thoughts.plan(conversation, engine.decode(fitting.ids[-_END_TOKENS:]), thinking_budgets)


def _fitting(
    engine: InferenceEngine, chat: ChatEncoder, conversation: ChatInput, reply_tokens: int | None, truncate_history: bool
) -> Fitting:
    tools = conversation.tools.tools if conversation.tools is not None else ()
    encode = functools.partial(chat.encode, tools=tools, rendering=conversation.rendering, reasoning=conversation.reasoning)
    if conversation.truncate_prompt_tokens is not None:
        check_text_size([message.content for message in conversation.messages], "messages", context_length=engine.context_length)
        return Fitting(_last(encode(conversation.messages), conversation.truncate_prompt_tokens, engine, reply_tokens))
    encode = functools.partial(encode, limit=engine.token_limit(reply_tokens, param="messages"))
    if not (truncate_history if conversation.truncate is None else conversation.truncate):
        return Fitting(encode(conversation.messages))
    return encode_fitting(encode, conversation.messages, context_length=engine.context_length, reply_tokens=reply_tokens)


async def _tool_grammar(chat: ChatEncoder, use: ToolUse, answer: Grammar | None) -> tuple[Grammar, tuple[str, ...]]:
    """What every call follows, whether it has to come or may come, and an answer without calls.

    Returns:
        The grammar, and paths of what it leaves out of the schemas of tools that are not strict.

    Raises:
        InvalidRequestError: a schema is too large, or that of a strict tool cannot be enforced; names the tool.
    """
    schemas = await read_schemas(use.tools, use.places)
    unheld_paths(chat.tool_format, use, schemas)
    grammar = await ENCODING.run(_grammar_of_calls, chat, use, schemas, answer)
    try:
        await TRIALS.checked(grammar)
    except InvalidRequestError:
        compiling = await tried(use.tools, schemas, use.places)
        if compiling == schemas:
            raise
        schemas = compiling
        grammar = await ENCODING.run(_grammar_of_calls, chat, use, schemas, answer)
    return grammar, (*(path for schema in schemas for path in schema.left_out), *unheld_paths(chat.tool_format, use, schemas))


def _grammar_of_calls(chat: ChatEncoder, use: ToolUse, schemas: Sequence[Enforceable], answer: Grammar | None) -> Grammar:
    tools = tuple(msgspec.structs.replace(tool, parameters=schema) for tool, (schema, _) in zip(use.tools, schemas, strict=True))
    use = msgspec.structs.replace(use, tools=tools)
    text: str | None = None
    if answer is not None:
        check_size(answer)
        text = json_rule(enforced_schema(answer) if answer.kind == "json_schema" else {"type": "object"})
    return Grammar("lark", chat.tool_format.grammar(use, text, chat.spelled), "tools")


def _encode_all(
    engine: InferenceEngine, completion: CompletionInput, reply_tokens: int | None
) -> tuple[list[list[int]], Sequence[str] | None]:
    """Token ids of each prompt, and the texts that are to be echoed."""
    kept = completion.truncate_prompt_tokens
    encode = functools.partial(engine.encode, add_special_tokens=completion.add_special_tokens)
    if kept is None:
        encode = functools.partial(encode, limit=engine.token_limit(reply_tokens))
        ids = [encode(prompt) if isinstance(prompt, str) else list(prompt) for prompt in completion.prompts]
        texts = [prompt if isinstance(prompt, str) else engine.decode(prompt) for prompt in completion.prompts] if completion.echo else None
        return ids, texts
    check_text_size([prompt for prompt in completion.prompts if isinstance(prompt, str)], "prompt", context_length=engine.context_length)
    encode = functools.partial(encode, limit=WHOLE)
    ids = [_last(encode(prompt) if isinstance(prompt, str) else prompt, kept, engine, reply_tokens) for prompt in completion.prompts]
    return ids, [engine.decode(prompt) for prompt in ids] if completion.echo else None


def _last(ids: Sequence[int], count: int, engine: InferenceEngine, reply_tokens: int | None) -> list[int]:
    """The last tokens of a prompt, as `truncate_prompt_tokens` counts them."""
    return list(ids[max(len(ids) - tokens_kept(count, engine.context_length, reply_tokens), 0) :])
