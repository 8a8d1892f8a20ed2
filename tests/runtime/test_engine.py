"""The engine over real checkpoints: exact against transformers, whatever the batch, the chunks, the reuse or the preemption."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import ChoiceFinished, GenerationConfig, PromptTokens, TextDelta, Usage
from mm_gateway.errors import (
    ContextLengthExceededError,
    EngineError,
    InvalidRequestError,
    OutOfMemoryError,
    RateLimitError,
    ShuttingDownError,
)
from mm_gateway.runtime.inference_engine import InferenceEngine
from mm_gateway.runtime.model_loader import ModelConfig, ModelLoader
from mm_gateway.runtime.scheduling.scheduler import Scheduler
from mm_gateway.runtime.scheduling.sequence import Sequence
from tests.support import checkpoints

PROMPTS = ["Hello", "The quick brown fox " * 4, "你好，世界！", "a", "Once upon a time there was", "def main(argument: int) -> str:"]
GREEDY = GenerationConfig(max_new_tokens=24, temperature=0, ignore_eos=True)

EngineFactory = Callable[..., InferenceEngine]


@pytest.fixture(params=["slots", "paged"])
def make_engine(request: pytest.FixtureRequest) -> Iterator[EngineFactory]:
    """Engines over both layouts of the KV cache: that of a CPU, and that of a GPU with the kernel that runs anywhere."""
    engines: list[InferenceEngine] = []

    def make(
        folder: Path, *, quantization: Any = None, dtype: Any = "fp32", kv_cache_bytes: int | None = None, **settings: Any
    ) -> InferenceEngine:
        config = ModelConfig(model_name=str(folder), device="cpu", dtype=dtype, quantization=quantization)
        loaded = ModelLoader().load(config)
        layout: Any = {"kv_layout": request.param, "kv_block_size": 16}
        engine = InferenceEngine.for_loaded_model(loaded, EngineSettings(**settings), kv_cache_bytes, **layout)
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture
def reference(checkpoint: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(checkpoint)


def generate(model: PreTrainedModel, ids: list[int], tokens: int) -> list[int]:
    with torch.inference_mode():
        output: Any = model.generate(  # type: ignore[operator]
            torch.tensor([ids]), max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, pad_token_id=0, eos_token_id=None
        )
    return output[0, len(ids) :].tolist()


def tokens_of(engine: InferenceEngine, prompts: list[list[int]], config: GenerationConfig = GREEDY) -> list[list[int]]:
    """Ids of each prompt's first choice, all prompts at once; read from log-probabilities, which name every token."""
    generations = [engine.submit([ids], config) for ids in prompts]
    return [[token for event in generation if isinstance(event, TextDelta) for token in event.token_ids] for generation in generations]


def test_alone_and_in_a_mixed_batch_of_32_greedy_equals_generate(
    checkpoint: Path, reference: PreTrainedModel, make_engine: EngineFactory
) -> None:
    engine = make_engine(checkpoint)
    prompts = [engine.encode(prompt) for prompt in PROMPTS]
    expected = [generate(reference, ids, 24) for ids in prompts]
    assert [tokens_of(engine, [ids])[0] for ids in prompts] == expected
    batch = (prompts * 6)[:32]
    assert tokens_of(engine, batch) == (expected * 6)[:32]


def test_chunked_prefill_without_reuse_is_exact(checkpoint: Path, reference: PreTrainedModel, make_engine: EngineFactory) -> None:
    engine = make_engine(checkpoint, max_step_tokens=7, max_running=4, prefix_cache=False)
    prompts = [engine.encode(prompt) for prompt in PROMPTS]
    assert tokens_of(engine, prompts) == [generate(reference, ids, 24) for ids in prompts]
    assert engine.stats().cached_tokens == 0


def test_prefix_reuse_is_exact_and_counted(checkpoint: Path, reference: PreTrainedModel, make_engine: EngineFactory) -> None:
    engine = make_engine(checkpoint)
    shared = engine.encode("System: you are a helpful assistant. " * 3)
    prompts = [shared + engine.encode(tail) for tail in (" one", " two", " three")]
    expected = [generate(reference, ids, 24) for ids in prompts]
    assert tokens_of(engine, [prompts[0]]) == [expected[0]]
    assert tokens_of(engine, prompts) == expected
    following = prompts[0] + expected[0] + engine.encode("and then")
    usage = list(engine.submit([following], GREEDY))[-1]
    # Of a page, fewer than 16 tokens in common are computed again.
    assert isinstance(usage, Usage) and len(prompts[0]) + 8 <= usage.cached_tokens <= len(prompts[0]) + 23
    assert engine.stats().cached_tokens > 2 * len(shared)


def test_preemption_is_exact(checkpoint: Path, reference: PreTrainedModel, make_engine: EngineFactory) -> None:
    probe = make_engine(checkpoint)
    prompts = [probe.encode(prompt) for prompt in PROMPTS]
    bytes_per_token = 2 * 2 * 64 * 4  # keys and values, two layers, at most 64 wide, fp32
    engine = make_engine(checkpoint, kv_cache_bytes=bytes_per_token * 110, max_running=6)
    assert tokens_of(engine, prompts) == [generate(reference, ids, 24) for ids in prompts]
    if "gpt2" in str(checkpoint):  # the others have half the heads in their cache, hence twice the room
        assert engine.stats().preemptions > 0


@pytest.mark.parametrize("generated", [0, 24])
def test_an_echoed_prompt_is_scored_once_whatever_is_preempted(
    gpt2_checkpoint: Path, make_engine: EngineFactory, monkeypatch: pytest.MonkeyPatch, generated: int
) -> None:
    """Preempted while the prompt is computed and while it decodes: the reply is that of an engine with room."""
    config = GenerationConfig(max_new_tokens=generated, temperature=0, logprobs=2, prompt_logprobs=2, ignore_eos=True)

    def replies(engine: InferenceEngine, prompts: list[list[int]]) -> list[list[tuple[str, float | None]]]:
        generations = [engine.submit([ids], config, echo_texts=[engine.decode(ids)]) for ids in prompts]
        events = [list(generation) for generation in generations]
        return [
            [(score.token, score.logprob) for event in reply if isinstance(event, TextDelta) for score in event.logprobs]
            for reply in events
        ]

    roomy = make_engine(gpt2_checkpoint, max_step_tokens=9, max_running=6)
    rng = random.Random(0)
    prompts = [[rng.randrange(3, 200) for _ in range(40)] for _ in range(12)]
    expected = replies(roomy, prompts)
    preempted: list[tuple[int, bool]] = []
    preempt = Scheduler._recompute

    def record(scheduler: Scheduler, seq: Sequence) -> None:
        preempted.append((seq.id, seq.computed < seq.prompt_len))
        preempt(scheduler, seq)

    monkeypatch.setattr(Scheduler, "_recompute", record)
    # Small steps meet sequences within their prompts, large ones those that decode together.
    step_tokens = 90 if generated else 9
    tight = make_engine(gpt2_checkpoint, max_step_tokens=step_tokens, max_running=6, kv_cache_bytes=2 * 2 * 64 * 4 * 128)
    if not generated:
        # Something has to grow for somebody to be preempted: one that decodes beside them.
        tight.submit([[5, 6]], GenerationConfig(max_new_tokens=100, temperature=0, ignore_eos=True))
    for found, wanted in zip(replies(tight, prompts), expected, strict=True):
        assert [token for token, _ in found] == [token for token, _ in wanted]
        assert [logprob for _, logprob in found][1:] == pytest.approx([logprob for _, logprob in wanted][1:], abs=1e-4)
    assert any(in_prompt != bool(generated) for _, in_prompt in preempted)


def test_a_sliding_window_is_exact(tmp_path: Path, make_engine: EngineFactory) -> None:
    folder = checkpoints.mistral(tmp_path)
    reference = AutoModelForCausalLM.from_pretrained(folder)
    engine = make_engine(folder, max_step_tokens=20)
    prompts = [engine.encode(prompt) for prompt in ("Hello", "The quick brown fox jumps over the lazy dog. " * 3)]
    assert tokens_of(engine, prompts) == [generate(reference, ids, 24) for ids in prompts]


def test_log_probabilities_equal_a_plain_forward(checkpoint: Path, reference: PreTrainedModel, make_engine: EngineFactory) -> None:
    engine = make_engine(checkpoint, max_step_tokens=9)
    ids = engine.encode(PROMPTS[1])
    config = GenerationConfig(max_new_tokens=6, temperature=0, logprobs=3, prompt_logprobs=3, ignore_eos=True)
    events = list(engine.submit([ids], config, echo_texts=[PROMPTS[1]]))
    tokens = ids + [token for event in events if isinstance(event, TextDelta) for token in event.token_ids]
    scores = [score for event in events if isinstance(event, TextDelta) for score in event.logprobs]
    with torch.inference_mode():
        expected = reference(torch.tensor([tokens])).logits[0].float().log_softmax(-1)
    assert tokens[: len(ids)] == ids
    assert scores[0].logprob is None
    for position in range(1, len(tokens)):
        assert scores[position].logprob == pytest.approx(expected[position - 1, tokens[position]].item(), abs=1e-4)
        top = [logprob for _, _, logprob in scores[position].top]
        assert top == pytest.approx(expected[position - 1].topk(3).values.tolist(), abs=1e-4)


def test_scoring_alone_generates_nothing(gpt2_checkpoint: Path, make_engine: EngineFactory) -> None:
    engine = make_engine(gpt2_checkpoint)
    config = GenerationConfig(max_new_tokens=0, logprobs=0, prompt_logprobs=0)
    events = list(engine.submit([[5, 6, 7]], config, echo_texts=[engine.decode([5, 6, 7])]))
    assert [type(event) for event in events] == [TextDelta, ChoiceFinished, Usage]
    assert events[-1] == Usage(3, 0)


def test_a_seed_gives_the_same_text_alone_in_company_and_after_reuse(checkpoint: Path, make_engine: EngineFactory) -> None:
    engine = make_engine(checkpoint)
    config = GenerationConfig(max_new_tokens=20, temperature=0.9, top_p=0.95, seed=11, ignore_eos=True)
    ids = engine.encode(PROMPTS[1])
    alone = tokens_of(engine, [ids], config)[0]
    company = [engine.submit([engine.encode(prompt)], GenerationConfig(max_new_tokens=40, seed=i)) for i, prompt in enumerate(PROMPTS * 3)]
    assert tokens_of(engine, [ids], config)[0] == alone
    for generation in company:
        generation.cancel()


def test_choices_share_their_prompt_and_differ(llama_checkpoint: Path, make_engine: EngineFactory) -> None:
    engine = make_engine(llama_checkpoint)
    ids = engine.encode(PROMPTS[1])
    events = list(engine.submit([ids], GenerationConfig(max_new_tokens=8, n=4, seed=1, temperature=1.5)))
    texts = ["".join(event.text for event in events if isinstance(event, TextDelta) and event.index == i) for i in range(4)]
    assert len(set(texts)) == 4
    assert sum(isinstance(event, ChoiceFinished) for event in events) == 4
    usage = events[-1]
    assert isinstance(usage, Usage) and usage.prompt_tokens == len(ids)
    assert engine.stats().steps <= 12


def test_the_end_token_at_the_limit_is_a_stop(checkpoint: Path, make_engine: EngineFactory) -> None:
    engine = make_engine(checkpoint)
    eos = min(ModelLoader().load(ModelConfig(model_name=str(checkpoint), device="cpu", dtype="fp32")).stop_token_ids)
    forced = GenerationConfig(max_new_tokens=1, logit_bias={eos: 100.0}, temperature=0)
    events = list(engine.submit([engine.encode("Hello")], forced))
    assert ChoiceFinished(0, "stop") in events
    assert not any(isinstance(event, TextDelta) for event in events)


def test_wrong_requests_are_refused_before_they_reach_the_model(gpt2_checkpoint: Path, make_engine: EngineFactory) -> None:
    engine = make_engine(gpt2_checkpoint, max_waiting=4)
    with pytest.raises(InvalidRequestError, match="empty"):
        engine.submit([[]])
    with pytest.raises(InvalidRequestError, match="vocabulary"):
        engine.submit([[10**6]])
    with pytest.raises(ContextLengthExceededError, match="maximum context length is 256 tokens"):
        engine.submit([[5] * 250], GenerationConfig(max_new_tokens=10))
    with pytest.raises(InvalidRequestError, match="logit_bias"):
        engine.submit([[5]], GenerationConfig(logit_bias={99999: 1.0}))
    with pytest.raises(RateLimitError) as caught:
        engine.submit([[5]] * 2, GenerationConfig(n=50))
    assert caught.value.retry_after_s is None  # more than the queue ever holds


@pytest.mark.parametrize(
    ("error", "typed", "says"),
    [
        (RuntimeError("broken kernel"), EngineError, "failed while computing"),
        (torch.OutOfMemoryError("CUDA out of memory"), OutOfMemoryError, "enable quantization"),
        (RuntimeError("DefaultCPUAllocator: not enough memory"), OutOfMemoryError, "enable quantization"),
    ],
)
def test_a_failing_forward_fails_its_requests_and_spares_the_engine(
    gpt2_checkpoint: Path, error: Exception, typed: type[Exception], says: str
) -> None:
    loaded = ModelLoader().load(ModelConfig(model_name=str(gpt2_checkpoint), device="cpu", dtype="fp32"))
    armed = threading.Event()

    def explode(*_: object) -> None:
        if armed.is_set():
            armed.clear()
            raise error

    loaded.model.get_input_embeddings().register_forward_pre_hook(explode)  # type: ignore[union-attr]
    engine = InferenceEngine.for_loaded_model(loaded, EngineSettings())
    try:
        before = engine.batch_generate(PROMPTS[:2], GREEDY)
        armed.set()
        with pytest.raises(typed, match=says):
            engine.generate("Hello", GREEDY)
        after = engine.batch_generate(PROMPTS[:2], GREEDY)
        assert [result.text for result in after] == [result.text for result in before]
    finally:
        engine.close()


def test_nan_is_an_error_of_its_request_alone(llama_checkpoint: Path, make_engine: EngineFactory) -> None:
    loaded = ModelLoader().load(ModelConfig(model_name=str(llama_checkpoint), device="cpu", dtype="fp32"))
    engine = InferenceEngine.for_loaded_model(loaded, EngineSettings())
    try:
        expected = engine.generate("Hello", GREEDY).text
        with torch.no_grad():
            loaded.model.get_input_embeddings().weight[7] = torch.nan  # type: ignore[index, union-attr]
        poisoned, healthy = engine.submit([[7, 8, 9]], GREEDY), engine.submit([engine.encode("Hello")], GREEDY)
        with pytest.raises(EngineError, match="NaN"):
            list(poisoned)
        text = "".join(event.text for event in healthy if isinstance(event, TextDelta))
        assert text == expected
        assert engine.generate("Hello", GREEDY).text == expected
    finally:
        engine.close()


def test_closing_fails_what_is_left_and_refuses_more(gpt2_checkpoint: Path, make_engine: EngineFactory) -> None:
    engine = make_engine(gpt2_checkpoint)
    generation = engine.submit([[5, 6]], GenerationConfig(max_new_tokens=200, ignore_eos=True))
    engine.close()
    with pytest.raises(ShuttingDownError):
        list(generation)
    with pytest.raises(ShuttingDownError):
        engine.submit([[5]])


async def test_events_reach_an_event_loop_and_a_cancel_frees_the_sequence(gpt2_checkpoint: Path, make_engine: EngineFactory) -> None:
    engine = make_engine(gpt2_checkpoint)
    loop = asyncio.get_running_loop()
    whole = engine.submit([engine.encode("Hello")], GREEDY, loop=loop)
    events = [event async for event in whole]
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == engine.generate("Hello", GREEDY).text
    left = engine.submit([[5, 6]], GenerationConfig(max_new_tokens=250, ignore_eos=True), loop=loop)
    async for _ in left:
        break
    left.cancel()
    for _ in range(200):
        if not engine.stats().running:
            break
        await asyncio.sleep(0.01)
    assert engine.stats().running == 0


def test_thousands_of_requests_with_random_cancels_leave_nothing_behind(tmp_path: Path, make_engine: EngineFactory) -> None:
    from tests.support import checkpoints

    folder = checkpoints.llama(tmp_path, hidden_size=16, intermediate_size=16, num_hidden_layers=1)
    engine = make_engine(folder, max_running=32, max_waiting=20000)
    rng = random.Random(0)
    threads = set(threading.enumerate())
    process = psutil.Process()

    def burst(count: int) -> None:
        generations = [
            engine.submit(
                [[rng.randint(3, 200) for _ in range(rng.randint(1, 30))]], GenerationConfig(max_new_tokens=rng.randint(1, 6), seed=i)
            )
            for i in range(count)
        ]
        for generation in generations:
            if rng.random() < 0.5:
                generation.cancel()
            else:
                assert isinstance(list(generation)[-1], Usage)

    burst(1000)
    memory = process.memory_info().rss
    for _ in range(4):
        burst(1000)
    time.sleep(0.05)
    stats = engine.stats()
    assert (stats.running, stats.waiting) == (0, 0)
    # What a process starts once, its watchdog or a pool that another test uses, may be new; what an engine starts may not.
    started = [thread.name for thread in threading.enumerate() if thread not in threads]
    assert [name for name in started if name.startswith(("engine", "grammar", "Thread-"))] == []
    assert process.memory_info().rss - memory < 20e6


@pytest.mark.parametrize(("quantization", "dtype"), [(None, "fp16"), (None, "bf16"), ("8bit", "fp32")])
def test_16_bit_and_int8_weights_stay_close_to_fp32(
    checkpoint: Path, reference: PreTrainedModel, make_engine: EngineFactory, quantization: Any, dtype: Any
) -> None:
    engine = make_engine(checkpoint, quantization=quantization, dtype=dtype)
    ids = AutoTokenizer.from_pretrained(checkpoint).encode(PROMPTS[1])
    config = GenerationConfig(max_new_tokens=0, logprobs=0, prompt_logprobs=0)
    scores = [score.logprob for event in engine.submit([ids], config) if isinstance(event, PromptTokens) for score in event.logprobs][1:]
    with torch.inference_mode():
        rows = reference(torch.tensor([ids])).logits[0].float().log_softmax(-1)[:-1]
    expected = rows.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    error = (torch.tensor(scores) - expected).abs().mean().item()
    assert error < {"fp16": 0.02, "bf16": 0.2, "fp32": 0.6}[dtype]
