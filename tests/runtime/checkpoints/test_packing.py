"""Packed layers give what the modules gave, to the precision of their weights, from any class of module and any shape."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)
from transformers.pytorch_utils import Conv1D

import mm_gateway.runtime.checkpoints.packed_linear
from mm_gateway.runtime.checkpoints.packed_linear import (
    KernelLinear,
    LayerEmbedding,
    PackedLinear,
    PackedLinearFp16,
    StoredEmbedding,
    block_bytes,
    packed_linear,
)
from mm_gateway.runtime.checkpoints.packing import pack_model, weight_bytes
from mm_gateway.runtime.kernels.blocks import Blocks

TOLERANCE: dict[Any, float] = {"fp32": 1e-5, "fp16": 2e-3, "bf16": 1e-2, "int8": 3e-2, "int4": 0.15}


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("weights", TOLERANCE)
@pytest.mark.parametrize("shape", [(1, 48), (5, 48), (2, 3, 48), (200, 48)])
@torch.inference_mode()
def test_a_packed_layer_gives_what_the_layer_gave(weights: Any, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(48, 80)
    packed = packed_linear(linear.weight.detach(), linear.bias.detach(), weights)
    x = torch.randn(shape)
    assert packed(x).shape == (*shape[:-1], 80)
    assert relative_error(packed(x), linear(x)) < TOLERANCE[weights]


@torch.inference_mode()
def test_values_beyond_fp16_stay_fp32() -> None:
    weight = torch.randn(8, 8)
    weight[0, 0] = 1e6

    def bits(weight: torch.Tensor, weights: Any) -> int:
        packed = packed_linear(weight, None, weights)
        return packed.bits if isinstance(packed, KernelLinear) else 32

    assert bits(weight, "fp16") == 32
    assert bits(weight.clamp(-1, 1), "fp16") == 16
    assert bits(weight, "bf16") == 16
    assert bits(weight * float("inf"), "bf16") == 32
    assert bits(weight, "int8") == 8
    assert bits(weight, "int4") == 32
    assert bits(weight * 100, "int8") == 32


@pytest.mark.parametrize("weights", ["fp16", "bf16"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.inference_mode()
def test_numbers_of_16_bits_stay_the_same_numbers(weights: Any, dtype: torch.dtype) -> None:
    weight = (torch.randn(20, 33) * 1e-4).to(dtype)
    if dtype == torch.bfloat16:
        weight[3, 4], weight[5, 6] = 1e30, 1e-30  # beyond fp16 on either side
    layer = packed_linear(weight, None, weights)
    assert isinstance(layer, KernelLinear)
    assert layer.bits == 16
    assert torch.equal(layer.kernel.rows(torch.arange(20)), weight.float())


def test_embeddings_are_stored_as_saved_and_given_as_fp32() -> None:
    embedding = nn.Embedding(10, 4)
    packed = StoredEmbedding(embedding.weight, torch.float16)
    assert packed.weight.dtype == torch.float16
    rows = packed(torch.tensor([3, 1]))
    assert rows.dtype == torch.float32
    assert torch.equal(rows, embedding.weight.half().float()[[3, 1]])


def llama(**more: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=more.pop("vocab_size", 100),
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        initializer_range=0.1,
        **more,
    )
    return LlamaForCausalLM(config).eval()


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=100, n_positions=64, n_embd=48, n_layer=2, n_head=4, initializer_range=0.1)).eval()


@pytest.mark.parametrize("weights", TOLERANCE)
@pytest.mark.parametrize("make", [llama, lambda: llama(tie_word_embeddings=True), lambda: llama(attention_bias=True), gpt2])
@torch.inference_mode()
def test_a_packed_model_gives_what_the_model_gave(weights: Any, make: Any) -> None:
    model = make()
    ids = torch.randint(0, 100, (2, 12))
    expected = copy.deepcopy(model)(ids).logits
    pack_model(model, weights)
    assert not any(isinstance(module, nn.Linear | Conv1D) for module in model.modules())
    assert relative_error(model(ids).logits, expected) < 3 * TOLERANCE[weights]


@torch.inference_mode()
def test_projections_that_share_an_input_are_joined_and_stay_right_when_used_apart() -> None:
    model = llama()
    reference = copy.deepcopy(model)
    before = sum(isinstance(module, nn.Linear) for module in model.modules())
    pack_model(model, "fp32")
    packed = sum(isinstance(module, PackedLinear) for module in model.modules())
    assert (before, packed) == (15, 9)  # per layer q+k+v, o, gate+up, down; and the head

    def projected(by: LlamaForCausalLM, name: str, given: torch.Tensor) -> torch.Tensor:
        return by.get_submodule(f"model.layers.0.self_attn.{name}")(given)

    x, y = torch.randn(3, 48), torch.randn(3, 48)
    assert relative_error(projected(model, "q_proj", x), projected(reference, "q_proj", x)) < 1e-5
    assert relative_error(projected(model, "v_proj", y), projected(reference, "v_proj", y)) < 1e-5  # another input than the last one
    assert relative_error(projected(model, "k_proj", x), projected(reference, "k_proj", x)) < 1e-5


@pytest.mark.parametrize(("weights", "bytes_per_weight"), [("fp32", 4), ("fp16", 2), ("bf16", 2), ("int8", 1), ("int4", 0.5)])
def test_memory_is_no_higher_than_the_dtype_says(weights: Any, bytes_per_weight: float) -> None:
    model = llama()
    linear = sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear))
    rest = sum(parameter.numel() for parameter in model.parameters()) - linear
    pack_model(model, weights)
    # Blocks keep scales, and int4 the output layer in int8; embeddings and norms stay as they are, at most fp32
    assert weight_bytes(model) <= (linear * bytes_per_weight + rest * 4) * 1.25
    assert not any(parameter.numel() == 48 * 48 for parameter in model.parameters())  # no second copy


@torch.inference_mode()
def test_stored_blocks_are_taken_as_they_are() -> None:
    torch.manual_seed(0)
    scales, minimums = torch.rand(48, 3).half(), -torch.rand(48, 3).half()
    q8, q4 = torch.randint(-127, 128, (48, 3, 32), dtype=torch.int8), torch.randint(0, 16, (48, 3, 32), dtype=torch.uint8)
    bias, x = torch.randn(48), torch.randn(5, 96)
    for blocks in (Blocks(q8, scales, None, 96, 8), Blocks(q4, scales, minimums, 96, 4)):
        layer = packed_linear(blocks, bias, "fp32")
        assert (layer.in_features, layer.out_features) == (96, 48)
        assert relative_error(layer(x), x @ blocks.dequantize().T + bias) < 0.02


@pytest.mark.parametrize("weights", TOLERANCE)
@torch.inference_mode()
def test_tied_embeddings_are_looked_up_in_the_output_layer(weights: Any) -> None:
    model = llama(tie_word_embeddings=True, vocab_size=112)  # whole panels of 16, so that nothing is padded
    reference = copy.deepcopy(model)
    pack_model(model, weights)
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    assert isinstance(embeddings, LayerEmbedding)
    assert isinstance(head, KernelLinear)
    assert (embeddings.num_embeddings, embeddings.embedding_dim) == (112, 48)
    ids = torch.tensor([[0, 111, 7]])
    assert torch.equal(embeddings(ids), head(torch.eye(48)).T[ids]) or head.bits < 16
    assert relative_error(embeddings(ids), reference.get_input_embeddings()(ids)) < TOLERANCE[weights]
    assert not any(parameter.numel() == 112 * 48 for parameter in model.parameters())  # no second copy
    untied = llama(vocab_size=112)
    pack_model(untied, weights)
    table = untied.get_input_embeddings()
    assert isinstance(table, StoredEmbedding)
    assert weight_bytes(model) == weight_bytes(untied) - table.weight.nbytes


def gemma(**more: Any) -> nn.Module:
    torch.manual_seed(0)
    shape: dict[str, Any] = {"vocab_size": 100, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "query_pre_attn_scalar": 16, "initializer_range": 0.1}
    return Gemma3ForCausalLM(Gemma3TextConfig(**shape, **more)).eval()


def opt() -> nn.Module:
    torch.manual_seed(0)
    shape: dict[str, Any] = {"vocab_size": 100, "hidden_size": 64, "ffn_dim": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    return OPTForCausalLM(OPTConfig(**shape, word_embed_proj_dim=64, max_position_embeddings=32, init_std=0.1)).eval()


@pytest.mark.parametrize("weights", TOLERANCE)
@pytest.mark.parametrize("make", [gemma, lambda: gemma(tie_word_embeddings=False), opt])
@torch.inference_mode()
def test_embeddings_that_scale_or_shift_what_they_are_asked_for_still_do(weights: Any, make: Any) -> None:
    model = make()
    ids = torch.randint(0, 100, (2, 12))
    expected = copy.deepcopy(model)(ids).logits
    pack_model(model, weights)
    assert relative_error(model(ids).logits, expected) < 3 * TOLERANCE[weights]


@pytest.mark.parametrize("weights", ["int8", "int4"])
@torch.inference_mode()
def test_without_compiled_kernels_few_bits_are_held_in_16(weights: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    linear, x = nn.Linear(64, 80), torch.randn(5, 64)
    compiled = packed_linear(linear.weight, linear.bias, weights)
    monkeypatch.setattr(mm_gateway.runtime.checkpoints.packed_linear, "library", lambda: None)
    model = nn.Sequential(linear)
    pack_model(model, weights)
    assert isinstance(model[0], PackedLinearFp16)
    assert relative_error(model(x), compiled(x)) < TOLERANCE[weights]
    assert weight_bytes(model) == 2 * 64 * 80
    assert block_bytes(4) == 2
