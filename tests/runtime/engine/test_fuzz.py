"""The engine's step loop under random requests and tight budgets: what a request gets is what it gets alone on an engine with room.

A real network of random weights, real KV caches in both layouts, real grammars; no threads, so that a case is its seed. There is one
case for CASES_EACH of `--fuzz-cases N`.
"""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch

from mm_gateway.chat_templates.reasoning_formats.format import State, ThoughtPlan
from mm_gateway.chat_templates.reasoning_formats.formats import REASONING_FORMATS, tags
from mm_gateway.configuration.model_config import Pooling
from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import ChoiceFinished, Embedding, GenerationConfig, Grammar, PromptTokens, ReasoningDelta, TextDelta, Usage
from mm_gateway.errors import EngineError, GatewayError
from mm_gateway.runtime.checkpoints.embedding_style import EmbeddingStyle
from mm_gateway.runtime.checkpoints.loaded_model import GenerationDefaults, LoadedModel
from mm_gateway.runtime.engine.forward.make_runner import make_runner
from mm_gateway.runtime.engine.forward.model_runner import ModelRunner
from mm_gateway.runtime.engine.requests.embedding_job import EmbeddingJob
from mm_gateway.runtime.engine.requests.generation import Generation, Item
from mm_gateway.runtime.engine.requests.job_maker import JobMaker
from mm_gateway.runtime.engine.requests.prompt_limits import PromptLimits
from mm_gateway.runtime.engine.requests.text_job import TextJob
from mm_gateway.runtime.engine.step_loop import StepLoop
from mm_gateway.runtime.kv_cache.choosing import Layout
from mm_gateway.runtime.model_loader import ModelConfig, ModelLoader
from mm_gateway.runtime.sampling.sampler import Sampler
from mm_gateway.runtime.sampling.structured_output import CompiledGrammar, GrammarCompiler, TokenMasks
from mm_gateway.runtime.scheduling.scheduler import Scheduler
from mm_gateway.runtime.tokens.token_text import TokenText
from tests.support import checkpoints

SHARES = 10
CASES_EACH = 150
CONTEXT = 72
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer", "maximum": 50}, "b": {"enum": ["x", "yes"]}},
    "required": ["a", "b"],
    "additionalProperties": False,
}
GRAMMARS = [
    Grammar("regex", "[a-c]{2,9}"),
    Grammar("choice", '["yes", "no", "是"]'),
    Grammar("json_schema", json.dumps(SCHEMA)),
    Grammar("lark", 'start: "a" (T | U)\nT: /bb/ & /bc/\nU: /x+y/ & /x+z/'),  # comes to a dead end
]
PLAIN = GenerationConfig()
FORMATS = [
    REASONING_FORMATS["think"],
    REASONING_FORMATS["harmony"],
    tags("letters", "e", "o", forced="o\n"),  # that random weights open and close by themselves, tokens of several letters included
    tags("words", "a", " you"),
]
STATES: list[State] = ["thought", "thought", "undecided", "answer"]
BUDGETS = [None, 0, 1, 2, 5, 9]
STOPS = ["e", "o ", "User", "\n", "</s>", "好", "a b"]


class Received(Generation):
    """What a request got."""

    def __init__(self) -> None:
        super().__init__(lambda _: None)
        self.items: list[Item] = []

    def deliver(self, items: list[Item]) -> None:
        self.items += items


@dataclass
class Model:
    """A tiny model; its engines differ in their caches and budgets."""

    loaded: LoadedModel
    text: TokenText
    grammars: list[CompiledGrammar]
    masks: TokenMasks
    vocab_size: int
    ids: itertools.count[int] = field(default_factory=itertools.count)  # of all engines, since one of them serves every case

    def runner(self, settings: EngineSettings, context: int, layout: Layout, **cache: Any) -> ModelRunner:
        return make_runner(self.loaded.model, settings, context_length=context, layout=layout, tolerance=0.02, **cache)

    def loop(self, runner: ModelRunner, settings: EngineSettings) -> StepLoop:
        scheduler = Scheduler(runner.cache.allocator, max_running=settings.max_running, max_step_tokens=settings.max_step_tokens or 256)
        sampler = Sampler(self.vocab_size, torch.device("cpu"), max_running=settings.max_running)
        return StepLoop("tiny", runner, scheduler, sampler, self.masks)

    def jobs(self, context: int, pooling: Pooling) -> JobMaker:
        return JobMaker(
            text=self.text,
            limits=PromptLimits(context, self.vocab_size),
            defaults=GenerationDefaults(),
            stop_token_ids=self.loaded.stop_token_ids,
            embedding=EmbeddingStyle(pooling=pooling),
            embedding_size=32,
            ids=self.ids,
        )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.5}
    folder = checkpoints.llama(tmp_path_factory.mktemp("tiny"), max_position_embeddings=CONTEXT, **shape)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # which suits so small a network
    loaded = ModelLoader(pack=False).load(ModelConfig(model_name=str(folder), device="cpu", dtype="fp32"))
    vocab_size = int(loaded.model.config.vocab_size)
    compiler = GrammarCompiler(loaded.tokenizer, vocab_size, loaded.stop_token_ids)
    masks = TokenMasks(vocab_size)
    yield Model(loaded, TokenText(loaded.tokenizer), [compiler.compile(grammar) for grammar in GRAMMARS], masks, vocab_size)
    masks.close()
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def roomy(model: Model) -> Iterator[StepLoop]:
    """An engine that has room for everything, and keeps nothing."""
    settings = EngineSettings(max_running=32, max_step_tokens=4096, prefix_cache=False)
    with torch.inference_mode():
        yield model.loop(model.runner(settings, CONTEXT, "slots"), settings)


@dataclass(frozen=True)
class Request:
    """What is submitted. dimensions: of embeddings, which it asks for then."""

    prompts: list[list[int]]
    config: GenerationConfig = PLAIN
    grammar: CompiledGrammar | None = None
    embed: bool = False
    echo: bool = False
    thoughts: ThoughtPlan | None = None

    def job(self, jobs: JobMaker, generation: Generation) -> TextJob | EmbeddingJob:
        if self.embed:
            return jobs.embedding_job(generation, self.prompts, dimensions=None, param="input")
        echo = [jobs.text.decode(prompt) for prompt in self.prompts] if self.echo else None
        stops = ("<|end|>",) if self.thoughts is None else ()
        return jobs.text_job(
            generation, self.prompts, self.config, grammar=self.grammar, stop_strings=stops, echo_texts=echo, thoughts=self.thoughts
        )


@dataclass
class Outcome:
    """What a request came to, apart from how it came in pieces; by choice or input."""

    texts: dict[int, str] = field(default_factory=dict)
    tokens: dict[int, list[int]] = field(default_factory=dict)
    scores: dict[int, list[Any]] = field(default_factory=dict)
    ends: dict[int, str] = field(default_factory=dict)
    vectors: dict[int, Any] = field(default_factory=dict)
    thoughts: dict[int, str] = field(default_factory=dict)
    thought_tokens: dict[int, list[int]] = field(default_factory=dict)
    thought_sizes: dict[int, int] = field(default_factory=dict, compare=False)  # tokens up to the last that wrote some of it
    usage: tuple[int, int, int] | None = None
    error: tuple[type, str] | None = None


def outcome_of(items: list[Item]) -> Outcome:
    found = Outcome()
    for item in items:
        match item:
            case TextDelta(index=index):
                found.texts[index] = found.texts.get(index, "") + item.text
                found.tokens.setdefault(index, []).extend(item.token_ids)
                found.scores.setdefault(index, []).extend(((score.token, score.in_text), score.logprob) for score in item.logprobs)
            case ReasoningDelta(index=index):
                found.thoughts[index] = found.thoughts.get(index, "") + item.text
                found.thought_tokens.setdefault(index, []).extend(item.token_ids)
                if item.text:
                    found.thought_sizes[index] = len(found.thought_tokens[index])
            case PromptTokens(prompt=prompt):  # beside the choices, which count from 0
                assert -1 - prompt not in found.tokens
                found.tokens[-1 - prompt] = list(item.token_ids)
                found.scores[-1 - prompt] = [((score.token, score.in_text), score.logprob) for score in item.logprobs]
            case ChoiceFinished(index=index):
                assert index not in found.ends
                found.ends[index] = item.finish_reason
            case Embedding(index=index):
                assert index not in found.vectors
                found.vectors[index] = list(item.numbers())
            case Usage():
                found.usage = item.prompt_tokens, item.completion_tokens, item.reasoning_tokens
            case BaseException():
                assert isinstance(item, GatewayError) and not isinstance(item, EngineError), item
                found.error = type(item), str(item)
    return found


def _is_json(text: str) -> bool:
    value = json.loads(text)
    return set(value) == {"a", "b"} and value["b"] in ("x", "yes")


FITS: list[Callable[[str], object]] = [
    re.compile("[a-c]{2,9}").fullmatch,
    ("yes", "no", "是").__contains__,
    _is_json,
    re.compile("abbc?|ax+y|ax+z|abb.*").fullmatch,
]
"""What an answer is by each of the grammars."""


def about(found: Outcome) -> Outcome:
    """The same, equal to whatever differs from it by the order of summation alone."""
    near = {index: pytest.approx(vector, abs=1e-4) for index, vector in found.vectors.items()}
    scores = {index: [(spelled, pytest.approx(number, abs=1e-3)) for spelled, number in entries] for index, entries in found.scores.items()}
    return replace(found, vectors=near, scores=scores)


def random_request(rng: random.Random, model: Model, beginnings: list[list[int]], context: int) -> Request:
    prompts = []
    for _ in range(rng.choice([1, 1, 1, 2])):
        shared = rng.choice(beginnings)[: rng.choice([0, rng.randrange(context), context // 2])]
        own = [rng.randrange(3, model.vocab_size) for _ in range(rng.randint(0, context // 3))]
        prompts.append(([*shared, *own] or [5])[: context + rng.choice([0, 0, 0, 1])])
    if rng.random() < 0.1:
        return Request(prompts, embed=True)
    more = random.Random(repr(prompts))
    room = max(1, context - max(map(len, prompts)))
    scored = rng.random() < 0.25
    several = rng.random() < 0.3
    grammar = rng.choice(model.grammars) if rng.random() < 0.3 else None
    some: dict[str, Any] = {}
    if rng.random() < 0.3:
        some |= {"presence_penalty": rng.choice([0, 1.5]), "frequency_penalty": 0.7, "repetition_penalty": rng.choice([None, 1.3])}
    if rng.random() < 0.2:
        some |= {"logit_bias": {rng.randrange(model.vocab_size): rng.choice([-100.0, 5.0])}}
    if rng.random() < 0.4:
        some |= {"top_p": rng.choice([0.3, 0.9, 1.0]), "top_k": rng.choice([0, 5]), "min_p": rng.choice([0.0, 0.05])}
    max_new_tokens: int | None = rng.choice([None, 1, 2, 3, 4, 6, 8, 12, room, room + 1, *([0] if scored else [])])
    if rng.random() < 0.2:
        most = room if max_new_tokens is None else max_new_tokens
        some |= {
            "min_tokens": min(rng.randint(1, 4), most),
            "bad_words": rng.choice([(), ("yes", "e")]),
            "include_stop_str_in_output": True,
            "return_token_ids": True,
        }
    if more.random() < 0.5:
        some["return_token_ids"] = True
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        temperature=rng.choice([0, 0, 0.7, 1.3]),
        seed=rng.randrange(2**64),
        stop=tuple(rng.sample(STOPS, rng.choice([0, 0, 1, 3]))),
        ignore_eos=rng.random() < 0.3,
        n=rng.randint(2, 4) if several else 1,
        logprobs=rng.choice([None, 0, 2]) if not scored else rng.choice([0, 1]),
        prompt_logprobs=more.choice([0, 1]) if scored else None,
        **some,
    )
    thoughts = ThoughtPlan(more.choice(FORMATS), more.choice(STATES), more.choice(BUDGETS)) if more.random() < 0.4 else None
    return Request(prompts, config, grammar, echo=scored and more.random() < 0.6, thoughts=thoughts)


@dataclass
class Case:
    """One engine and its load."""

    rng: random.Random
    model: Model
    roomy: StepLoop
    expected: list[tuple[Received, Outcome]] = field(default_factory=list)
    cancelled: list[tuple[Received, Outcome]] = field(default_factory=list)
    refused: int = 0
    thoughts: int = 0

    def __post_init__(self) -> None:
        rng = self.rng
        self.settings = EngineSettings(
            max_running=rng.randint(1, 6), max_step_tokens=rng.choice([1, 7, 24, 200]), prefix_cache=rng.random() < 0.85
        )
        context = rng.randint(24, CONTEXT)
        layout: Layout = rng.choice(["slots", "paged"])
        per_token = 2 * 2 * 2 * 8 * 4  # keys and values, layers, KV heads, head size, bytes
        budget_bytes = int(rng.choice([1, 1, 1.3, 2, 3, 10]) * max(context, 64) * per_token)
        block_size = rng.choice([4, 16])
        self.runner = self.model.runner(self.settings, context, layout, kv_cache_bytes=budget_bytes, block_size=block_size)
        self.loop = self.model.loop(self.runner, self.settings)
        self.kv = self.runner.cache.allocator
        self.context = min(context, self.kv.max_tokens)
        pooling: Pooling = rng.choice(["mean", "last"])
        self.jobs = self.model.jobs(self.context, pooling)
        self.beginnings = [[rng.randrange(3, self.model.vocab_size) for _ in range(context)] for _ in range(2)]

    def alone(self, request: Request) -> Outcome:
        received = Received()
        self.roomy.add(request.job(self.jobs, received))
        while self.roomy.busy:
            self.roomy.step()
        self.roomy.step()
        return about(outcome_of(received.items))

    def check_alone(self, request: Request, outcome: Outcome) -> None:
        """What holds for every reply: the budget of a thought, and the grammar behind it."""
        plan, config = request.thoughts, request.config
        if plan is None or outcome.error is not None:
            return
        written = itertools.chain.from_iterable(
            self.model.text.encode(literal, add_special_tokens=False) for literal in (plan.format.opening, plan.format.closing)
        )
        marks = len(list(written))
        for index, thought in outcome.thoughts.items():
            if plan.budget is not None:  # what closes it in several tokens may have begun at its end
                assert outcome.thought_sizes.get(index, 0) <= plan.budget + marks, (index, thought)
        if request.grammar is not None and not config.stop and not config.bad_words and not config.min_tokens and not request.echo:
            place = self.model.grammars.index(request.grammar)
            for index, end in outcome.ends.items():
                # A random prompt may end within a character, which comes out broken with the reply.
                text = outcome.texts.get(index, "").lstrip("�")
                if end == "stop" and (plan.state != "thought" or text):
                    assert FITS[place](text), (index, text)

    def submit(self) -> None:
        request = random_request(self.rng, self.model, self.beginnings, self.context)
        received = Received()
        try:
            job = request.job(self.jobs, received)
        except GatewayError as error:
            assert not isinstance(error, EngineError)
            self.refused += 1
            return
        alone = self.alone(request)
        self.check_alone(request, alone)
        self.thoughts += sum(map(bool, alone.thoughts.values()))
        self.expected.append((received, alone))
        self.loop.add(job)

    def cancel(self) -> None:
        self.cancelled.append(self.expected.pop(self.rng.randrange(len(self.expected))))
        self.loop.cancel(self.cancelled[-1][0])

    def run(self) -> None:
        rng, requests = self.rng, self.rng.randint(2, 7)
        for steps in itertools.count():
            assert steps < 20_000, "somebody waits for ever"
            if requests and (not self.loop.busy or rng.random() < 0.3):
                requests -= 1
                self.submit()
            if self.expected and rng.random() < 0.02:
                self.cancel()
            if not self.loop.busy and not requests:
                break
            self.loop.step()
            self.kv.check_integrity()
        self.loop.step()

    def check(self) -> None:
        for received, expected in self.expected:
            found = outcome_of(received.items)
            if expected.error is not None:  # of the other choices, as much is there as was written until then
                assert found.error == expected.error
                continue
            assert found == expected
        for received, expected in self.cancelled:
            found = outcome_of(received.items)
            for written, whole in ((found.texts, expected.texts), (found.thoughts, expected.thoughts)):
                assert all(whole[index].startswith(text) for index, text in written.items())
        for name in ("_jobs", "_job_of", "_rules", "_forward"):
            assert not getattr(self.loop, name), name
        assert self.kv.free_tokens >= self.kv.max_tokens


@pytest.mark.parametrize("share", range(SHARES))
def test_a_request_gets_what_it_gets_alone_on_an_engine_with_room(share: int, fuzz_cases: int, model: Model, roomy: StepLoop) -> None:
    preemptions = reused = thoughts = 0
    cases = fuzz_cases // CASES_EACH
    with torch.inference_mode():
        for seed in itertools.count(share, SHARES):
            if seed >= cases and (fuzz_cases < 5_000 or (preemptions > 0 and reused > 0 and thoughts > 0)):
                break
            assert seed < cases + 30 * SHARES, "it is not tight: nobody is preempted, or nothing is reused"
            case = Case(random.Random(seed), model, roomy)
            try:
                case.run()
                case.check()
            except Exception as error:
                raise AssertionError(f"case {seed}: {error}") from error
            stats = case.loop.stats()
            thoughts += case.thoughts
            preemptions += stats.preemptions
            reused += stats.cached_tokens


def test_what_a_token_holds_behind_the_end_of_a_thought_is_an_answer_only_by_the_grammar(model: Model, roomy: StepLoop) -> None:
    (you,) = model.text.encode(" you", add_special_tokens=False)
    plan = ThoughtPlan(tags("letters", "e", "o"), "thought")
    config = GenerationConfig(max_new_tokens=20, seed=1, n=3, logit_bias={you: 100.0}, return_token_ids=True)
    received = Received()
    with torch.inference_mode():
        roomy.add(Request([[5, 6]], config, model.grammars[0], thoughts=plan).job(model.jobs(CONTEXT, "mean"), received))
        while roomy.busy:
            roomy.step()
        roomy.step()
    found = outcome_of(received.items)
    assert found.error is None and found.thoughts == {0: "y", 1: "y", 2: "y"}
    assert all(FITS[0](text) for text in found.texts.values()) and len(found.texts) == 3
