"""The engine of one loaded model: what threads and event loops call. Everything happens in the engine's own thread.

engine = InferenceEngine(model=loaded.model, tokenizer=loaded.tokenizer, device=loaded.device)
result = engine.generate("Hello", config=GenerationConfig(max_new_tokens=20))
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from collections.abc import Sequence as AbstractSequence

import msgspec
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mm_gateway.chat_templates.encoder import ChatEncoder
from mm_gateway.chat_templates.token_limit import TokenLimit
from mm_gateway.configuration.settings import EngineSettings, ModelType
from mm_gateway.core import GenerationConfig, TextDelta
from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.checkpoints.embedding_style import EmbeddingStyle
from mm_gateway.runtime.checkpoints.loaded_model import GenerationDefaults, LoadedModel
from mm_gateway.runtime.engine.embedding_job import WINDOW, EmbeddingJob, check_embedding
from mm_gateway.runtime.engine.ends import ends_of
from mm_gateway.runtime.engine.engine_thread import EngineThread
from mm_gateway.runtime.engine.generation import Generation
from mm_gateway.runtime.engine.generation_result import GenerationResult, PartialResult
from mm_gateway.runtime.engine.hidden_states import has_hidden_states
from mm_gateway.runtime.engine.model_runner import ModelRunner, current_device, probe, verify
from mm_gateway.runtime.engine.prompt_limits import PromptLimits
from mm_gateway.runtime.engine.sequence_text import SequenceText
from mm_gateway.runtime.engine.step_loop import EngineStats, StepLoop
from mm_gateway.runtime.engine.text_job import TextJob
from mm_gateway.runtime.kv_cache.block_cache import BLOCK_SIZE
from mm_gateway.runtime.kv_cache.choosing import Layout, make_kv_cache
from mm_gateway.runtime.sampling.sampler import Sampler
from mm_gateway.runtime.sampling.structured_output import CompiledGrammar, GrammarCompiler, TokenMasks
from mm_gateway.runtime.scheduling.barred_tokens import BarredTokens
from mm_gateway.runtime.scheduling.scheduler import Scheduler
from mm_gateway.runtime.scheduling.sequence import Sequence
from mm_gateway.runtime.tokens.chat_encoding import chat_encoder_of
from mm_gateway.runtime.tokens.stop_tokens import stop_token_ids_of
from mm_gateway.runtime.tokens.token_text import TokenText

__all__ = ["GenerationConfig", "GenerationResult", "InferenceEngine"]


class InferenceEngine:
    """Continuous batching over one model. Thread-safe.

    Args:
        model: a causal language model of transformers, in evaluation mode. Its attention is taken over.
        tokenizer: the model's.
        device: where the model is; None: the model's own.
        context_length: tokens of prompt and output together; None: what the model's configuration says.
        stop_token_ids: tokens that end a text; None: what model and tokenizer say.
        defaults: sampling parameters of requests that leave them open.
        settings: sizes of queues and steps. kv_cache_bytes: memory for keys and values; None: a share of what is free.
        flash_attention: on a GPU, use the flash-attn package where it is there and works; torch's own attention otherwise.
        kv_layout, kv_block_size: slots or pages, and tokens of a page; by default what fits the device.
        embedding: how hidden states become embeddings; None: their mean.
        verify_tolerance: how far packed logits may be from the model's own, in standard deviations.
        on_failure: told once when the engine has failed as a whole, after all its requests have: it is to be closed and the
            model to be loaded anew. Called in the engine's thread, so it must not wait for `close`.

    Raises:
        ModelLoadError: the model's attention cannot be taken over, or computes something else through the cache.
        OutOfMemoryError: the KV cache would not hold one short sequence.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        device: torch.device | str | None = None,
        *,
        context_length: int | None = None,
        stop_token_ids: frozenset[int] | None = None,
        defaults: GenerationDefaults | None = None,
        settings: EngineSettings | None = None,
        kv_cache_bytes: int | None = None,
        flash_attention: bool = False,
        kv_layout: Layout | None = None,
        kv_block_size: int = BLOCK_SIZE,
        embedding: EmbeddingStyle | None = None,
        name: str = "",
        verify_tolerance: float = 0.02,
        on_failure: Callable[[BaseException], None] | None = None,
    ) -> None:
        if device is not None and torch.device(device).type != model.device.type:
            raise ModelLoadError(f"The model is on {model.device}, not on {device}")
        settings = settings or EngineSettings()
        self._settings = settings
        self._tokenizer = tokenizer
        self._text = TokenText(tokenizer)
        architecture = str(getattr(model.config, "model_type", ""))
        self._architecture = architecture
        self.name = name or str(getattr(model.config, "name_or_path", "") or architecture)
        if stop_token_ids is None:
            _, stop_tokens = chat_encoder_of(tokenizer, architecture)
            stop_token_ids = stop_token_ids_of(model, tokenizer, *stop_tokens)
        self._stop_token_ids = stop_token_ids
        self._defaults = defaults or GenerationDefaults()
        head = model.get_output_embeddings()
        vocab_size = int(head.out_features if head is not None else model.config.vocab_size)  # type: ignore[arg-type]
        self._embedding = embedding or EmbeddingStyle()
        if self._embedding.unfit is None and not has_hidden_states(model):
            self._embedding = EmbeddingStyle(unfit=f"{type(model).__name__} does not show its hidden states")
        self.embedding_size = int(model.get_input_embeddings().embedding_dim)  # type: ignore[arg-type]
        longest = context_length or getattr(model.config, "max_position_embeddings", None) or 2048
        with torch.inference_mode(), current_device(model.device):
            shape = probe(model)
            cache = make_kv_cache(
                shape,
                device=model.device,
                dtype=model.dtype,
                context_length=longest,
                settings=settings,
                budget_bytes=kv_cache_bytes,
                flash_attention=flash_attention,
                layout=kv_layout,
                block_size=kv_block_size,
            )
            runner = ModelRunner(model, cache, shape)
            verify(model, runner, tolerance=verify_tolerance)
            runner.capture_decodes(settings.max_running)
        self._limits = PromptLimits(min(longest, cache.allocator.max_tokens), vocab_size)
        self.kv_cache_bytes = cache.capacity_bytes
        scheduler = Scheduler(cache.allocator, max_running=settings.max_running, max_step_tokens=settings.max_step_tokens)
        max_sequences = self._max_sequences = settings.max_running + settings.max_waiting
        sampler = Sampler(vocab_size, model.device, max_running=settings.max_running)
        self._ids = itertools.count()
        self._grammars = GrammarCompiler(tokenizer, vocab_size, self._stop_token_ids)
        loop = StepLoop(name, runner, scheduler, sampler, TokenMasks(vocab_size))
        self._thread = EngineThread(name, loop, max_sequences=max_sequences, on_failure=on_failure)

    @classmethod
    def for_loaded_model(
        cls,
        loaded: LoadedModel,
        settings: EngineSettings,
        kv_cache_bytes: int | None = None,
        *,
        kv_layout: Layout | None = None,
        kv_block_size: int = BLOCK_SIZE,
        on_failure: Callable[[BaseException], None] | None = None,
    ) -> InferenceEngine:
        """The engine of what ModelLoader returned, with its context, stops and defaults."""
        config = loaded.config
        if config.max_running is not None:
            settings = msgspec.structs.replace(settings, max_running=config.max_running)
        return cls(
            loaded.model,
            loaded.tokenizer,
            loaded.device,
            context_length=loaded.context_length,
            stop_token_ids=loaded.stop_token_ids,
            defaults=loaded.generation_defaults,
            settings=settings,
            kv_cache_bytes=config.kv_cache_bytes if config.kv_cache_bytes is not None else kv_cache_bytes,
            flash_attention=config.flash_attention,
            kv_layout=kv_layout,
            kv_block_size=kv_block_size,
            embedding=loaded.embedding,
            name=config.model_name,
            # int8 arithmetic depends on the rows that are computed together, 16-bit less so.
            verify_tolerance=0.5 if config.quantization else 0.02 if loaded.dtype == torch.float32 else 0.2,
            on_failure=on_failure,
        )

    @property
    def failure(self) -> BaseException | None:
        """What ended the engine's loop, if anything did. All its requests have failed then, and it takes no more."""
        return self._thread.failure

    @property
    def context_length(self) -> int:
        """Tokens of prompt and output together."""
        return self._limits.context_length

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self._tokenizer

    def chat_encoder(self, model_type: ModelType | None = None) -> ChatEncoder:
        """What renders conversations for the model: the tokenizer's own template, else that of the type or the architecture."""
        return chat_encoder_of(self._tokenizer, self._architecture, model_type=model_type)[0]

    def submit(
        self,
        prompts: AbstractSequence[AbstractSequence[int]],
        config: GenerationConfig | None = None,
        *,
        stop_strings: AbstractSequence[str] = (),
        echo_texts: AbstractSequence[str] | None = None,
        grammar: CompiledGrammar | None = None,
        bad_words: AbstractSequence[AbstractSequence[int]] | None = None,
        param: str = "prompt",
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> Generation:
        """Queue prompts for generation; choice `i * n + j` is the j-th of prompt i.

        Args:
            prompts: token ids of each prompt, at least one id each.
            config: what to do; `stop` of it and `stop_strings` (the chat template's) both end the text.
            grammar: `config.grammar` compiled, where that was done before; an event loop should not wait for it here.
            bad_words: `spellings` of `config.bad_words`, likewise.
            echo_texts: with `prompt_logprobs`, the text to report each prompt as.
            param: the field to name in errors about the prompts.
            loop: the event loop that will iterate the result; None for a thread.

        Raises:
            InvalidRequestError: an empty prompt, an id outside the vocabulary, more `min_tokens` than the context leaves.
            ContextLengthExceededError: a prompt does not leave room for the tokens asked for.
            RateLimitError: the queue is full.
            ShuttingDownError: the engine is closed. ModelUnavailableError: it has failed.
        """
        config = self._defaults.complete(config or GenerationConfig())
        self._limits.check_tokens(config.logit_bias, "logit_bias")
        self._limits.check_tokens(config.stop_token_ids, "stop_token_ids")
        if config.grammar is not None and grammar is None:
            grammar = self._grammars.compile(config.grammar)
        generation = Generation(self._thread.cancel, loop)
        seed = secrets.randbits(64) if config.seed is None else config.seed
        group = next(self._ids)
        ends = ends_of(config, self._text, own=self._stop_token_ids, of_template=stop_strings)
        words = self.spellings(config.bad_words) if bad_words is None else bad_words
        barred = BarredTokens(min_tokens=config.min_tokens, ends=ends.tokens, words=words) or None
        texts: dict[int, SequenceText] = {}
        echo: dict[int, str] = {}
        for position, prompt in enumerate(prompts):
            max_tokens = self._limits.output_tokens(prompt, config.max_new_tokens, param, at_least=config.min_tokens)
            for member in range(config.n):
                index = position * config.n + member
                # Choices differ by their seed alone; the first keeps the request's own.
                seq = Sequence(
                    next(self._ids),
                    group,
                    list(prompt),
                    config,
                    max_tokens=max_tokens,
                    seed=seed + index * 0x9E3779B97F4A7C15,
                    barred=barred,
                )
                texts[seq.id] = SequenceText(index, seq, self._text, ends)
                if config.prompt_logprobs:
                    echo[seq.id] = echo_texts[position] if echo_texts is not None else self._text.decode(prompt)
        self._thread.submit(TextJob(generation, texts, sum(len(prompt) for prompt in prompts), config.n, echo, grammar))
        return generation

    def embed(
        self,
        inputs: AbstractSequence[AbstractSequence[int]],
        *,
        dimensions: int | None = None,
        param: str = "input",
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> Generation:
        """Queue token ids to become one vector each: the model's last hidden states, pooled. Events are Embedding, then Usage.

        Args:
            dimensions: numbers of each vector. param, loop: as for `submit`.

        Raises:
            InvalidRequestError: the model has no embeddings, or none of that size; an input is empty or holds a wrong id.
            ContextLengthExceededError, RateLimitError, ShuttingDownError, ModelUnavailableError: as for `submit`.
        """
        check_embedding(self._embedding, dimensions, size=self.embedding_size)
        for tokens in inputs:
            self._limits.check_input(tokens, param)
        group, config = next(self._ids), GenerationConfig()
        backlog = deque(
            (
                index,
                Sequence(next(self._ids), group, list(tokens), config, max_tokens=0, seed=0, pooling=self._embedding.pooling),
            )
            for index, tokens in enumerate(inputs)
        )
        generation = Generation(self._thread.cancel, loop)
        window = min(WINDOW, self._max_sequences)
        self._thread.submit(EmbeddingJob(generation, backlog, dimensions, sum(map(len, inputs)), window))
        return generation

    @property
    def grammars(self) -> GrammarCompiler:
        """Compiles grammars for this model's tokens."""
        return self._grammars

    def spellings(self, words: AbstractSequence[str]) -> list[list[int]]:
        """Token ids of bad words. Raises InvalidRequestError: one of them has none."""
        return self._text.spellings(words, "bad_words")

    def generate(self, prompt: str, config: GenerationConfig | None = None) -> GenerationResult:
        """Continue one prompt; blocks until it is done."""
        return self.batch_generate([prompt], config)[0]

    def generate_stream(self, prompt: str, config: GenerationConfig | None = None) -> Iterator[str]:
        """Pieces of the text as they become certain; closing the iterator cancels the rest."""
        generation = self.submit([self.encode(prompt)], config)
        try:
            for event in generation:
                if isinstance(event, TextDelta) and event.text:
                    yield event.text
        finally:
            generation.cancel()

    def batch_generate(self, prompts: AbstractSequence[str], config: GenerationConfig | None = None) -> list[GenerationResult]:
        """Continue many prompts at the same time; results in the order of the prompts, the first choice of each."""
        started = time.monotonic()
        encoded = [self.encode(prompt) for prompt in prompts]
        generations = [self.submit([ids], config) for ids in encoded]
        results = [PartialResult(len(ids), started) for ids in encoded]
        try:
            # One event of each in turn: none of them is left unread until the others have ended.
            unread = deque(zip(results, map(iter, generations), strict=True))
            while unread:
                result, events = unread.popleft()
                if (event := next(events, None)) is not None:
                    result.add(event)
                    unread.append((result, events))
            return [result.finish() for result in results]
        finally:
            for generation in generations:
                generation.cancel()

    def token_limit(self, requested: int | None = None, *, param: str = "prompt") -> TokenLimit:
        """How long a prompt may be, for whoever encodes one. requested: tokens of output, and param: the field, both for the error."""
        return TokenLimit(self.context_length, lambda: self._text.longest_token_bytes, requested, param)

    def encode(self, text: str, limit: TokenLimit | None = None, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a plain prompt, with what the tokenizer puts in front (BOS) unless it is there or `add_special_tokens` is False.

        Raises:
            ContextLengthExceededError: it is much longer than the context, or than `limit`.
        """
        encode = functools.partial(self._text.encode, add_special_tokens=add_special_tokens)
        return (limit or self.token_limit()).encode(encode, text)

    def decode(self, ids: AbstractSequence[int]) -> str:
        """The text of token ids, special tokens included."""
        return self._text.decode(ids, skip_special_tokens=False)

    def stats(self) -> EngineStats:
        """What the engine is doing and has done."""
        return self._thread.stats()

    def close(self) -> None:
        """Fail what is running and end the engine's thread; idempotent."""
        self._thread.close()
