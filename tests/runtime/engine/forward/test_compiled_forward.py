"""Models whose layers are computed by one compiled call: every family, in the proportions that real ones have, against transformers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    LlamaConfig,
    OlmoConfig,
    OPTConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import GenerationConfig, PromptTokens, TextDelta
from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.engine.forward import make_runner, model_runner
from mm_gateway.runtime.engine.forward.attention_hook import LayerCall
from mm_gateway.runtime.engine.forward.compiled_forward import CompiledForward
from mm_gateway.runtime.engine.forward.model_runner import ModelRunner
from mm_gateway.runtime.inference_engine import InferenceEngine
from mm_gateway.runtime.kernels.library import library, use_kernels
from mm_gateway.runtime.kv_cache.slot_attention import SlotAttention
from mm_gateway.runtime.model_loader import ModelConfig, ModelLoader
from tests.support import checkpoints
from tests.support.compiled_families import FAMILIES, SHAPE, with_changes
from tests.support.gguf_checkpoint import rewrite_gguf, write_gguf
from tests.support.qwen_v1_checkpoint import make_qwen_v1

LIBRARY = library()
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="no C++ compiler")

TOKENS = 12
FEWER_BITS = [{"dtype": "fp16"}, {"dtype": "bf16"}, {"quantization": "8bit"}, {"quantization": "4bit"}]
GREEDY = GenerationConfig(max_new_tokens=TOKENS, temperature=0, ignore_eos=True)
Factory = Callable[..., InferenceEngine]


@pytest.fixture
def make_engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Factory]:
    """Engines that are known to compute by the compiled call, or not to, as `compiled` says."""
    engines: list[InferenceEngine] = []
    made: list[CompiledForward | None] = []
    compile_forward = model_runner.compile_forward

    def noted(*args: Any) -> CompiledForward | None:
        made.append(compile_forward(*args))
        return made[-1]

    interpret = ModelRunner.interpret

    def given_up(runner: ModelRunner) -> None:
        interpret(runner)
        made[-1] = None

    monkeypatch.setattr(model_runner, "compile_forward", noted)
    monkeypatch.setattr(ModelRunner, "interpret", given_up)

    def make(
        folder: Path, *, compiled: bool = True, kv_cache_bytes: int | None = None, model: Any = None, **settings: Any
    ) -> InferenceEngine:
        made.clear()
        entry: dict[str, Any] = {"model_name": str(folder), "device": "cpu", "dtype": "fp32"} | (model or {})
        config = ModelConfig(**entry)
        engine = InferenceEngine.for_loaded_model(ModelLoader().load(config), EngineSettings(**settings), kv_cache_bytes)
        engines.append(engine)
        assert bool(made and made[-1]) is compiled
        return engine

    yield make
    for engine in engines:
        engine.close()


def save(folder: Path, config: PreTrainedConfig) -> tuple[Path, PreTrainedModel]:
    """A checkpoint of random weights; norms and biases are random too, so that no mistake in them is hidden."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
    checkpoints.padded_tokenizer().save_pretrained(folder)
    return folder, model


def prompt(length: int, seed: int = 1) -> list[int]:
    return torch.randint(1, 480, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def is_greedy(model: PreTrainedModel, ids: list[int], generated: list[int]) -> bool:
    """Whether each token is what transformers' greedy `generate` would choose there: the same, for one forward pass."""
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids + generated])).logits[0]
    return len(generated) == TOKENS and logits[len(ids) - 1 : -1].argmax(-1).tolist() == generated


def tokens_of(engine: InferenceEngine, prompts: list[list[int]]) -> list[list[int]]:
    generations = [engine.submit([ids], GREEDY) for ids in prompts]
    return [[token for event in generation if isinstance(event, TextDelta) for token in event.token_ids] for generation in generations]


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_equals_generate_alone_batched_and_chunked(family: str, tmp_path: Path, make_engine: Factory) -> None:
    folder, model = save(tmp_path, FAMILIES[family]())
    prompts = [prompt(length, seed=length) for length in (40, 1, 70, 3)]
    engine = make_engine(folder, max_step_tokens=48, prefix_cache=False)
    alone = tokens_of(engine, prompts[:1])  # in one step
    together = tokens_of(engine, prompts)  # in chunks
    assert together[:1] == alone
    assert all(is_greedy(model, ids, found) for ids, found in zip(prompts, together, strict=True))


def test_qwen_v1_is_compiled_as_qwen2(tmp_path: Path, make_engine: Factory) -> None:
    make_qwen_v1(tmp_path)
    assert len(tokens_of(make_engine(tmp_path), [prompt(9)])[0]) == TOKENS


def test_gpt2_as_wide_as_it_is_equals_generate(tmp_path: Path, make_engine: Factory) -> None:
    folder, model = save(tmp_path, GPT2Config(n_layer=4, initializer_range=0.14, bos_token_id=0, eos_token_id=0))
    prompts = [torch.randint(0, 50257, (length,), generator=torch.Generator().manual_seed(length)).tolist() for length in (130, 5)]
    found = tokens_of(make_engine(folder), prompts)
    assert all(is_greedy(model, ids, tokens) for ids, tokens in zip(prompts, found, strict=True))


@pytest.mark.parametrize("held", [{"dtype": "fp32"}, *FEWER_BITS])
@pytest.mark.parametrize("family", ["llama", "mistral, a window", "qwen2 moe, a dense layer", "gpt2"])
def test_not_a_bit_depends_on_chunks_or_neighbours(family: str, held: dict[str, str], tmp_path: Path, make_engine: Factory) -> None:
    folder, _ = save(tmp_path, FAMILIES[family]())
    whole = log_probabilities(make_engine(folder, model=held), 150)
    for chunk in (1, 7, 64):
        assert torch.equal(log_probabilities(make_engine(folder, model=held, max_step_tokens=chunk), 150), whole)
    busy = make_engine(folder, model=held, max_step_tokens=50)
    config = GenerationConfig(max_new_tokens=40, ignore_eos=True)
    others = [busy.submit([prompt(length, seed=length)], config) for length in range(5, 60, 5)]
    assert torch.equal(log_probabilities(busy, 150), whole)
    for other in others:
        list(other)


def test_a_prompt_longer_than_one_call_reuse_and_preemption_are_exact(tmp_path: Path, make_engine: Factory) -> None:
    folder, model = save(tmp_path, FAMILIES["mistral, a window"]())
    shared = prompt(300)
    prompts = [shared + prompt(length, seed=length) for length in (1, 30, 100)]
    engine = make_engine(folder)
    found = tokens_of(engine, prompts[:1]) + tokens_of(engine, prompts[1:])
    assert all(is_greedy(model, ids, tokens) for ids, tokens in zip(prompts, found, strict=True))
    assert engine.stats().cached_tokens >= 600
    per_token = 2 * 3 * 3 * 16 * 4
    scarce = make_engine(folder, kv_cache_bytes=70 * per_token)
    short = [prompt(12, seed=seed) for seed in range(6)]
    assert all(is_greedy(model, ids, tokens) for ids, tokens in zip(short, tokens_of(scarce, short), strict=True))
    assert scarce.stats().preemptions > 0


@pytest.mark.parametrize("family", ["llama", "mistral, a window"])
def test_scores_that_differ_widely_are_added_up_as_exactly(family: str, tmp_path: Path, make_engine: Factory) -> None:
    folder, model = save(tmp_path, FAMILIES[family]())
    with torch.no_grad():
        for layer in model.base_model.layers:  # type: ignore[union-attr]
            layer.self_attn.q_proj.weight *= 30  # type: ignore[union-attr, operator]
    model.save_pretrained(folder)
    ids = prompt(300)
    with torch.inference_mode():
        expected = model.double()(input_ids=torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    found = log_probabilities(make_engine(folder), 300)
    assert torch.allclose(found.double(), expected[range(299), ids[1:]], atol=4e-3)  # transformers in fp32 is 2.8e-3 off


@pytest.mark.parametrize("kernels", ["portable", "avx2", "avx512_vnni", "amx"])
@pytest.mark.parametrize("family", ["qwen3", "gpt2", "gpt neox", "gemma 2"])
def test_every_instruction_set_is_exact(family: str, kernels: str, tmp_path: Path, make_engine: Factory) -> None:
    assert LIBRARY is not None
    try:
        use_kernels(LIBRARY, kernels)
    except ValueError:
        pytest.skip(f"this processor has no {kernels}")
    try:
        folder, model = save(tmp_path, FAMILIES[family]())
        prompts = [prompt(length, seed=length) for length in (2, 90)]
        found = tokens_of(make_engine(folder), prompts)
        assert all(is_greedy(model, ids, tokens) for ids, tokens in zip(prompts, found, strict=True))
    finally:
        use_kernels(LIBRARY, "")


def log_probabilities(engine: InferenceEngine, length: int = 50) -> torch.Tensor:
    """Of the tokens of a prompt, [length - 1]."""
    events = list(engine.submit([prompt(length)], GenerationConfig(max_new_tokens=1, temperature=0, logprobs=1, prompt_logprobs=1)))
    tokens = next(event for event in events if isinstance(event, PromptTokens)).logprobs
    return torch.tensor([token.logprob for token in tokens if token.logprob is not None])


@pytest.mark.parametrize("family", ["llama", "gpt neox", "qwen2 moe, a dense layer"])
def test_what_is_drawn_does_not_depend_on_which_other_rows_are_wanted(family: str, tmp_path: Path, make_engine: Factory) -> None:
    folder, _ = save(tmp_path, FAMILIES[family]())
    engine = make_engine(folder, model={"quantization": "8bit", "kv_cache_dtype": "fp32"}, prefix_cache=False)
    found: list[list[float | None]] = []
    for scored in (None, 1):
        config = GenerationConfig(max_new_tokens=3, temperature=0, ignore_eos=True, logprobs=1, prompt_logprobs=scored)
        events = list(engine.submit([prompt(300)], config))
        found.append([token.logprob for event in events if isinstance(event, TextDelta) for token in event.logprobs or ()])
    assert found[0] == found[1] and len(found[0]) == 3


@pytest.mark.parametrize("held", FEWER_BITS)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_other_precisions_compute_what_the_modules_compute(family: str, held: dict[str, str], tmp_path: Path, make_engine: Factory) -> None:
    folder, _ = save(tmp_path, FAMILIES[family]())
    compiled = log_probabilities(make_engine(folder, model=held | {"kv_cache_dtype": "fp32"}))
    interpreted = log_probabilities(make_engine(folder, model=held, compiled=False, compiled_forward=False))
    assert (compiled - interpreted).abs().mean() < (1e-4 if "dtype" in held else 0.1)


def rounded(cells: str, x: torch.Tensor) -> torch.Tensor:
    """Keys or values [1, kv_heads, rows, head_dim] as a cache of `cells` gives them back."""
    if cells == "fp16":
        return x.half().float()
    parts = [(part * (127 / most)).round() * (most / 127) for part in x.split(32, dim=-1) for most in [part.abs().amax(-1, keepdim=True)]]
    return torch.cat(parts, dim=-1)


@pytest.mark.parametrize("cells", ["fp16", "int8"])
@pytest.mark.parametrize("family", ["llama", "llama, wide heads, one key head", "mistral, a window", "gemma 3", "gpt2"])
def test_a_cache_of_fewer_bits_is_the_models_own_attention_over_what_was_rounded(
    family: str, cells: str, tmp_path: Path, make_engine: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert LIBRARY is not None
    folder, _ = save(tmp_path, FAMILIES[family]())
    found: dict[str, torch.Tensor] = {}
    try:
        for kernels in ("portable", "avx2", "avx512_vnni"):
            try:
                use_kernels(LIBRARY, kernels)
            except ValueError:
                continue  # not of this processor
            found[kernels] = log_probabilities(make_engine(folder, model={"kv_cache_dtype": cells}, max_step_tokens=64), 200)
    finally:
        use_kernels(LIBRARY, "")
    attend = SlotAttention.__call__

    def over_rounded(
        self: SlotAttention, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *rest: Any
    ) -> torch.Tensor:
        return attend(self, layer, query, rounded(cells, key), rounded(cells, value), *rest)

    monkeypatch.setattr(SlotAttention, "__call__", over_rounded)
    monkeypatch.setattr(make_runner, "verify", lambda *_, **__: None)
    expected = log_probabilities(make_engine(folder, compiled=False, compiled_forward=False), 200)
    for kernels, close in found.items():
        # A number between two places of the rounding may fall to either, as sums are taken in another order.
        assert (close - expected).abs().mean() < (1e-3 if cells == "fp16" else 1e-2), kernels


def test_a_cache_is_as_exact_as_the_weights_by_default(tmp_path: Path, make_engine: Factory) -> None:
    folder, _ = save(tmp_path, FAMILIES["llama"]())
    sizes = {
        dtype: make_engine(folder, model={"dtype": dtype, "kv_cache_dtype": cells}).kv_cache_bytes
        for dtype, cells in (("fp32", "auto"), ("fp16", "auto"), ("bf16", "int8"))
    }
    assert sizes["fp32"] == 2 * sizes["fp16"] > 2 * sizes["bf16"]


def test_keys_beyond_sixteen_bits_are_kept_in_thirty_two(tmp_path: Path, make_engine: Factory, caplog: pytest.LogCaptureFixture) -> None:
    folder, model = save(tmp_path, FAMILIES["qwen2"]())
    with torch.no_grad():
        for layer in model.base_model.layers:  # type: ignore[union-attr]
            layer.self_attn.k_proj.bias += 1e5  # type: ignore[union-attr, operator]
    model.save_pretrained(folder)
    with caplog.at_level(logging.WARNING):
        engine = make_engine(folder, model={"quantization": "8bit"})
    assert "not compiled with a cache of fp16" in caplog.text
    assert torch.isfinite(log_probabilities(engine)).all()
    with pytest.raises(ModelLoadError, match="kv_cache_dtype: fp16"):
        make_engine(folder, model={"kv_cache_dtype": "fp16"})


@pytest.mark.parametrize("kinds", [("Q4_0", "Q4_0", "Q8_0"), ("Q5_0", "Q8_0", "Q5_0"), ("Q4_1", "F16", "Q4_1"), ("Q8_0", "Q8_0", "F32")])
def test_projections_of_one_input_may_differ_in_kind(kinds: tuple[str, ...], tmp_path: Path, make_engine: Factory) -> None:
    folder, model = save(tmp_path, LlamaConfig(**with_changes(hidden_size=160, num_attention_heads=5, num_key_value_heads=1)))
    of_layer = dict(zip(("attn_q", "attn_k", "attn_v", "ffn_gate", "ffn_up"), (*kinds, *kinds[1:]), strict=True))

    def encode(name: str, numbers: np.ndarray) -> tuple[np.ndarray, GGMLQuantizationType]:
        kind = GGMLQuantizationType[next((of_layer[part] for part in of_layer if part in name), "F32")]
        return (numbers if kind == GGMLQuantizationType.F32 else gguf.quantize(numbers, kind)), kind

    plain = write_gguf(tmp_path / "plain.gguf", model, AutoTokenizer.from_pretrained(folder))
    held = {"model_name": "mixed", "path": str(rewrite_gguf(plain, tmp_path / "mixed.gguf", encode)), "dtype": "auto"}
    compiled = log_probabilities(make_engine(folder, model=held))
    interpreted = log_probabilities(make_engine(folder, model=held, compiled=False, compiled_forward=False))
    assert (compiled - interpreted).abs().mean() < 0.1


def test_what_it_cannot_compute_is_left_to_the_modules(tmp_path: Path, make_engine: Factory) -> None:
    odds: list[dict[str, Any]] = [{"hidden_act": "tanh"}, {"intermediate_size": 200}]
    for index, odd in enumerate(odds):
        folder, model = save(tmp_path / str(index), LlamaConfig(**with_changes(**odd)))
        engine = make_engine(folder, compiled=False)
        assert is_greedy(model, prompt(9), tokens_of(engine, [prompt(9)])[0])


def test_other_families_are_left_to_the_modules(tmp_path: Path, make_engine: Factory) -> None:
    others = [OPTConfig(**with_changes(ffn_dim=384, word_embed_proj_dim=144)), OlmoConfig(**SHAPE, clip_qkv=0.5)]
    for index, config in enumerate(others):
        folder, model = save(tmp_path / str(index), config)
        engine = make_engine(folder, compiled=False)
        assert is_greedy(model, prompt(9), tokens_of(engine, [prompt(9)])[0])


def test_soft_capped_scores_are_computed_by_the_call_or_refused(tmp_path: Path) -> None:
    folder, _ = save(tmp_path, FAMILIES["gemma 2"]())
    loaded = ModelLoader().load(ModelConfig(model_name=str(folder), device="cpu", dtype="fp32"))
    with pytest.raises(ModelLoadError, match=r"softcap.*compiled_forward: true"):
        InferenceEngine.for_loaded_model(loaded, EngineSettings(compiled_forward=False))


def test_a_compiled_model_that_computes_something_else_is_not_used(
    tmp_path: Path, make_engine: Factory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder, model = save(tmp_path, FAMILIES["llama"]())
    monkeypatch.setattr("mm_gateway.runtime.engine.forward.attention_hook.AttentionProbe.calls", _other_scores)
    with caplog.at_level(logging.WARNING):
        engine = make_engine(folder, compiled=False)
    assert "not compiled with a cache of fp32" in caplog.text
    assert is_greedy(model, prompt(9), tokens_of(engine, [prompt(9)])[0])


def _other_scores(probe: Any) -> list[Any]:
    return [LayerCall(scaling=1.0, window=None) for _ in range(3)]
