"""A model without a model: deterministic text at a settable pace, and every error on demand, for people who test their clients.

The last message (or the prompt) may hold directives: `!mock tokens=50 delay=0.1 load=2 error=429 after=3`

    tokens=N   length of the text in tokens (default: 24)
    delay=S    seconds per token, in place of the configured delay_s
    load=S     seconds of "loading" before the first token
    error=E    fail: 400, 401, 403, 404, 409, 422, 429, 500, 503, context, or hang (never answers)
    call=NAME  call that function of the request's tools
    after=N    fail after N tokens of the text, mid-stream; default 0: before the first

A token is a word with the space before it. Log-probabilities are made up, and always the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Iterator, Sequence

import msgspec

from mm_gateway.backends.best_of import keep_best
from mm_gateway.backends.mock.call import arguments_for, called_tool, text_for
from mm_gateway.backends.mock.vectors import MockVocabulary, mock_vector
from mm_gateway.backends.tool_calls import finish_reason, new_call_id
from mm_gateway.backends.workflow_field import refuse_workflow
from mm_gateway.chat_templates.history import encode_fitting
from mm_gateway.configuration.settings import ModelConfig
from mm_gateway.core import (
    ChatInput,
    ChoiceFinished,
    CompletionInput,
    Embedding,
    EmbeddingInput,
    GenerationEvent,
    GenerationRequest,
    Measure,
    Message,
    ModelInfo,
    Progress,
    TextDelta,
    Tokenized,
    TokenLogprob,
    Tool,
    ToolCallDelta,
    Usage,
)
from mm_gateway.errors import (
    AuthenticationError,
    ContextLengthExceededError,
    EngineError,
    GatewayError,
    InvalidRequestError,
    ModelNotFoundError,
    ModelUnavailableError,
    PermissionDeniedError,
    RateLimitError,
    UpstreamError,
)
from mm_gateway.text import held_back

CONTEXT_LENGTH = 32768

_TEXT = (
    "the model answers with plain words that mean nothing but come in the same order every time so a client can be tested "
    "against it without waiting for a real one and its text holds a comma, a full stop. and a café"
)
_WORDS = _TEXT.split()
_DIRECTIVES = re.compile(r"!mock((?:\s+\w+=[\w.-]+)+)")
_TOKEN = re.compile(r"\s*\S+|\s+$")
_YIELD_EVERY = 64
"""Tokens between two returns to the event loop where there is no delay."""


class _Directives(msgspec.Struct, forbid_unknown_fields=True):
    tokens: int = 24
    delay: float | None = None
    load: float = 0.0
    error: str | None = None
    after: int = 0
    call: str | None = None


class MockBackend:
    """One `backend: mock` entry of `models.yaml`."""

    def __init__(self, name: str, config: ModelConfig, created: int) -> None:
        self._name = name
        self._config = config
        self._created = created
        self._context_length = config.max_context_length or CONTEXT_LENGTH
        self._vocabulary = MockVocabulary()

    def info(self) -> ModelInfo:
        return ModelInfo(
            id=self._name, created=self._created, backend="mock", context_length=self._context_length, aliases=self._config.aliases
        )

    async def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        refuse_workflow(request)
        config = request.config
        best_of = request.best_of
        if best_of is None or best_of <= config.n:
            async for event in self._generate(request):
                yield event
            return
        wider = msgspec.structs.replace(request, config=msgspec.structs.replace(config, n=best_of, logprobs=config.logprobs or 0))
        prompts = len(request.input.prompts) if isinstance(request.input, CompletionInput) else 1
        async for event in keep_best(self._generate(wider), prompts=prompts, best_of=best_of, n=config.n, logprobs=config.logprobs):
            yield event

    async def tokenize(self, input: str | ChatInput, *, add_special_tokens: bool = True, add_generation_prompt: bool = True) -> Tokenized:
        words = tuple(_TOKEN.findall(_joined(input.messages) if isinstance(input, ChatInput) else input))
        return Tokenized(self._vocabulary.ids(words), words, self._context_length)

    async def detokenize(self, tokens: Sequence[int]) -> str:
        return self._vocabulary.text(tokens)

    async def measure(self, texts: Sequence[str]) -> Measure:
        return Measure(tuple(len(_TOKEN.findall(text)) for text in texts), self._context_length)

    async def close(self) -> None:
        """Nothing is held."""

    async def _generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        config = request.config
        prompts = _prompts(request)
        orders = _directives(_last_text(request))
        if orders.load:
            yield Progress("loading", f"{self._name}: loading", 0.0)
            await asyncio.sleep(orders.load)
        if orders.error is not None and not orders.after:
            await self._fail(orders.error)
        sizes = [len(_TOKEN.findall(prompt)) for prompt in prompts]
        if isinstance(request.input, EmbeddingInput):
            for event in self._embeddings(prompts, sizes, request.input.dimensions):
                yield event
            return
        if isinstance(request.input, ChatInput) and request.input.truncate:
            sizes = [self._fitting(request.input, config.max_new_tokens)]
        room = self._context_length - max(sizes)
        limit = room if config.max_new_tokens is None else config.max_new_tokens
        if room < max(limit, 1):
            param = "messages" if isinstance(request.input, ChatInput) else "prompt"
            raise ContextLengthExceededError(self._context_length, max(sizes), config.max_new_tokens, param=param)
        delay_s = self._config.delay_s if orders.delay is None else orders.delay
        script = _TOKEN.findall(text_for(config.grammar)) if config.grammar is not None else None
        choices = [
            _MockChoice(index, prompts[index // config.n], request, orders.tokens, limit, script)
            for index in range(len(prompts) * config.n)
        ]
        if isinstance(request.input, CompletionInput) and request.input.echo:
            for choice in choices:
                yield choice.echo()
        if isinstance(request.input, ChatInput) and (tool := called_tool(request.input, orders.call)) is not None:
            for event in _calls(request.input, tool, choices):
                yield event
            yield Usage(sum(sizes), len(choices))
            return
        running = list(choices)
        steps = 0
        while running:
            if delay_s:
                await asyncio.sleep(delay_s)
            elif steps % _YIELD_EVERY == _YIELD_EVERY - 1:
                await asyncio.sleep(0)
            if orders.error is not None and steps == orders.after:
                await self._fail(orders.error)
            steps += 1
            for choice in running:
                for event in choice.step():
                    yield event
            running = [choice for choice in running if not choice.finished]
        yield Usage(sum(sizes), sum(choice.generated for choice in choices))

    def _embeddings(self, prompts: list[str], sizes: list[int], dimensions: int | None) -> Iterator[GenerationEvent]:
        if max(sizes) > self._context_length:
            raise ContextLengthExceededError(self._context_length, max(sizes), param="input")
        for index, prompt in enumerate(prompts):
            yield Embedding.of(index, mock_vector(prompt, dimensions))
        yield Usage(sum(sizes), 0)

    def _fitting(self, chat: ChatInput, reply_tokens: int | None) -> int:
        """Tokens of the conversation without the oldest turns that do not fit."""
        return len(
            encode_fitting(
                lambda messages: [0] * len(_TOKEN.findall(_joined(messages))),
                chat.messages,
                context_length=self._context_length,
                reply_tokens=reply_tokens,
            )
        )

    async def _fail(self, error: str) -> None:
        failures: dict[str, GatewayError] = {
            "400": InvalidRequestError("The mock was told to refuse this request", param="messages"),
            "401": AuthenticationError("The mock was told to refuse the key"),
            "403": PermissionDeniedError("The mock was told to deny permission"),
            "404": ModelNotFoundError(self._name),
            # The gateway itself never answers with these two; servers behind it may.
            "409": UpstreamError("The mock was told to be in conflict", status=409, type="invalid_request_error"),
            "422": UpstreamError("The mock was told that it cannot process this", status=422, type="invalid_request_error"),
            "429": RateLimitError("The mock was told to be busy", retry_after_s=1.0),
            "500": EngineError("The mock was told to fail"),
            "503": ModelUnavailableError("The mock was told to be unavailable", retryable=True, retry_after_s=1.0),
            "context": ContextLengthExceededError(self._context_length, self._context_length + 1),
        }
        if error == "hang":
            await asyncio.Event().wait()
        if error not in failures:
            raise InvalidRequestError(f"!mock error={error} is unknown; there are {', '.join(failures)} and hang", param="messages")
        raise failures[error]


class _MockChoice:
    """One choice's words, one a step: those of `script`, which a grammar asks for, or `length` of the mock's own."""

    def __init__(self, index: int, prompt: str, request: GenerationRequest, length: int, limit: int, script: list[str] | None) -> None:
        config = request.config
        self.index = index
        self._prompt = prompt
        self._config = config
        self._script = script
        self._length = len(script) if script is not None else length
        self._limit = limit
        # Which words follow depends on the prompt, the choice, and, where the request samples, on its seed.
        key = f"{prompt}\0{config.seed if config.temperature != 0 else None}"
        self._offset = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest()) + index % config.n
        self._text = ""
        self._sent = 0
        self.generated = 0
        self.finished = False

    def echo(self) -> TextDelta:
        tokens = _TOKEN.findall(self._prompt)
        scored = self._config.prompt_logprobs
        return TextDelta(self.index, self._prompt, logprobs=tuple(self._logprob(t, i) for i, t in enumerate(tokens)) if scored else ())

    def step(self) -> list[GenerationEvent]:
        if self.generated >= self._limit:
            return self._end("length", self._text)
        token = self._next()
        self.generated += 1
        self._text += token
        logprobs = (self._logprob(token, self.generated),) if self._config.logprobs is not None else ()
        for stop in self._config.stop:
            at = self._text.find(stop, max(0, self._sent - len(stop)))
            if at >= 0:
                return self._end("stop", self._text[:at], logprobs)
        if self.generated >= self._length and (self._script is not None or not self._config.ignore_eos):
            return self._end("stop", self._text, logprobs)
        if self.generated >= self._limit:
            return self._end("length", self._text, logprobs)
        held = held_back(self._text, self._config.stop)
        event = self._delta(self._text[: len(self._text) - held], logprobs)
        return [event] if event.text or logprobs else []

    def _next(self) -> str:
        if self._script is not None:
            return self._script[self.generated]
        word = _WORDS[(self._offset + self.generated) % len(_WORDS)]
        return word if self.generated == 0 else " " + word

    def _end(self, reason: str, text: str, logprobs: tuple[TokenLogprob, ...] = ()) -> list[GenerationEvent]:
        self.finished = True
        event = self._delta(text, logprobs)
        end = ChoiceFinished(self.index, "length" if reason == "length" else "stop")
        return [event, end] if event.text or logprobs else [end]

    def _delta(self, text: str, logprobs: tuple[TokenLogprob, ...]) -> TextDelta:
        new, self._sent = text[self._sent :], max(self._sent, len(text))
        return TextDelta(self.index, new, logprobs=logprobs)

    def _logprob(self, token: str, position: int) -> TokenLogprob:
        raw = tuple(token.encode())
        if self._config.prompt_logprobs and position == 0:
            return TokenLogprob(token, raw, None)
        top = tuple(
            (token if rank == 0 else f"alt{rank}", raw if rank == 0 else tuple(b"alt%d" % rank), -0.5 - rank)
            for rank in range(self._config.logprobs or 0)
        )
        return TokenLogprob(token, raw, -0.5, top)


def _calls(chat: ChatInput, tool: Tool, choices: list[_MockChoice]) -> Iterator[GenerationEvent]:
    assert chat.tools is not None
    arguments = arguments_for(tool)
    for choice in choices:
        yield ToolCallDelta(choice.index, 0, id=new_call_id(), name=tool.name)
        for piece in _TOKEN.findall(arguments):
            yield ToolCallDelta(choice.index, 0, arguments=piece)
        yield ChoiceFinished(choice.index, finish_reason(chat.tools, "stop", called=True))


def _prompts(request: GenerationRequest) -> list[str]:
    match request.input:
        case ChatInput(messages):
            return [_joined(messages)]
        case CompletionInput(prompts=prompts) | EmbeddingInput(inputs=prompts):
            return [prompt if isinstance(prompt, str) else " ".join(map(str, prompt)) for prompt in prompts]


def _joined(messages: Sequence[Message]) -> str:
    return "\n".join(message.content for message in messages)


def _last_text(request: GenerationRequest) -> str:
    """Where directives are looked for: an earlier turn's have been followed, and would have an agent call its tool for ever."""
    match request.input:
        case ChatInput(messages):
            return messages[-1].content
        case CompletionInput(prompts=prompts) | EmbeddingInput(inputs=prompts):
            last = prompts[-1]
            return last if isinstance(last, str) else ""


def _directives(prompt: str) -> _Directives:
    found = _DIRECTIVES.findall(prompt)
    if not found:
        return _Directives()
    pairs = dict(pair.split("=", 1) for pair in found[-1].split())
    try:
        return msgspec.convert(pairs, _Directives, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidRequestError(f"!mock: {error}", param="messages") from None
