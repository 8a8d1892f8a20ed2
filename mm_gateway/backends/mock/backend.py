"""A model without a model: deterministic text at a settable pace, and every error on demand, for people who test their clients.

The last message (or the prompt) may hold directives: `!mock tokens=50 delay=0.1 load=2 error=429 after=3`

    tokens=N   a text of so many tokens (default: 24), and no call unless one is required
    delay=S    seconds per token, in place of the configured delay_s
    load=S     seconds of "loading" before the first token
    error=E    fail: 400, 401, 403, 404, 409, 422, 429, 500, 503, context, or hang (never answers)
    think=N    think so many tokens before (default: none), as far as the request's effort and budget allow
    call=NAME  call that function of the request's tools
    after=N    fail after N tokens of the text, mid-stream; default 0: before the first

Functions are called in turn: each of the tools once, then comes the text. Arguments, and texts that follow a grammar, are examples of it.
A script (`script:` of the entry) says what to reply, and what to think before, in place of that.
A token is a word with the space before it, in texts that follow a grammar a shorter piece. Log-probabilities are made up, and
always the same. All choices of a request together have at most 2**20 tokens, the inputs of an embedding request at most 300,000.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence

from mm_gateway.backends.best_of import with_best_of
from mm_gateway.backends.embed import check_total_tokens
from mm_gateway.backends.mock.call import MockCalls
from mm_gateway.backends.mock.choice import MockChoice
from mm_gateway.backends.mock.directives import HANG, Directives, failure, read_directives
from mm_gateway.backends.mock.form import Form, form_of
from mm_gateway.backends.mock.prompts import joined, last_text, prompt_tokens, prompts_of, tokens_of
from mm_gateway.backends.mock.script import Script
from mm_gateway.backends.mock.thought import MockThinking, thought_of
from mm_gateway.backends.mock.vectors import MockVocabulary, mock_vector
from mm_gateway.backends.mock.words import count_words, pieces_of, words_of, work_on
from mm_gateway.backends.prompts import check_prompt_logprobs, echo_of_chat
from mm_gateway.backends.workflow_field import refuse_workflow
from mm_gateway.chat_templates.history import encode_fitting, tokens_kept
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.core import (
    ChatInput,
    CompletionInput,
    Embedding,
    EmbeddingInput,
    GenerationConfig,
    GenerationEvent,
    GenerationRequest,
    Ignored,
    ModelInfo,
    Progress,
    TextDelta,
    Tokenized,
    Usage,
    UsageSoFar,
)
from mm_gateway.errors import ContextLengthExceededError, InvalidRequestError

CONTEXT_LENGTH = 32768
MAX_TOKENS = 2**20
"""Of all choices of a request together."""
_TOKENS = 24
"""Of a text that nobody says the length of."""
_YIELD_EVERY = 128
"""Tokens and log-probabilities between two returns to the event loop: a generator that never waits would keep it to itself."""


class MockBackend:
    """One `backend: mock` entry of `models.yaml`."""

    def __init__(self, name: str, config: ModelConfig, created: int) -> None:
        self._name = name
        self._config = config
        self._created = created
        self._context_length = config.max_context_length or CONTEXT_LENGTH
        self._vocabulary = MockVocabulary()
        self._script = Script(config.script) if config.script is not None else None

    def info(self) -> ModelInfo:
        return ModelInfo(
            id=self._name, created=self._created, backend="mock", context_length=self._context_length, aliases=self._config.aliases
        )

    async def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        refuse_workflow(request)
        pace = _Pace()
        async with contextlib.aclosing(with_best_of(self._generate, request)) as events:
            async for event in events:
                yield event
                scores = event.logprobs if isinstance(event, TextDelta) else ()
                await pace.did(1 + (sum(1 + len(score.top) for score in scores) if scores else 0))

    async def probe(self, timeout_s: float) -> bool:
        return True

    async def tokenize(self, input: str | ChatInput, *, add_special_tokens: bool = True) -> Tokenized:
        text = joined(input.messages) if isinstance(input, ChatInput) else input
        words, ids = await work_on(len(text), tokens_of, text)
        self._vocabulary.remember(ids, words)
        return Tokenized(ids, words, self._context_length)

    async def detokenize(self, tokens: Sequence[int]) -> str:
        return self._vocabulary.text(tokens)

    async def count_tokens(self, texts: Sequence[str]) -> tuple[int, ...]:
        return await work_on(sum(map(len, texts)), lambda: tuple(map(count_words, texts)))

    async def close(self) -> None:
        """Nothing is held."""

    async def _generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        config = request.config
        prompts = prompts_of(request)
        orders = read_directives(last_text(request))
        if orders.load:
            yield Progress("loading", f"{self._name}: loading", 0.0)
            await asyncio.sleep(orders.load)
        if orders.error is not None and not orders.after:
            await self._fail(orders.error)
        if isinstance(request.input, EmbeddingInput):
            async for event in self._embeddings(self._beginnings(request.input, prompts), request.input.dimensions):
                yield event
            return
        characters = sum(map(len, prompts))
        prompts = await work_on(characters, self._kept, request.input, prompts, config.required_room)
        sizes, left_out = await work_on(characters, self._sizes, request.input, prompts, config.required_room)
        if left_out:
            yield Ignored(left_out)
        form = await form_of(request, orders, self._script)
        if form.ignored:
            yield Ignored(form.ignored)
        thought = thought_of(request, orders, form.thought, self._config.thinking_budgets.by_effort())
        if thought is None and isinstance(request.input, ChatInput) and request.input.reasoning.fields:
            yield Ignored(request.input.reasoning.fields)
        choices = await work_on(characters, self._choices, request, prompts, sizes, orders, form, thought or ())
        check_prompt_logprobs(config, sum(sizes), echo=request.input.echo)
        known = (UsageSoFar(sum(sizes), 0),) if isinstance(request.input, ChatInput) and not config.return_token_ids else ()
        told = await work_on(characters, prompt_tokens, request.input, config, prompts)
        for event in itertools.chain(known, told, _echoes(request, prompts, choices)):
            yield event
        pace = _Pace()
        running: Sequence[MockChoice | MockCalls | MockThinking] = choices
        steps = 0
        while running:
            await self._before_step(steps, orders)
            steps += 1
            for choice in running:
                for event in choice.step():
                    yield event
                await pace.did(1 + (config.logprobs or 0))
            running = [choice for choice in running if not choice.finished]
        reasoned = sum(choice.reasoned for choice in choices if isinstance(choice, MockThinking))
        yield Usage(sum(sizes), sum(choice.generated for choice in choices), reasoning_tokens=reasoned)

    async def _before_step(self, steps: int, orders: Directives) -> None:
        """The delay of a step, and the error that is to come after so many of them."""
        if delay_s := self._config.delay_s if orders.delay is None else orders.delay:
            await asyncio.sleep(delay_s)
        if orders.error is not None and steps == orders.after:
            await self._fail(orders.error)

    def _kept(self, input: ChatInput | CompletionInput, prompts: list[str], reply_tokens: int | None) -> list[str]:
        """What is read of each prompt."""
        count = input.truncate_prompt_tokens
        if count is None:
            return prompts
        count = tokens_kept(count, self._context_length, reply_tokens)
        words = (list(words_of(prompt)) for prompt in prompts)
        return ["".join(found[max(len(found) - count, 0) :]) for found in words]

    def _beginnings(self, input: EmbeddingInput, prompts: list[str]) -> list[str]:
        """What is read of each input."""
        if input.truncate_prompt_tokens is None:
            return prompts
        count = tokens_kept(input.truncate_prompt_tokens, self._context_length, 0)
        words = (list(words_of(prompt)) for prompt in prompts)
        return ["".join(found[-count:] if input.truncation_side == "left" else found[:count]) for found in words]

    def _sizes(
        self, input: ChatInput | CompletionInput, prompts: Sequence[str], reply_tokens: int | None
    ) -> tuple[list[int], tuple[str, ...]]:
        """Tokens of each prompt; of a conversation that may be truncated, without the oldest turns that do not fit, and their path."""
        if not (isinstance(input, ChatInput) and input.truncate):
            return [count_words(prompt) for prompt in prompts], ()
        fitting = encode_fitting(
            lambda messages: [0] * count_words(joined(messages)),
            input.messages,
            context_length=self._context_length,
            reply_tokens=reply_tokens,
        )
        return [len(fitting.ids)], fitting.ignored

    def _choices(
        self,
        request: GenerationRequest,
        prompts: Sequence[str],
        sizes: Sequence[int],
        orders: Directives,
        form: Form,
        thought: Sequence[str],
    ) -> Sequence[MockChoice | MockCalls | MockThinking]:
        """Every choice of the reply, each of which thinks the same.

        Raises:
            ContextLengthExceededError, InvalidRequestError: they would be too long, each or together.
        """
        config = request.config
        room = self._context_length - max(sizes)
        limit = room if config.max_new_tokens is None else config.max_new_tokens
        if config.clamp_to_context:
            limit = min(limit, room)
        param = "messages" if isinstance(request.input, ChatInput) else "prompt"
        if room < max(limit, 1):
            raise ContextLengthExceededError(self._context_length, max(sizes), config.required_room, param=param)
        split = words_of if config.grammar is None else pieces_of
        script = list(split(form.text)) if form.text is not None else None
        calls = [(name, pieces_of(arguments) or [""]) for name, arguments in form.calls]
        if script is not None:
            length = len(script) + sum(len(arguments) for _, arguments in calls)
            if length < config.min_tokens:
                raise InvalidRequestError(f"min_tokens: what the reply has to be has {length} tokens", param="min_tokens")
        else:
            length = max(_TOKENS if orders.tokens is None else orders.tokens, config.min_tokens)
        most = limit if script is None and config.ignore_eos else min(length + len(thought), limit)
        if most * len(prompts) * config.n > MAX_TOKENS:
            together = f"{len(prompts)} prompts of {config.n} choices of {most} tokens"
            raise InvalidRequestError(f"The mock writes {MAX_TOKENS} tokens for a request at most, not {together}", param=param)
        answers: list[MockChoice | MockCalls]
        left = max(limit - len(thought), 0)
        if calls:
            assert isinstance(request.input, ChatInput) and request.input.tools is not None
            use = request.input.tools
            answers = [MockCalls(index, config, use, calls, text=script or (), limit=left) for index in range(config.n)]
        else:
            answers = [
                MockChoice(index * config.n + place, config, offset=offset + place, length=length, limit=left, script=script)
                for index, offset in enumerate(_offset(prompt, config) for prompt in prompts)
                for place in range(config.n)
            ]
        if not thought:
            return answers
        return [MockThinking(answer, thought, limit=limit, return_token_ids=config.return_token_ids) for answer in answers]

    async def _embeddings(self, prompts: Sequence[str], dimensions: int | None) -> AsyncIterator[GenerationEvent]:
        sizes = await work_on(sum(map(len, prompts)), lambda: [count_words(prompt) for prompt in prompts])
        if max(sizes) > self._context_length:
            raise ContextLengthExceededError(self._context_length, max(sizes), param="input")
        check_total_tokens(sum(sizes))
        for index, prompt in enumerate(prompts):
            yield Embedding.of(index, await work_on(len(prompt), mock_vector, prompt, dimensions))
        yield Usage(sum(sizes), 0)

    async def _fail(self, error: str) -> None:
        if error == HANG:
            await asyncio.Event().wait()
        raise failure(error, model=self._name, context_length=self._context_length)


class _Pace:
    """Returns to the event loop now and then."""

    def __init__(self) -> None:
        self._done = 0

    async def did(self, work: int) -> None:
        """work: tokens and log-probabilities that were made or passed on."""
        self._done += work
        if self._done >= _YIELD_EVERY:
            self._done = 0
            await asyncio.sleep(0)


def _offset(prompt: str, config: GenerationConfig) -> int:
    """With which word the first choice begins: depends on the prompt and, where the request samples, on its seed."""
    key = f"{prompt}\0{config.seed if config.temperature != 0 else None}"
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=4).digest())


def _echoes(
    request: GenerationRequest, prompts: Sequence[str], choices: Sequence[MockChoice | MockCalls | MockThinking]
) -> Iterator[GenerationEvent]:
    """The prompts of a completion, or the assistant's last message, where they are asked for; once for every choice."""
    for choice in choices:
        if isinstance(choice, MockChoice) and isinstance(request.input, CompletionInput) and request.input.echo:
            yield from choice.echo(prompts[choice.index // request.config.n])
    if isinstance(request.input, ChatInput) and (echo := echo_of_chat(request.input)) is not None:
        yield from (TextDelta(choice.index, echo[0]) for choice in choices)
