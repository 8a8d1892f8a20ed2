"""Makes jobs of requests: checks them against what the model takes, and gives each choice or input its sequence. Queues nothing."""

from __future__ import annotations

import itertools
import secrets
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as AbstractSequence
from dataclasses import dataclass, field

from mm_gateway.chat_templates.reasoning_formats.format import ReasoningFormat, ThoughtPlan
from mm_gateway.core import GenerationConfig
from mm_gateway.runtime.checkpoints.embedding_style import EmbeddingStyle
from mm_gateway.runtime.checkpoints.loaded_model import GenerationDefaults
from mm_gateway.runtime.engine.requests.embedding_job import WINDOW, EmbeddingJob, check_embedding
from mm_gateway.runtime.engine.requests.ends import Ends, ends_of
from mm_gateway.runtime.engine.requests.generation import Generation
from mm_gateway.runtime.engine.requests.prompt_limits import PromptLimits
from mm_gateway.runtime.engine.requests.sequence_text import SequenceText
from mm_gateway.runtime.engine.requests.text_job import TextJob
from mm_gateway.runtime.engine.requests.thinking import Thinking, ThoughtTokens
from mm_gateway.runtime.sampling.structured_output import CompiledGrammar
from mm_gateway.runtime.scheduling.barred_tokens import BarredTokens
from mm_gateway.runtime.scheduling.sequence import Sequence
from mm_gateway.runtime.tokens.token_text import TokenText
from mm_gateway.stop_strings import StopStrings, TextStops


@dataclass(frozen=True)
class JobMaker:
    """Of one model. Any thread.

    Attributes:
        text: the model's tokenizer. limits: on its prompts. defaults: of parameters that requests leave open.
        stop_token_ids: end a text. embedding: how it embeds, in vectors of embedding_size numbers.
        max_sequences: of a request for embeddings in the queue at a time. ids: of sequences and requests, unique in one engine.
    """

    text: TokenText
    limits: PromptLimits
    defaults: GenerationDefaults
    stop_token_ids: frozenset[int]
    embedding: EmbeddingStyle
    embedding_size: int
    max_sequences: int = WINDOW
    ids: itertools.count[int] = field(default_factory=itertools.count)
    thought_tokens: dict[str, ThoughtTokens] = field(default_factory=dict[str, ThoughtTokens])
    """By the name of the format; kept from one request to the next."""

    def text_job(
        self,
        generation: Generation,
        prompts: AbstractSequence[AbstractSequence[int]],
        config: GenerationConfig,
        *,
        stop_strings: AbstractSequence[str] = (),
        stops_within: Callable[[StopStrings], TextStops] | None = None,
        shown: AbstractSequence[str] = (),
        bad_words: AbstractSequence[AbstractSequence[int]] | None = None,
        prediction: AbstractSequence[int] | None = None,
        echo_texts: AbstractSequence[str] | None = None,
        grammar: CompiledGrammar | None = None,
        thoughts: ThoughtPlan | None = None,
        param: str = "prompt",
    ) -> TextJob:
        """As `InferenceEngine.submit` says; the grammar is the compiled one alone."""
        config = self.defaults.complete(config)
        self.limits.check_tokens(config.logit_bias, "logit_bias")
        self.limits.check_tokens(config.stop_token_ids, "stop_token_ids")
        seed = secrets.randbits(64) if config.seed is None else config.seed
        group = next(self.ids)
        ends = ends_of(config, self.text, own=self.stop_token_ids, of_template=stop_strings, follows_grammar=grammar is not None)
        words = self.text.spellings(config.bad_words, "bad_words") if bad_words is None else bad_words
        if prediction is None:
            prediction = self.text.encode(config.prediction, add_special_tokens=False) if config.prediction else ()
        answers = grammar is not None and thoughts is not None
        barred = BarredTokens(min_tokens=config.min_tokens, ends=ends.tokens, words=words, answers=answers) or None
        marks = {token: name for name in shown if (token := self.text.special_token(name)) is not None}
        texts: dict[int, SequenceText] = {}
        echo: dict[int, str] = {}
        for position, prompt in enumerate(prompts):
            room = self.limits.output_tokens(prompt, config.required_room, param, at_least=config.min_tokens)
            max_tokens = room if config.max_new_tokens is None else min(room, config.max_new_tokens)
            for member in range(config.n):
                index = position * config.n + member
                # Choices differ by their seed alone; the first keeps the request's own.
                seq = Sequence(
                    next(self.ids),
                    group,
                    list(prompt),
                    config,
                    max_tokens=max_tokens,
                    seed=seed + index * 0x9E3779B97F4A7C15,
                    barred=barred,
                )
                thinking = Thinking(thoughts, self._tokens_of(thoughts.format), grammar) if thoughts is not None else None
                texts[seq.id] = SequenceText(index, seq, self.text, ends, _stops(ends, stops_within), thinking, marks)
                if echo_texts is not None:
                    echo[seq.id] = echo_texts[position]
        prompt_tokens = sum(len(prompt) for prompt in prompts)
        return TextJob(generation, texts, prompt_tokens, config.n, echo, grammar, prediction)

    def _tokens_of(self, form: ReasoningFormat) -> ThoughtTokens:
        found = self.thought_tokens.get(form.name)
        if found is None:
            found = self.thought_tokens[form.name] = ThoughtTokens(form, self.text)
        return found

    def embedding_job(
        self, generation: Generation, inputs: AbstractSequence[AbstractSequence[int]], *, dimensions: int | None, param: str
    ) -> EmbeddingJob:
        """As `InferenceEngine.embed` says."""
        check_embedding(self.embedding, dimensions, size=self.embedding_size)
        for tokens in inputs:
            self.limits.check_input(tokens, param)
        group, config = next(self.ids), GenerationConfig()
        backlog = deque(
            (index, Sequence(next(self.ids), group, list(tokens), config, max_tokens=0, seed=0, pooling=self.embedding.pooling))
            for index, tokens in enumerate(inputs)
        )
        return EmbeddingJob(generation, backlog, dimensions, sum(map(len, inputs)), min(WINDOW, self.max_sequences))


def _stops(ends: Ends, within: Callable[[StopStrings], TextStops] | None) -> Callable[[], TextStops]:
    """Makes what finds the strings that end a text. within: as `stops_within` of `submit`."""

    def new() -> TextStops:
        stops = StopStrings(ends.strings, shown=ends.shown)
        return stops if within is None else within(stops)

    return new
