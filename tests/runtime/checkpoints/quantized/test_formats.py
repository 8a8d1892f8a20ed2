"""What a checkpoint says of its quantization, and what is configured beside it: equal, contradicting, unknown, incomplete."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.checkpoints.memory_estimate import estimate
from mm_gateway.runtime.checkpoints.quantized.formats import FORMATS, format_of, is_unpacked
from mm_gateway.runtime.model_loader import ModelLoader
from tests.support import checkpoints
from tests.support.quantized.awq import write_awq
from tests.support.quantized.compressed import write_float, write_packed, write_w8a8
from tests.support.quantized.fp8 import write_fp8

SAID: dict[str, dict[str, Any]] = {
    "gptq": {"quant_method": "gptq", "bits": 4},
    "awq": {"quant_method": "awq", "bits": 4},
    "compressed-tensors": {"quant_method": "compressed-tensors", "format": "pack-quantized"},
    "fp8": {"quant_method": "fp8"},
    "mxfp4": {"quant_method": "mxfp4"},
    "bitsandbytes": {"quant_method": "bitsandbytes", "load_in_4bit": True},
    "torchao": {"quant_method": "torchao"},
}


def say(folder: Path, quantization: dict[str, Any] | None) -> Path:
    config = json.loads(file.read_text()) if (file := folder / "config.json").is_file() else {}
    file.write_text(json.dumps(config | {"quantization_config": quantization}))
    return folder


def config_of(folder: Path, quantization: Any = None, **more: Any) -> ModelConfig:
    return ModelConfig(model_name=str(folder), device="cpu", quantization=quantization, **more)


@pytest.mark.parametrize("stored", SAID)
def test_what_is_configured_agrees_with_the_files_or_is_an_error_that_says_what_they_are(tmp_path: Path, stored: str) -> None:
    say(tmp_path, SAID[stored])
    agreeing = {None, stored} | ({"4bit"} if stored == "bitsandbytes" else set())
    for value in FORMATS:
        if value in agreeing:
            assert format_of(tmp_path, config_of(tmp_path, value)).name == stored
        else:
            with pytest.raises(
                ModelLoadError, match=f"quantization: {value} is configured, but .* set quantization: {stored}, or leave it out"
            ):
                format_of(tmp_path, config_of(tmp_path, value))


def test_a_checkpoint_that_is_not_quantized_takes_no_name_of_a_format(tmp_path: Path) -> None:
    say(tmp_path, None)
    assert format_of(tmp_path, config_of(tmp_path, "8bit")).name == "8bit"
    for stored in SAID:
        with pytest.raises(ModelLoadError, match=r"not quantized with .* leave quantization out, or set 8bit or 4bit"):
            format_of(tmp_path, config_of(tmp_path, stored))


def test_8bit_beside_an_8_bit_checkpoint_of_bitsandbytes_says_the_same(tmp_path: Path) -> None:
    say(tmp_path, {"quant_method": "bitsandbytes", "load_in_8bit": True, "load_in_4bit": False})
    assert format_of(tmp_path, config_of(tmp_path, "8bit")).name == "bitsandbytes"
    with pytest.raises(ModelLoadError, match="set quantization: bitsandbytes"):
        format_of(tmp_path, config_of(tmp_path, "4bit"))


def test_a_contradiction_is_found_before_any_weight_is_read(tmp_path: Path) -> None:
    folder = say(checkpoints.llama(tmp_path), SAID["awq"])
    (folder / "model.safetensors").unlink()
    for quantization in ("8bit", "fp8"):
        with pytest.raises(ModelLoadError, match="quantized with AWQ already"):
            ModelLoader().load(config_of(folder, quantization))
        with pytest.raises(ModelLoadError, match="quantized with AWQ already"):
            ModelLoader().prepare(config_of(folder, quantization), EngineSettings(), lambda device: None)


def test_a_format_without_a_row_is_named(tmp_path: Path) -> None:
    folder = say(checkpoints.llama(tmp_path), {"quant_method": "hqq"})
    with pytest.raises(ModelLoadError, match="quantized with hqq, which is read by transformers on a GPU only"):
        ModelLoader().load(config_of(folder))
    form = format_of(folder, config_of(folder))
    assert not is_unpacked(folder, form, "cuda")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"quant_method": "awq", "bits": 4, "version": "gemv"}, "AWQ with 4 bits in the layout gemv is not supported"),
        ({"quant_method": "gptq", "bits": 5}, "GPTQ with 5 bits is not supported"),
        ({"quant_method": "compressed-tensors", "format": "marlin-24"}, "the format marlin-24 of compressed-tensors"),
        ({"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"}, "the format nvfp4-pack-quantized of compressed-tensors"),
        (
            {"quant_method": "compressed-tensors", "format": "dense", "sparsity_config": {"format": "sparse-24-bitmask"}},
            "the format dense of compressed-tensors",
        ),
        (
            {"quant_method": "compressed-tensors", "format": "int-quantized", "transform_config": {"config_groups": {"R1": {}}}},
            "rotated by compressed-tensors' transforms",
        ),
    ],
)
def test_a_variant_that_is_not_read_is_named(tmp_path: Path, said: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelLoadError, match=words):
        ModelLoader().load(config_of(say(checkpoints.llama(tmp_path), said)))


@pytest.mark.parametrize(
    ("write", "part", "words"),
    [
        (write_awq, "qzeros", "AWQ layer model.layers.0.mlp.up_proj lacks qzeros"),
        (write_packed, "weight_packed", "up_proj has a scale and no weight"),
        (write_packed, "weight_shape", "up_proj lacks weight_shape"),
        (write_fp8, "weight_scale_inv", "weight model.layers.0.mlp.up_proj.weight has no scale"),
    ],
)
def test_a_part_that_is_missing_is_named(tmp_path: Path, write: Any, part: str, words: str) -> None:
    folder = checkpoints.llama(tmp_path, hidden_size=96, num_attention_heads=6, intermediate_size=192)
    write(folder)
    stored = load_file(folder / "model.safetensors")
    del stored[f"model.layers.0.mlp.up_proj.{part}"]
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match=words):
        ModelLoader().load(config_of(folder))


def test_weights_without_a_place_are_an_error_and_biases_of_zeros_are_none(tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path, hidden_size=96, num_attention_heads=6, intermediate_size=192)
    write_awq(folder)
    stored = load_file(folder / "model.safetensors")
    stored["model.layers.0.mlp.up_proj.bias"] = torch.zeros(192)
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    ModelLoader().load(config_of(folder))
    stored["model.layers.0.mlp.act_fn.scales"] = torch.ones(192)  # AWQ scales activations of some families
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match=r"1 tensors that the model has no place for \(model\.layers\.0\.mlp\.act_fn\.scales"):
        ModelLoader().load(config_of(folder))


def test_on_a_gpu_weights_count_as_they_are_stored_where_their_package_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checkpoints.llama(tmp_path, hidden_size=96, num_attention_heads=6, intermediate_size=192)
    write_w8a8(folder)

    def need() -> int:
        return estimate(folder, config_of(folder), EngineSettings(), device_type="cuda", budget_bytes=None).weight_bytes

    finder = "mm_gateway.runtime.checkpoints.quantized.format.find_spec"
    monkeypatch.setattr(finder, lambda name: None)
    unpacked = need()
    monkeypatch.setattr(finder, lambda name: object())
    files = (folder / "model.safetensors").stat().st_size
    assert need() == pytest.approx(files, rel=0.1)
    assert unpacked > 1.4 * need()


@pytest.mark.parametrize(("variant", "unpacked"), [({}, False), ({"symmetric": False}, True), ({"reordered": True}, True)])
def test_what_transformers_reads_wrongly_or_not_at_all_is_unpacked_on_a_gpu(
    tmp_path: Path, variant: dict[str, bool], unpacked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoints.llama(tmp_path, hidden_size=96, num_attention_heads=6, intermediate_size=192)
    write_packed(folder, **variant)
    monkeypatch.setattr("mm_gateway.runtime.checkpoints.quantized.format.find_spec", lambda name: object())
    assert is_unpacked(folder, format_of(folder, config_of(folder)), "cuda") is unpacked


@pytest.mark.parametrize("stored", ["fp8", "mxfp4"])
def test_kernels_of_the_hub_are_used_by_who_asks_for_them(tmp_path: Path, stored: str, monkeypatch: pytest.MonkeyPatch) -> None:
    form = format_of(say(tmp_path, SAID[stored]), config_of(tmp_path))
    monkeypatch.setattr("mm_gateway.runtime.checkpoints.quantized.format.find_spec", lambda name: object())
    for value, packed in (("0", False), ("1", True)):  # the loader itself sets 0
        monkeypatch.setenv("USE_HUB_KERNELS", value)
        assert form.stays_packed("cuda") is packed
        assert is_unpacked(tmp_path, form, "cuda") is not packed
        assert not form.stays_packed("cpu")


def test_experts_that_transformers_joins_are_unpacked_and_foreseen_so(tmp_path: Path) -> None:
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    tokenizer = checkpoints.make_tokenizer(["<unk>", "<s>", "</s>"], unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    shape: dict[str, Any] = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 16}
    config = Qwen3MoeConfig(
        vocab_size=len(tokenizer), **shape, intermediate_size=192, moe_intermediate_size=96, num_experts=4, num_experts_per_tok=2
    )
    torch.manual_seed(0)
    reference = Qwen3MoeForCausalLM(config).eval()
    reference.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    meant = write_float(tmp_path, strategy="channel")
    assert any(".experts.3." in name for name in meant)
    plain = tmp_path / "plain"
    plain.mkdir()
    for file in tmp_path.glob("*.json"):
        (plain / file.name).write_bytes(file.read_bytes())
    say(plain, None)
    save_file(meant, plain / "model.safetensors", metadata={"format": "pt"})
    ids = torch.arange(1, 30)[None]
    with torch.inference_mode():
        expected = Qwen3MoeForCausalLM.from_pretrained(plain, dtype=torch.float32)(ids).logits
        loaded = ModelLoader().load(config_of(tmp_path, dtype="fp32"))
        assert (loaded.model(ids).logits - expected).abs().max() < 1e-4 * expected.std()
    need = estimate(tmp_path, config_of(tmp_path, dtype="fp32"), EngineSettings(), device_type="cpu", budget_bytes=None)
    assert need.weight_bytes == pytest.approx(loaded.weight_bytes, rel=0.05)
