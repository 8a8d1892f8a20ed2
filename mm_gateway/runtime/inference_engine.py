"""The engine of one loaded model: what threads and event loops call. Everything happens in the engine's own thread.

engine = InferenceEngine(model=loaded.model, tokenizer=loaded.tokenizer, device=loaded.device)
result = engine.generate("Hello", config=GenerationConfig(max_new_tokens=20))
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Iterator
from collections.abc import Sequence as AbstractSequence

import msgspec
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mm_gateway.chat_templates.encoder import ChatEncoder
from mm_gateway.chat_templates.reasoning_formats.format import ThoughtPlan
from mm_gateway.chat_templates.token_limit import TokenLimit
from mm_gateway.configuration.model_config import KVCacheDtype, ModelConfig, ModelType
from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import GenerationConfig, TruncationSide
from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.checkpoints.context_length import trained_length
from mm_gateway.runtime.checkpoints.embedding_style import EmbeddingStyle
from mm_gateway.runtime.checkpoints.loaded_model import GenerationDefaults, LoadedModel
from mm_gateway.runtime.engine.engine_thread import EngineThread
from mm_gateway.runtime.engine.forward.hidden_states import embedding_style_of
from mm_gateway.runtime.engine.forward.make_runner import make_draft_runner, make_runner
from mm_gateway.runtime.engine.forward.model_fingerprint import model_fingerprint
from mm_gateway.runtime.engine.forward.model_runner import current_device
from mm_gateway.runtime.engine.guesses.draft_model import DraftModel
from mm_gateway.runtime.engine.requests.generation import Generation
from mm_gateway.runtime.engine.requests.generation_result import GenerationResult, pieces_of, results_of
from mm_gateway.runtime.engine.requests.job_maker import JobMaker
from mm_gateway.runtime.engine.requests.prompt_limits import PromptLimits
from mm_gateway.runtime.engine.stats import EngineStats
from mm_gateway.runtime.engine.step_loop import StepLoop
from mm_gateway.runtime.kv_cache.block_cache import BLOCK_SIZE
from mm_gateway.runtime.kv_cache.choosing import Layout
from mm_gateway.runtime.kv_cache.prefix_tiers.block_store import PrefixStore
from mm_gateway.runtime.sampling.sampler import Sampler
from mm_gateway.runtime.sampling.structured_output import CompiledGrammar, GrammarCompiler, TokenMasks
from mm_gateway.runtime.scheduling.scheduler import Scheduler
from mm_gateway.runtime.tokens.chat_encoding import chat_encoder_of
from mm_gateway.runtime.tokens.stop_tokens import stop_token_ids_of
from mm_gateway.runtime.tokens.token_text import TokenText
from mm_gateway.stop_strings import StopStrings, TextStops

__all__ = ["GenerationConfig", "GenerationResult", "InferenceEngine"]

logger = logging.getLogger(__name__)


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
        kv_cache_dtype: what they are kept in, as in an entry of the configuration.
        flash_attention: on a GPU, use the flash-attn package where it is there and works; torch's own attention otherwise.
        kv_layout, kv_block_size: slots or pages, and tokens of a page; by default what fits the device.
        embedding: how hidden states become embeddings; None: their mean.
        verify_tolerance: how far packed logits may be from the model's own, in standard deviations.
        on_failure: told once when the engine has failed as a whole, after all its requests have: it is to be closed and the
            model to be loaded anew. Called in the engine's thread, so it must not wait for `close`.
        prefixes: keeps prefixes that leave the KV cache; None: they are lost. Of a model with an `identity`: that of its files.

        draft: a model with the same tokens, that guesses what this one says next; its attention is taken over, too. draft_tokens: it
            guesses at a time; None: as many as pay.

    Raises:
        ModelLoadError: the model's attention cannot be taken over, or computes something else through the cache; guesses could change
            its texts.
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
        kv_cache_dtype: KVCacheDtype = "auto",
        flash_attention: bool = False,
        kv_layout: Layout | None = None,
        kv_block_size: int = BLOCK_SIZE,
        embedding: EmbeddingStyle | None = None,
        name: str = "",
        verify_tolerance: float = 0.02,
        on_failure: Callable[[BaseException], None] | None = None,
        prefixes: PrefixStore | None = None,
        identity: bytes | None = None,
        draft: LoadedModel | None = None,
        draft_tokens: int | None = None,
    ) -> None:
        if device is not None and torch.device(device).type != model.device.type:
            raise ModelLoadError(f"The model is on {model.device}, not on {device}")
        settings = settings or EngineSettings()
        self._tokenizer = tokenizer
        self._text = TokenText(tokenizer)
        architecture = self._architecture = str(getattr(model.config, "model_type", ""))
        self.name = name or str(getattr(model.config, "name_or_path", "") or architecture)
        if stop_token_ids is None:
            _, stop_tokens = chat_encoder_of(tokenizer, architecture, ModelConfig(model_name=self.name))
            stop_token_ids = stop_token_ids_of(model, tokenizer, *stop_tokens)
        head = model.get_output_embeddings()
        vocab_size = self.vocab_size = int(head.out_features if head is not None else model.config.vocab_size)  # type: ignore[arg-type]
        self.embedding_size = int(model.get_input_embeddings().embedding_dim)  # type: ignore[arg-type]
        longest = context_length or trained_length(lambda key: getattr(model.config, key, None))
        with torch.inference_mode(), current_device(model.device):
            runner = make_runner(
                model,
                settings,
                context_length=longest,
                kv_cache_bytes=kv_cache_bytes,
                kv_cache_dtype=kv_cache_dtype,
                flash_attention=flash_attention,
                layout=kv_layout,
                block_size=kv_block_size,
                tolerance=verify_tolerance,
            )
            if prefixes is not None and identity is not None and settings.prefix_cache:
                model_key = identity + model_fingerprint(runner, vocab_size)
                if not runner.cache.keep_prefixes(prefixes, model_key):
                    logger.warning("%s: prefix_cache_bytes is for models on a CPU; prefixes stay in this one's KV cache alone", self.name)
            draft_runner = make_draft_runner(draft, runner, settings, context_length=longest, name=self.name) if draft is not None else None
        max_sequences = settings.max_running + settings.max_waiting
        self._jobs = JobMaker(
            text=self._text,
            limits=PromptLimits(min(longest, runner.cache.allocator.max_tokens), vocab_size),
            defaults=defaults or GenerationDefaults(),
            stop_token_ids=stop_token_ids,
            embedding=embedding_style_of(model, embedding),
            embedding_size=self.embedding_size,
            max_sequences=max_sequences,
        )
        sampler, masks = Sampler(vocab_size, model.device, max_running=settings.max_running), TokenMasks(vocab_size)
        step_tokens = settings.max_step_tokens or (256 if model.device.type == "cpu" else 512)
        draft_model = None
        if draft is not None and draft_runner is not None:
            draft_model = DraftModel(
                draft_runner,
                vocab_size=vocab_size,
                readable=int(draft.model.get_input_embeddings().num_embeddings),  # type: ignore[arg-type]
                sampler=sampler,
                masks=masks,
                stop_token_ids=stop_token_ids,
                most_rows=step_tokens,
                fixed=draft_tokens,
            )
        self.kv_cache_bytes = runner.cache.capacity_bytes + (draft_model.capacity_bytes if draft_model is not None else 0)
        scheduler = Scheduler(
            runner.cache.allocator,
            max_running=settings.max_running,
            max_step_tokens=step_tokens,
            scaling=runner.length_scaling,
            drafter=draft_model,
        )
        self.penalty_bytes = sampler.penalty_bytes
        self.grammars = GrammarCompiler(tokenizer, vocab_size, stop_token_ids)
        loop = StepLoop(name, runner, scheduler, sampler, masks, guesses=settings.prompt_lookup, draft=draft_model)
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
        prefixes: PrefixStore | None = None,
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
            kv_cache_dtype=config.kv_cache_dtype,
            flash_attention=config.flash_attention,
            kv_layout=kv_layout,
            kv_block_size=kv_block_size,
            embedding=loaded.embedding,
            name=config.model_name,
            verify_tolerance=loaded.rounding,
            on_failure=on_failure,
            prefixes=prefixes,
            identity=loaded.identity,
            draft=loaded.draft,
            draft_tokens=config.speculative_tokens,
        )

    @property
    def failure(self) -> BaseException | None:
        """What ended the engine's loop, if anything did. All its requests have failed then, and it takes no more."""
        return self._thread.failure

    @property
    def context_length(self) -> int:
        """Tokens of prompt and output together."""
        return self._jobs.limits.context_length

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self._tokenizer

    def chat_encoder(self, model_type: ModelType | None = None) -> ChatEncoder:
        """What renders conversations for the model: the tokenizer's own template, else that of the type or the architecture."""
        return chat_encoder_of(self._tokenizer, self._architecture, ModelConfig(model_name=self.name, model_type=model_type))[0]

    def submit(
        self,
        prompts: AbstractSequence[AbstractSequence[int]],
        config: GenerationConfig | None = None,
        *,
        stop_strings: AbstractSequence[str] = (),
        stops_within: Callable[[StopStrings], TextStops] | None = None,
        shown: AbstractSequence[str] = (),
        echo_texts: AbstractSequence[str] | None = None,
        grammar: CompiledGrammar | None = None,
        bad_words: AbstractSequence[AbstractSequence[int]] | None = None,
        prediction: AbstractSequence[int] | None = None,
        thoughts: ThoughtPlan | None = None,
        param: str = "prompt",
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> Generation:
        """Queue prompts for generation; choice `i * n + j` is the j-th of prompt i.

        Args:
            prompts: token ids of each prompt, at least one id each.
            config: what to do; `stop` of it and `stop_strings` (the chat template's) both end the text.
            shown: special tokens that are part of the text, whatever `skip_special_tokens` says.
            stops_within: makes of what finds them in one choice what looks at a part of its text; None: they count wherever they are.
            grammar: in place of `config.grammar`, one that was compiled before: an event loop should not wait for it here.
            bad_words: `spellings` of `config.bad_words`, likewise. prediction: tokens of `config.prediction`, likewise.
            thoughts: how the model thinks before it answers; None: all that it writes is the answer.
            echo_texts: with `prompt_logprobs`, the text that each choice begins with: its prompt's.
            param: the field to name in errors about the prompts.
            loop: the event loop that will iterate the result; None for a thread.

        Raises:
            InvalidRequestError: an empty prompt, an id outside the vocabulary, more `min_tokens` than the context leaves.
            ContextLengthExceededError: a prompt does not leave room for the tokens asked for.
            RateLimitError: the queue is full.
            ShuttingDownError: the engine is closed. ModelUnavailableError: it has failed.
        """
        config = config or GenerationConfig()
        if config.grammar is not None:
            grammar, config = grammar or self.grammars.compile(config.grammar), msgspec.structs.replace(config, grammar=None)
        generation = Generation(self._thread.cancel, loop)
        job = self._jobs.text_job(
            generation,
            prompts,
            config,
            stop_strings=stop_strings,
            stops_within=stops_within,
            shown=shown,
            bad_words=bad_words,
            prediction=prediction,
            echo_texts=echo_texts,
            grammar=grammar,
            thoughts=thoughts,
            param=param,
        )
        self._thread.submit(job)
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
        generation = Generation(self._thread.cancel, loop)
        self._thread.submit(self._jobs.embedding_job(generation, inputs, dimensions=dimensions, param=param))
        return generation

    def spellings(self, words: AbstractSequence[str]) -> list[list[int]]:
        """Token ids of bad words. Raises InvalidRequestError: one of them has none."""
        return self._text.spellings(words, "bad_words")

    def generate(self, prompt: str, config: GenerationConfig | None = None) -> GenerationResult:
        """Continue one prompt; blocks until it is done."""
        return self.batch_generate([prompt], config)[0]

    def generate_stream(self, prompt: str, config: GenerationConfig | None = None) -> Iterator[str]:
        """Pieces of the text as they become certain; closing the iterator cancels the rest."""
        yield from pieces_of(self.submit([self.encode(prompt)], config))

    def batch_generate(self, prompts: AbstractSequence[str], config: GenerationConfig | None = None) -> list[GenerationResult]:
        """Continue many prompts at the same time; results in the order of the prompts, the first choice of each."""
        started = time.monotonic()
        encoded = [self.encode(prompt) for prompt in prompts]
        generations = [self.submit([ids], config) for ids in encoded]
        return results_of(generations, [len(ids) for ids in encoded], started)

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

    def cut(self, prompt: str | AbstractSequence[int], ids: AbstractSequence[int], count: int, side: TruncationSide | None) -> list[int]:
        """At most `count` of the tokens `ids` of a prompt; see TokenText.cut."""
        return self._text.cut(prompt if isinstance(prompt, str) else None, ids, count, side)

    def encode_whole(self, text: str) -> list[int]:
        """Token ids of a text, however long it is, with nothing put in front."""
        return self._text.encode(text, add_special_tokens=False)

    def decode(self, ids: AbstractSequence[int]) -> str:
        """The text of token ids, special tokens included."""
        return self._text.decode(ids, skip_special_tokens=False)

    def stats(self) -> EngineStats:
        """What the engine is doing and has done."""
        compiler = self.grammars
        return dataclasses.replace(self._thread.stats(), grammar_compiles=compiler.compiles, grammar_compile_s=compiler.compile_s)

    def close(self) -> None:
        """Fail what is running and end the engine's thread; idempotent."""
        self._thread.close()
