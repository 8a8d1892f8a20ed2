"""Embeddings of the engine: equal to transformers' own hidden states, pooled; whatever batch, chunks and layout of the cache."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel

from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import Embedding, GenerationConfig, TextDelta, Usage
from mm_gateway.errors import ContextLengthExceededError, EngineError, InvalidRequestError, RateLimitError, UnsupportedParameterError
from mm_gateway.runtime.checkpoints.embedding_style import EmbeddingStyle
from mm_gateway.runtime.inference_engine import InferenceEngine
from mm_gateway.runtime.model_loader import ModelConfig, ModelLoader

TEXTS = ["Hello", "The quick brown fox " * 4, "你好，世界！", "a", "Once upon a time there was", "def main(argument: int) -> str:"]

EngineFactory = Callable[..., InferenceEngine]


@pytest.fixture(params=["slots", "paged"])
def make_engine(request: pytest.FixtureRequest) -> Iterator[EngineFactory]:
    engines: list[InferenceEngine] = []

    def make(folder: Path, style: EmbeddingStyle | None = None, *, kv_cache_bytes: int | None = None, **settings: Any) -> InferenceEngine:
        loaded = ModelLoader().load(ModelConfig(model_name=str(folder), device="cpu", dtype="fp32"))
        loaded = dataclasses.replace(loaded, embedding=style or EmbeddingStyle())
        layout: Any = {"kv_layout": request.param, "kv_block_size": 16}
        engine = InferenceEngine.for_loaded_model(loaded, EngineSettings(**settings), kv_cache_bytes, **layout)
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.close()


def expected(folder: Path, inputs: list[list[int]], pooling: str, dimensions: int | None = None) -> torch.Tensor:
    """[inputs, dimensions], computed one by one by transformers."""
    model = AutoModel.from_pretrained(folder)
    with torch.inference_mode():
        states = [model(torch.tensor([ids])).last_hidden_state[0] for ids in inputs]
    pooled = torch.stack([each.mean(0) if pooling == "mean" else each[-1] for each in states])
    return torch.nn.functional.normalize(pooled[:, :dimensions], dim=1)


def vectors(engine: InferenceEngine, inputs: list[list[int]], **options: Any) -> torch.Tensor:
    events = list(engine.embed(inputs, **options))
    found = {event.index: event.numbers() for event in events if isinstance(event, Embedding)}
    assert events[-1] == Usage(sum(map(len, inputs)), 0)
    return torch.tensor([found[index] for index in range(len(inputs))])


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_alone_and_in_a_batch_embeddings_equal_those_of_transformers(checkpoint: Path, make_engine: EngineFactory, pooling: Any) -> None:
    engine = make_engine(checkpoint, EmbeddingStyle(pooling))
    inputs = [engine.encode(text) for text in TEXTS]
    right = expected(checkpoint, inputs, pooling)
    for index, ids in enumerate(inputs):
        torch.testing.assert_close(vectors(engine, [ids])[0], right[index], atol=1e-5, rtol=0)
    torch.testing.assert_close(vectors(engine, inputs * 5), right.repeat(5, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_in_chunks_amid_running_texts_neither_changes(checkpoint: Path, make_engine: EngineFactory, pooling: Any) -> None:
    engine = make_engine(checkpoint, EmbeddingStyle(pooling), max_step_tokens=11, max_running=6)
    inputs = [engine.encode(text) for text in TEXTS]
    config = GenerationConfig(max_new_tokens=30, temperature=0, ignore_eos=True)
    alone = [text_of(engine.submit([ids], config)) for ids in inputs[:3]]
    streams = [engine.submit([ids], config) for ids in inputs[:3]]
    embeddings = [engine.embed(inputs), engine.embed(inputs[::-1])]
    right = expected(checkpoint, inputs, pooling)
    for generation, wanted in zip(embeddings, (right, right.flip(0)), strict=True):
        found = {event.index: event.numbers() for event in generation if isinstance(event, Embedding)}
        torch.testing.assert_close(torch.tensor([found[i] for i in range(len(inputs))]), wanted, atol=1e-5, rtol=0)
    assert [text_of(stream) for stream in streams] == alone


def test_where_keys_and_values_find_no_room_it_waits_or_begins_again(checkpoint: Path, make_engine: EngineFactory) -> None:
    engine = make_engine(checkpoint, kv_cache_bytes=2 * 2 * 64 * 4 * 110, max_running=6, max_step_tokens=9)
    inputs = [engine.encode(text) for text in TEXTS]
    config = GenerationConfig(max_new_tokens=40, temperature=0, ignore_eos=True)
    streams = [engine.submit([ids], config) for ids in inputs]
    torch.testing.assert_close(vectors(engine, inputs), expected(checkpoint, inputs, "mean"), atol=1e-5, rtol=0)
    assert all(text_of(stream) for stream in streams)


def test_embeddings_take_nothing_from_the_prefix_cache_and_leave_nothing_in_it(llama_checkpoint: Path, make_engine: EngineFactory) -> None:
    engine = make_engine(llama_checkpoint)
    ids = engine.encode(TEXTS[1])
    assert len(ids) >= 20

    def cached_tokens() -> int:
        *_, usage = engine.submit([ids], GenerationConfig(max_new_tokens=4, temperature=0, ignore_eos=True))
        assert isinstance(usage, Usage)
        return usage.cached_tokens

    vectors(engine, [ids])
    assert cached_tokens() == 0
    torch.testing.assert_close(vectors(engine, [ids]), expected(llama_checkpoint, [ids], "mean"), atol=1e-5, rtol=0)
    assert cached_tokens() > 0


def test_more_inputs_than_the_queue_holds_leave_it_to_others(gpt2_checkpoint: Path, make_engine: EngineFactory) -> None:
    engine = make_engine(gpt2_checkpoint, max_waiting=80, max_running=2, max_step_tokens=32)
    inputs = [[5 + index % 100] * 30 for index in range(300)]
    embedding = engine.embed(inputs)
    config = GenerationConfig(max_new_tokens=3, temperature=0, ignore_eos=True)
    assert text_of(engine.submit([[5, 6, 7]], config))  # in its turn, long before the last input
    assert engine.stats().waiting > 0
    with pytest.raises(RateLimitError):
        engine.embed(inputs)
    found = [event.index for event in embedding if isinstance(event, Embedding)]
    assert sorted(found) == list(range(300))


def test_a_cancelled_request_frees_what_it_holds(gpt2_checkpoint: Path, make_engine: EngineFactory) -> None:
    engine = make_engine(gpt2_checkpoint, max_step_tokens=16, max_running=4)
    generation = engine.embed([[7] * 200] * 500)
    next(iter(generation))
    generation.cancel()
    deadline = time.monotonic() + 10
    while engine.stats().waiting or engine.stats().running:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_matryoshka_model_shortens_and_normalises_again(qwen2_checkpoint: Path, make_engine: EngineFactory) -> None:
    engine = make_engine(qwen2_checkpoint, EmbeddingStyle("last", matryoshka=True))
    inputs = [engine.encode(text) for text in TEXTS]
    found = vectors(engine, inputs, dimensions=8)
    torch.testing.assert_close(found, expected(qwen2_checkpoint, inputs, "last", 8), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(len(inputs)))


def test_what_cannot_be_embedded_is_refused_by_name(gpt2_checkpoint: Path, make_engine: EngineFactory) -> None:
    engine = make_engine(gpt2_checkpoint)
    for inputs, dimensions, error, param in [
        ([[1], []], None, InvalidRequestError, "input"),
        ([[1], [100_000]], None, InvalidRequestError, "input"),
        ([[-1]], None, InvalidRequestError, "input"),
        ([[1] * 257], None, ContextLengthExceededError, "input"),
        ([[1]], 8, UnsupportedParameterError, "dimensions"),
        ([[1]], 65, InvalidRequestError, "dimensions"),
        ([[1]], 0, InvalidRequestError, "dimensions"),
    ]:
        with pytest.raises(error) as caught:
            engine.embed(inputs, dimensions=dimensions)
        assert caught.value.param == param
    assert vectors(engine, [[1] * 256], dimensions=64).shape == (1, 64)
    with pytest.raises(InvalidRequestError, match="does not support embeddings: why") as refused:
        make_engine(gpt2_checkpoint, EmbeddingStyle(unfit="why")).embed([[1]])
    assert refused.value.param == "model"


def test_values_that_are_no_numbers_fail_their_request_alone(tmp_path: Path, llama_checkpoint: Path, make_engine: EngineFactory) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(llama_checkpoint)
    embeddings = model.get_input_embeddings()
    assert isinstance(embeddings, torch.nn.Embedding)
    with torch.no_grad():
        embeddings.weight[99] = torch.nan
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(llama_checkpoint).save_pretrained(tmp_path)
    engine = make_engine(tmp_path)
    broken, whole = engine.embed([[5, 99, 6], [5, 6]]), engine.embed([[7, 8]])
    with pytest.raises(EngineError, match="NaN"):
        list(broken)
    assert len(list(whole)) == 2


def text_of(generation: Any) -> str:
    return "".join(event.text for event in generation if isinstance(event, TextDelta))
