"""Mixtures of experts on a CPU, in every precision: each expert is held and computed as any other layer is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.checkpoints.context_length import read_checkpoint_config
from mm_gateway.runtime.checkpoints.memory_estimate import weight_bytes
from mm_gateway.runtime.checkpoints.packed_experts import PackedExperts, are_experts
from mm_gateway.runtime.checkpoints.stored.stored_tensors import StoredTensors
from mm_gateway.runtime.model_loader import LoadedModel, ModelLoader
from tests.support.families import SERVED, Family, make_family

OF_EXPERTS = [family for family in SERVED if family.name in ("Qwen3Moe", "Mixtral", "Qwen2Moe", "Glm4Moe", "Glm4MoeLite", "DeepseekV3")]
# How far what an expert gives may be off.
PRECISIONS: dict[str, tuple[dict[str, Any], float]] = {
    "fp32": ({"dtype": "fp32"}, 1e-5),
    "fp16": ({"dtype": "fp16"}, 2e-3),
    "bf16": ({"dtype": "bf16"}, 1e-2),
    "8bit": ({"quantization": "8bit"}, 3e-2),
    "4bit": ({"quantization": "4bit"}, 0.2),
}


def load(folder: Path, **more: Any) -> LoadedModel:
    return ModelLoader().load(ModelConfig(model_name="m", path=str(folder), device="cpu", **more))


@pytest.mark.parametrize("family", OF_EXPERTS, ids=lambda family: family.name)
def test_each_precision_gives_what_transformers_does_as_closely_as_it_can(family: Family, tmp_path: Path) -> None:
    folder = make_family(tmp_path, family)
    reference: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    (theirs, *_) = (module for module in reference.modules() if are_experts(module))
    count, _, width = theirs.gate_up_proj.shape
    torch.manual_seed(0)
    x, weights = torch.randn(40, width), torch.rand(40, 2)
    chosen = torch.stack([torch.randperm(count)[:2] for _ in range(40)])
    with torch.no_grad():
        expected = theirs(x, chosen, weights)
    for precision, (entry, bound) in PRECISIONS.items():
        loaded = load(folder, **entry)
        (ours, *_) = (module for module in loaded.model.modules() if isinstance(module, PackedExperts))
        assert (ours(x, chosen, weights) - expected).norm() / expected.norm() < bound, precision
        assert not any(are_experts(module) for module in loaded.model.modules())
        # What is left, routers too, is computed in fp32.
        with torch.no_grad():
            assert loaded.model(torch.arange(8)[None]).logits.isfinite().all(), precision


@pytest.mark.parametrize("family", OF_EXPERTS, ids=lambda family: family.name)
def test_experts_that_are_stored_one_by_one_are_read_so(family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_family(tmp_path, family)
    assert any(".experts.1." in name for name in StoredTensors(folder).headers)
    reference: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def refuse(*_: object) -> None:
        raise AssertionError("read as a whole")

    monkeypatch.setattr("mm_gateway.runtime.checkpoints.weights._read_whole", refuse)
    ids = torch.arange(1, 30)[None]
    with torch.no_grad():
        ours, theirs = load(folder, dtype="fp32").model(ids).logits, reference(ids).logits
    assert (ours - theirs).abs().max() < 1e-3


def test_an_expert_that_is_missing_is_said(tmp_path: Path) -> None:
    folder = make_family(tmp_path, OF_EXPERTS[0])
    (file,) = folder.glob("*.safetensors")
    tensors = {name: tensor for name, tensor in load_file(file).items() if not name.endswith("layers.1.mlp.experts.1.up_proj.weight")}
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match=r"m: the checkpoint lacks 1 weights of experts for model\.layers\.\d\.mlp"):
        load(folder, quantization="8bit")


def test_a_row_does_not_depend_on_those_beside_it(tmp_path: Path) -> None:
    loaded = load(make_family(tmp_path, OF_EXPERTS[0]), quantization="8bit")
    (experts, *_) = (module for module in loaded.model.modules() if isinstance(module, PackedExperts))
    torch.manual_seed(0)
    x, chosen, weights = torch.randn(17, 144), torch.randint(0, 6, (17, 1)).repeat(1, 2), torch.rand(17, 2)
    chosen[:, 1] = (chosen[:, 0] + 1) % 6
    together = experts(x, chosen, weights)
    alone = torch.cat([experts(x[row : row + 1], chosen[row : row + 1], weights[row : row + 1]) for row in range(17)])
    assert torch.equal(together, alone)


@pytest.mark.parametrize("entry", [{"dtype": "fp32"}, {"dtype": "fp16"}, {"quantization": "8bit"}, {"quantization": "4bit"}])
def test_they_take_the_memory_that_was_foreseen(entry: dict[str, Any], tmp_path: Path) -> None:
    changes = {"hidden_size": 256, "head_dim": 32, "num_attention_heads": 8, "num_key_value_heads": 2, "num_hidden_layers": 2}
    experts = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 128}
    folder = make_family(tmp_path, Family("Qwen3Moe", {**changes, **experts}))
    loaded = load(folder, **entry)
    foreseen = weight_bytes(folder, loaded.config, read_checkpoint_config(folder), device_type="cpu")
    assert foreseen == pytest.approx(loaded.weight_bytes, rel=0.05)


def test_experts_of_another_kind_are_left_to_transformers() -> None:
    config = transformers.GptOssConfig(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_local_experts=2, vocab_size=32)
    model = AutoModelForCausalLM.from_config(config)
    assert not any(are_experts(module) for module in model.modules())
