"""The experts of gpt-oss: read as an independent dequantization reads them; the model itself is refused for its attention."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import GptOssConfig, GptOssForCausalLM
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.checkpoints.context_length import read_checkpoint_config
from mm_gateway.runtime.checkpoints.memory_estimate import weight_bytes
from mm_gateway.runtime.checkpoints.quantized.formats import format_of
from mm_gateway.runtime.checkpoints.quantized.source import QuantizedSource
from mm_gateway.runtime.checkpoints.stored.stored_tensors import StoredTensors
from mm_gateway.runtime.model_loader import ModelLoader
from tests.support.checkpoints import make_tokenizer
from tests.support.quantized.mxfp4 import write_mxfp4


@pytest.fixture(scope="module")
def gpt_oss(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """(folder, the weights that it stands for)."""
    folder = tmp_path_factory.mktemp("gpt-oss")
    tokenizer = make_tokenizer(["<unk>", "<s>", "</s>"], unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    config = GptOssConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=160,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=16,
        num_local_experts=3,
        num_experts_per_tok=2,
    )
    torch.manual_seed(0)
    GptOssForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, write_mxfp4(folder)


def test_experts_are_what_their_blocks_and_exponents_stand_for(gpt_oss: tuple[Path, dict[str, torch.Tensor]]) -> None:
    folder, meant = gpt_oss
    config = ModelConfig(model_name=str(folder), device="cpu")
    stored = StoredTensors(folder)
    layers = format_of(folder, config).layers(stored)
    source = QuantizedSource(stored, layers, keep_blocks=True)
    assert sorted(layers) == [f"model.layers.{layer}.mlp.experts.{name}" for layer in (0, 1) for name in ("down_proj", "gate_up_proj")]
    assert {name: tuple(tensor.shape) for name, tensor in meant.items()} == source.shapes
    for name, layer in layers.items():
        assert torch.equal(source.read(name, torch.float32), meant[name])
        assert torch.equal(source.read(name, torch.bfloat16), meant[name].bfloat16())
        theirs = convert_moe_packed_tensors(stored.read(layer.parts["blocks"]), stored.read(layer.parts["scales"]))
        assert torch.equal(theirs.float(), meant[name])
    need = weight_bytes(folder, config, read_checkpoint_config(folder), device_type="cpu")
    norms = sum(tensor.numel() for tensor in meant.values() if tensor.ndim == 1)
    assert need == pytest.approx(2 * sum(tensor.numel() for tensor in meant.values()) + 2 * norms, rel=0.05)


def test_its_attention_is_the_reason_that_it_is_refused_for(gpt_oss: tuple[Path, dict[str, torch.Tensor]]) -> None:
    with pytest.raises(ModelLoadError, match="computes its attention in a way that the engine cannot take over"):
        ModelLoader().load(ModelConfig(model_name=str(gpt_oss[0]), device="cpu"))
