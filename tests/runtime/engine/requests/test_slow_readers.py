"""What a client leaves unread has a bound; beyond it the request ends, and the others go on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import GenerationConfig, GenerationEvent, TextDelta, TokenLogprob, Usage
from mm_gateway.errors import SlowReaderError
from mm_gateway.runtime.engine.requests import generation
from mm_gateway.runtime.inference_engine import InferenceEngine
from mm_gateway.runtime.model_loader import ModelConfig, ModelLoader

LONG = GenerationConfig(max_new_tokens=200, temperature=0, ignore_eos=True, logprobs=1)  # with them, an event a token

SHORT = GenerationConfig(max_new_tokens=8, temperature=0, ignore_eos=True)


@pytest.fixture
def engine(gpt2_checkpoint: Path) -> Iterator[InferenceEngine]:
    loaded = ModelLoader().load(ModelConfig(model_name=str(gpt2_checkpoint), device="cpu", dtype="fp32"))
    made = InferenceEngine.for_loaded_model(loaded, EngineSettings())
    yield made
    made.close()


@pytest.mark.parametrize(("name", "bound"), [("MAX_UNREAD_EVENTS", 20), ("MAX_UNREAD_BYTES", 20_000)])
def test_a_thread_that_leaves_too_much_unread_gets_what_there_is_and_an_error(
    engine: InferenceEngine, monkeypatch: pytest.MonkeyPatch, name: str, bound: int
) -> None:
    monkeypatch.setattr(generation, name, bound)
    unread = engine.submit([[5, 6]], LONG)
    for _ in range(25):  # meanwhile, and for longer, others are served
        engine.generate("a", SHORT)
    found: list[GenerationEvent] = []
    with pytest.raises(SlowReaderError, match="more slowly"):
        for event in unread:
            found.append(event)  # noqa: PERF402 - what came before the error is asserted
    assert 15 <= len(found) <= 60
    assert (engine.stats().running, engine.stats().waiting) == (0, 0)


async def test_so_does_a_coroutine(engine: InferenceEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "MAX_UNREAD_EVENTS", 20)
    loop = asyncio.get_running_loop()
    unread = engine.submit([[5, 6]], LONG, loop=loop)
    for _ in range(25):
        read = [event async for event in engine.submit([[7, 8]], SHORT, loop=loop)]
        assert isinstance(read[-1], Usage)
    with pytest.raises(SlowReaderError):
        async for _ in unread:
            pass


def test_a_batch_is_read_as_it_is_written(engine: InferenceEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "MAX_UNREAD_EVENTS", 190)
    results = engine.batch_generate(["a", "b", "c"], LONG)
    assert [result.completion_tokens for result in results] == [200, 200, 200]


def test_one_large_event_is_no_slow_reader() -> None:
    """A long prompt that is echoed with log-probabilities comes in one piece."""
    score = TokenLogprob("a", (97,), -1.0, tuple(("b", (98,), -2.0) for _ in range(20)))
    echoed = TextDelta(0, "a" * 30_000, tuple(range(30_000)), (score,) * 30_000)
    handle = generation.Generation(lambda _: None)
    handle.count_produced([echoed])
    assert not handle.is_read_too_slowly
