"""A GGUF file in the layout of llama.cpp's converter computes what the model computed that it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from gguf import GGMLQuantizationType
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.core import GenerationConfig, TextDelta
from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.checkpoints.context_length import read_checkpoint_config
from mm_gateway.runtime.checkpoints.files import checkpoint_folder
from mm_gateway.runtime.checkpoints.gguf.header import read_header
from mm_gateway.runtime.checkpoints.gguf.kept_blocks import KEPT
from mm_gateway.runtime.checkpoints.memory_estimate import weight_bytes
from mm_gateway.runtime.checkpoints.packed_experts import PackedExperts
from mm_gateway.runtime.checkpoints.packed_linear import KernelLinear, block_bytes
from mm_gateway.runtime.checkpoints.stored.tensor_source import GgufSource
from mm_gateway.runtime.inference_engine import InferenceEngine
from mm_gateway.runtime.kernels.block_linear import BlockLinear
from mm_gateway.runtime.kernels.blocks import Blocks
from mm_gateway.runtime.model_loader import ModelLoader
from tests.support.checkpoints import CHATML, make_tokenizer
from tests.support.gguf_checkpoint import write_gguf
from tests.support.gguf_rows import MIXTURES, SHAPE, configurations

TEXT = "The quick brown fox jumps over the lazy dog and 你好"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    made = make_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], bos_token="<|endoftext|>", eos_token="<|im_end|>")
    made.chat_template = CHATML
    return made


def random_model(config: PreTrainedConfig) -> PreTrainedModel:
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim == 1:  # norms that are all one, and biases that are all zero, would hide a fault
            parameter += torch.randn_like(parameter) * 0.1
    return model


def largest_difference(model: PreTrainedModel, other: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> float:
    """Of all logits, in standard deviations."""
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        expected, found = model(ids).logits, other(ids).logits
    return float((expected - found).abs().max() / expected.std())


@pytest.mark.parametrize("name", configurations(480))
def test_each_architecture_computes_what_its_model_did(name: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    model = random_model(configurations(len(tokenizer))[name])
    file = write_gguf(tmp_path / "model.gguf", model, tokenizer)
    loaded = ModelLoader().load(ModelConfig(model_name="m", path=str(file), device="cpu"))
    assert largest_difference(model, loaded.model, tokenizer) < 1e-4
    assert loaded.tokenizer(TEXT)["input_ids"] == tokenizer(TEXT)["input_ids"]
    assert loaded.stop_token_ids >= {2}
    assert loaded.context_length == model.config.max_position_embeddings


def test_rotary_frequencies_stored_as_a_tensor_are_divided_by_its_factors(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    scaling = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling["original_max_position_embeddings"] = 64
    model = random_model(transformers.LlamaConfig(vocab_size=len(tokenizer), **SHAPE, rope_parameters=scaling))
    plain = 1.0 / 10000.0 ** (torch.arange(0, 32, 2) / 32)
    factors = (plain / model.model.rotary_emb.inv_freq).numpy().astype(np.float32)
    assert factors.max() > 2
    file = write_gguf(tmp_path / "model.gguf", model, tokenizer, tensors={"rope_freqs.weight": factors})
    loaded = ModelLoader().load(ModelConfig(model_name="m", path=str(file), device="cpu"))
    assert largest_difference(model, loaded.model, tokenizer) < 1e-4


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "BF16"])
def test_quantized_files_compute_with_what_their_blocks_stand_for(kind: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    number = GGMLQuantizationType[kind]
    model = random_model(configurations(len(tokenizer))["llama"])
    file = write_gguf(tmp_path / "model.gguf", model, tokenizer, number)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            stored = gguf.quantize(parameter.numpy(), number)
            parameter.copy_(torch.from_numpy(gguf.dequantize(stored, number)))
    loaded = ModelLoader().load(ModelConfig(model_name="m", path=str(file), device="cpu", dtype="fp32"))
    assert largest_difference(model, loaded.model, tokenizer) < 1e-4


@pytest.mark.parametrize("kind", KEPT, ids=lambda kind: kind.name)
def test_any_bytes_of_a_kept_kind_mean_what_the_package_gguf_says(kind: GGMLQuantizationType) -> None:
    items, size = gguf.GGML_QUANT_SIZES[kind]
    stored = np.random.default_rng(3).integers(0, 256, (6 * 512 // items, size), dtype=np.uint8)
    scales = np.random.default_rng(4).random((len(stored), 2)).astype(np.float16).view(np.uint8)
    # Numbers of 16 bits are at the end of Q6_K's and Q3_K's blocks, and at the beginning of the others.
    at = size - 2 if kind.name in ("Q6_K", "Q3_K") else 0
    wide = 4 if kind.name in ("Q4_1", "Q5_1", "Q4_K", "Q5_K") else 2
    stored[:, at : at + wide] = scales[:, :wide]
    blocks = KEPT[kind].blocks(stored, 6, 512)
    numbers = torch.from_numpy(gguf.dequantize(stored, kind)).reshape(6, 512)
    assert torch.allclose(blocks.dequantize(), numbers, rtol=1e-6, atol=1e-6)
    assert blocks.kind == (KEPT[kind].bits, KEPT[kind].fine)
    layer = BlockLinear(blocks, None)
    assert torch.allclose(layer.rows(torch.arange(6)), numbers, rtol=1e-6, atol=1e-6)
    rows = 6 / 16  # of a whole panel
    assert rows * layer.nbytes == pytest.approx(block_bytes(blocks.bits, fine=blocks.kind[1]) * 6 * 512)


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_blocks_that_our_kernels_know_stay_as_they_are(kind: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    model = random_model(configurations(len(tokenizer))["llama"])
    header = read_header(write_gguf(tmp_path / "model.gguf", model, tokenizer, GGMLQuantizationType[kind]))
    kept, unpacked = GgufSource(header, keep_blocks=True), GgufSource(header, keep_blocks=False)
    for name in ("model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.down_proj.weight", "lm_head.weight"):
        blocks, numbers = kept.read_layer(name, torch.float32), unpacked.read_layer(name, torch.float32)
        assert isinstance(blocks, Blocks)
        assert isinstance(numbers, torch.Tensor)
        assert torch.equal(blocks.dequantize(), numbers)


def test_a_model_held_in_its_blocks_computes_nearly_the_same_and_takes_what_was_foreseen(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = random_model(configurations(len(tokenizer))["llama"])
    file = write_gguf(tmp_path / "model.gguf", model, tokenizer, GGMLQuantizationType.Q4_0)
    loaded, whole = (
        ModelLoader().load(ModelConfig(model_name="m", path=str(file), device="cpu", dtype=dtype)) for dtype in ("auto", "fp32")
    )
    assert largest_difference(whole.model, loaded.model, tokenizer) < 0.3  # activations are rounded to 8 bits
    assert loaded.weight_bytes < whole.weight_bytes / 3
    folder = checkpoint_folder(loaded.config, lambda _: None)
    for each in (loaded, whole):
        foreseen = weight_bytes(folder, each.config, read_checkpoint_config(folder), device_type="cpu")
        assert foreseen == pytest.approx(each.weight_bytes, rel=0.05)


@pytest.mark.parametrize("name", MIXTURES)
def test_mixtures_of_experts_write_what_transformers_writes(name: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    model: Any = random_model(configurations(len(tokenizer))[name])
    loaded = ModelLoader().load(ModelConfig(model_name="m", path=str(write_gguf(tmp_path / "m.gguf", model, tokenizer)), device="cpu"))
    engine = InferenceEngine.for_loaded_model(loaded, EngineSettings(max_running=4, max_step_tokens=16))
    prompts = [engine.encode(text) for text in ("Hello", TEXT * 2)]
    generations = [engine.submit([prompt], GenerationConfig(max_new_tokens=20, temperature=0, ignore_eos=True)) for prompt in prompts]
    found = [[token for event in each if isinstance(event, TextDelta) for token in event.token_ids] for each in generations]
    engine.close()
    options = {"max_new_tokens": 20, "min_new_tokens": 20, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    with torch.inference_mode():
        assert found == [model.generate(torch.tensor([prompt]), **options)[0, len(prompt) :].tolist() for prompt in prompts]


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
@pytest.mark.parametrize("name", MIXTURES)
def test_experts_stay_in_their_blocks(name: str, kind: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    model = random_model(configurations(len(tokenizer))[name])
    file = write_gguf(tmp_path / "model.gguf", model, tokenizer, GGMLQuantizationType[kind])
    loaded = ModelLoader().load(ModelConfig(model_name="m", path=str(file), device="cpu"))
    whole = ModelLoader().load(ModelConfig(model_name="m", path=str(file), device="cpu", dtype="fp32"))
    assert loaded.weight_bytes < whole.weight_bytes / 3
    folder = checkpoint_folder(loaded.config, lambda _: None)
    for each in (loaded, whole):
        foreseen = weight_bytes(folder, each.config, read_checkpoint_config(folder), device_type="cpu")
        assert foreseen == pytest.approx(each.weight_bytes, rel=0.05)
    mixtures = [[module for module in each.model.modules() if isinstance(module, PackedExperts)] for each in (loaded, whole)]
    layers = list(zip(*mixtures, strict=True))
    assert len(layers) == 3
    for packed, numbers in layers:
        assert all(isinstance(layer, KernelLinear) and layer.bits == int(kind[1]) for layer in (*packed.gate_up, *packed.down))
        x = torch.randn(8, 192)
        chosen, weights = torch.tensor([[0, 3]]).repeat(8, 1), torch.rand(8, 2)
        expected = numbers(x, chosen, weights)
        assert (packed(x, chosen, weights) - expected).norm() < 0.03 * expected.norm()  # activations are rounded to 8 bits


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"expert_gating_func": 2}, "its experts are chosen in a way that is not read from GGUF"),
        ({"expert_weights_scale": 2.5}, "the weights of its experts are scaled"),
        ({"leading_dense_block_count": 1}, r"qwen3moe\.leading_dense_block_count"),
    ],
)
def test_experts_that_are_chosen_otherwise_are_refused(
    changed: dict[str, float], says: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    file = write_gguf(tmp_path / "m.gguf", random_model(configurations(len(tokenizer))["qwen3moe"]), tokenizer, extra=changed)
    with pytest.raises(ModelLoadError, match=says):
        ModelLoader().load(ModelConfig(model_name="m", path=str(file), device="cpu"))


def test_experts_that_are_stored_one_by_one_are_refused(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    gate = np.zeros((8, 8), dtype=np.float32)
    model = random_model(configurations(len(tokenizer))["mixtral"])
    file = write_gguf(tmp_path / "m.gguf", model, tokenizer, tensors={"blk.0.ffn_gate.0.weight": gate})
    with pytest.raises(ModelLoadError, match="experts are stored one by one, as files were before April 2024"):
        ModelLoader().load(ModelConfig(model_name="m", path=str(file), device="cpu"))


def test_an_architecture_that_is_not_read_is_named(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(str(tmp_path / "m.gguf"), "deepseek2")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelLoadError, match=r"a model of architecture deepseek2; read from GGUF are llama, .*qwen3moe"):
        ModelLoader().load(ModelConfig(model_name="m", path=str(tmp_path / "m.gguf"), device="cpu"))


def test_a_property_that_nobody_reads_is_refused_by_its_name(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    model = random_model(configurations(len(tokenizer))["llama"])
    file = write_gguf(tmp_path / "model.gguf", model, tokenizer, extra={"attention.temperature_scale": 0.5})
    with pytest.raises(ModelLoadError, match=r"llama\.attention\.temperature_scale"):
        ModelLoader().load(ModelConfig(model_name="m", path=str(file), device="cpu"))


def test_a_quantization_that_contradicts_the_file_is_refused(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    model = random_model(configurations(len(tokenizer))["llama"])
    file = write_gguf(tmp_path / "model.gguf", model, tokenizer, GGMLQuantizationType.Q4_0)
    with pytest.raises(ModelLoadError, match=r"quantized already \(Q4_0\)"):
        ModelLoader().load(ModelConfig(model_name="m", path=str(file), device="cpu", quantization="8bit"))
