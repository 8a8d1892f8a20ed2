"""A draft model changes how many steps a text takes, and nothing of the text, however well it guesses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from gguf import GGMLQuantizationType
from transformers import AutoModelForCausalLM, LlamaConfig

from mm_gateway.backends.local import LocalBackend
from mm_gateway.chat_templates.reasoning_formats.format import ThoughtPlan
from mm_gateway.chat_templates.reasoning_formats.formats import REASONING_FORMATS, tags
from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import GenerationConfig, Grammar, Usage
from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.inference_engine import InferenceEngine
from mm_gateway.runtime.kernels.library import library
from mm_gateway.runtime.model_loader import ModelConfig, ModelLoader
from mm_gateway.runtime.real_model_manager import RealModelManager
from tests.runtime.engine.forward.test_compiled_forward import SHAPE, save
from tests.runtime.engine.guesses.test_prompt_lookup import GRAMMARS, PLAIN, REPETITIVE, told
from tests.support import checkpoints
from tests.support.gguf_checkpoint import write_gguf

pytestmark = pytest.mark.skipif(library() is None, reason="no C++ compiler")

Factory = Callable[..., InferenceEngine]


def with_draft(folder: Path, draft: ModelConfig) -> ModelConfig:
    return ModelConfig(model_name=str(folder), device="cpu", dtype="fp32", speculative_model=draft)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of a model of three layers, of which the last adds little, and of those that guess for it."""
    shape: dict[str, Any] = SHAPE | {"initializer_range": 0.05}
    folder, model = save(tmp_path_factory.mktemp("target"), LlamaConfig(**shape))
    with torch.no_grad():
        model.get_parameter("lm_head.weight").mul_(10)
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            model.get_parameter(f"model.layers.2.{name}.weight").mul_(0.1)
    model.save_pretrained(folder)
    torch.manual_seed(1)
    random, _ = save(tmp_path_factory.mktemp("random"), LlamaConfig(**SHAPE))
    truncated = tmp_path_factory.mktemp("truncated")
    shorter = AutoModelForCausalLM.from_pretrained(folder)
    shorter.model.layers, shorter.config.num_hidden_layers = shorter.model.layers[:2], 2
    shorter.save_pretrained(truncated)
    for file in folder.glob("token*"):
        (truncated / file.name).write_bytes(file.read_bytes())
    gguf = write_gguf(tmp_path_factory.mktemp("gguf") / "m.gguf", shorter, checkpoints.padded_tokenizer(), GGMLQuantizationType.Q8_0)
    return {"target": folder, "equal": folder, "random": random, "truncated": truncated, "in 4 bits": folder, "a GGUF file": gguf}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def make_engine(folders: dict[str, Path]) -> Iterator[Factory]:
    engines: list[InferenceEngine] = []

    def make(draft: str | None = None, *, kv_cache_bytes: int | None = None, tokens: int | None = 4, **settings: Any) -> InferenceEngine:
        entry: dict[str, Any] = {"device": "cpu", "dtype": "fp32"}
        if draft is not None:
            held: dict[str, Any] = {"in 4 bits": {"quantization": "4bit"}, "a GGUF file": {}}.get(draft, {"dtype": "fp32"})
            entry |= {"speculative_model": ModelConfig(model_name=str(folders[draft]), **held), "speculative_tokens": tokens}
        loaded = ModelLoader().load(ModelConfig(model_name=str(folders["target"]), **entry))
        few: dict[str, Any] = {"prompt_lookup": False, "max_running": 6} | settings  # of many at a time none is guessed for
        engines.append(InferenceEngine.for_loaded_model(loaded, EngineSettings(**few), kv_cache_bytes))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture(scope="module")
def expected(folders: dict[str, Path]) -> Iterator[Callable[..., list[Any]]]:
    """What is said without guesses."""
    loaded = ModelLoader().load(ModelConfig(model_name=str(folders["target"]), device="cpu", dtype="fp32"))
    engine = InferenceEngine.for_loaded_model(loaded, EngineSettings(prompt_lookup=False))
    known: dict[str, list[Any]] = {}

    def say(**how: Any) -> list[Any]:
        return known.setdefault(repr(how), told(engine, together=False, **how))

    yield say
    assert engine.stats().draft_tokens == 0
    engine.close()


@pytest.mark.parametrize("draft", ["equal", "random", "truncated", "in 4 bits", "a GGUF file"])
def test_texts_are_the_same_token_by_token(draft: str, make_engine: Factory, expected: Callable[..., list[Any]]) -> None:
    engine = make_engine(draft)
    assert told(engine, together=False) == expected()
    stats = engine.stats().draft_model
    assert stats.tokens > 500
    share = stats.accepted / stats.tokens
    assert {"equal": share > 0.9, "random": share < 0.2, "in 4 bits": share > 0.2}.get(draft, share > 0.1), share
    assert told(engine, together=True) == expected()
    assert engine.stats().draft_model.tokens > stats.tokens
    if draft == "truncated":
        assert told(engine, together=True) == expected(), "with prefixes that are kept"


@pytest.mark.parametrize("grammar", GRAMMARS, ids=lambda grammar: grammar.kind)
def test_texts_in_a_grammar_are_the_same(grammar: Grammar, make_engine: Factory, expected: Callable[..., list[Any]]) -> None:
    engine = make_engine("truncated")
    assert told(engine, together=False, grammar=grammar) == expected(grammar=grammar)
    assert engine.stats().draft_model.accepted > 50
    assert told(engine, together=True, grammar=grammar) == expected(grammar=grammar)


@pytest.mark.parametrize("grammar", [None, GRAMMARS[1]], ids=["free", "regex"])
@pytest.mark.parametrize(
    "plan", [ThoughtPlan(REASONING_FORMATS["think"], "thought", 25), ThoughtPlan(tags("letters", "e", "o"), "undecided")]
)
def test_texts_with_thoughts_are_the_same(
    plan: ThoughtPlan, grammar: Grammar | None, make_engine: Factory, expected: Callable[..., list[Any]]
) -> None:
    engine = make_engine("truncated")
    assert told(engine, together=True, grammar=grammar, thoughts=plan) == expected(grammar=grammar, thoughts=plan)
    assert engine.stats().draft_model.accepted > 50


def test_an_equal_model_guesses_what_is_drawn_with_penalties_seeds_and_grammars(make_engine: Factory) -> None:
    engine = make_engine("equal")
    for number, config in enumerate(
        [
            GenerationConfig(temperature=1.5, seed=3),
            GenerationConfig(temperature=1.5, seed=3, top_p=0.9, top_k=40, frequency_penalty=1.0, repetition_penalty=1.3),
            GenerationConfig(temperature=1, seed=4, logit_bias={9: 4.0}, bad_words=("ab", "e"), presence_penalty=1.0),
            GenerationConfig(temperature=1, seed=5, grammar=Grammar("regex", "[a-z ]{200}")),
        ]
    ):
        before = engine.stats().draft_model
        list(engine.submit([PLAIN], msgspec.structs.replace(config, max_new_tokens=60, ignore_eos=True)))
        after = engine.stats().draft_model
        assert after.accepted - before.accepted > 0.8 * (after.tokens - before.tokens), number


def test_texts_are_the_same_where_room_is_scarce(make_engine: Factory, expected: Callable[..., list[Any]]) -> None:
    per_token = 2 * 3 * 3 * 16 * 4
    engine = make_engine("truncated", kv_cache_bytes=200 * per_token)
    assert told(engine, together=True) == expected()
    assert engine.stats().preemptions > 0 and engine.stats().draft_model.accepted > 0


def test_what_repeats_is_looked_up_first(make_engine: Factory, expected: Callable[..., list[Any]]) -> None:
    engine = make_engine("truncated", prompt_lookup=True)
    assert told(engine, together=True) == expected()
    stats = engine.stats()
    assert stats.lookup.accepted > 0 and stats.draft_model.accepted > 0


def test_a_request_may_go_without_and_usage_counts(make_engine: Factory) -> None:
    engine = make_engine("equal")
    config = GenerationConfig(max_new_tokens=60, temperature=0, ignore_eos=True)
    usage = list(engine.submit([REPETITIVE], msgspec.structs.replace(config, speculation=False)))[-1]
    assert isinstance(usage, Usage) and (usage.accepted_tokens, usage.rejected_tokens) == (0, 0)
    usage = list(engine.submit([REPETITIVE], config))[-1]
    stats = engine.stats()
    assert isinstance(usage, Usage) and 0 < usage.accepted_tokens == stats.accepted_tokens
    assert usage.rejected_tokens == stats.draft_tokens - stats.accepted_tokens


def test_a_draft_model_that_fails_costs_no_request(make_engine: Factory, expected: Callable[..., list[Any]], monkeypatch: Any) -> None:
    engine = make_engine("truncated")

    def fail(*_: object) -> None:
        raise RuntimeError("no numbers today")

    monkeypatch.setattr("mm_gateway.runtime.engine.guesses.draft_model.DraftModel._logits", fail)
    assert told(engine, together=True) == expected()
    assert engine.stats().draft_tokens == 0


def test_a_draft_with_other_tokens_is_refused_before_its_weights_are_read(folders: dict[str, Path], tmp_path: Path) -> None:
    other = checkpoints.qwen2(tmp_path)
    for file in other.glob("*.safetensors"):
        file.unlink()
    entry = with_draft(folders["target"], ModelConfig(model_name=str(other), device="cpu"))
    with pytest.raises(ModelLoadError, match="has other tokens, so it cannot guess"):
        ModelLoader().load(entry)


async def test_a_draft_with_other_tokens_is_told_at_the_start(
    folders: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager = RealModelManager()
    for draft in (folders["truncated"], folders["a GGUF file"], tmp_path / "nothing"):
        await LocalBackend("big", with_draft(folders["target"], ModelConfig(model_name="small", path=str(draft))), manager, 0).read_files()
    assert not caplog.records
    other = ModelConfig(model_name="other", path=str(checkpoints.qwen2(tmp_path)))
    await LocalBackend("big", with_draft(folders["target"], other), manager, 0).read_files()
    assert "big cannot be loaded: speculative_model: other has other tokens" in caplog.text
    manager.close()


def test_a_draft_with_a_draft_is_refused(folders: dict[str, Path]) -> None:
    small = ModelConfig(model_name=str(folders["truncated"]))
    with pytest.raises(ModelLoadError, match="has a speculative_model itself"):
        ModelLoader().load(with_draft(folders["target"], with_draft(folders["truncated"], small)))


def test_a_model_that_its_modules_compute_takes_no_draft(make_engine: Factory) -> None:
    with pytest.raises(ModelLoadError, match="speculative_model is for models whose layers are computed by one compiled call"):
        make_engine("equal", compiled_forward=False)
