"""Quantizing to blocks: how near the values stay, and what happens at the edges."""

from __future__ import annotations

import pytest
import torch

from mm_gateway.runtime.kernels.blocks import Blocks, quantize_4bit, quantize_8bit


def squared_error(blocks: Blocks, weight: torch.Tensor) -> float:
    return float((blocks.dequantize() - weight).square().sum())


def by_range(weight: torch.Tensor) -> torch.Tensor:
    """What Q4_1 without a search gives: the range of each block in 15 steps."""
    parts = weight.unflatten(1, (-1, 32))
    low, high = parts.amin(-1, keepdim=True), parts.amax(-1, keepdim=True)
    scale = ((high - low) / 15).half().float()
    return (((parts - low) / scale).round() * scale + low.half().float()).flatten(1)


def test_8_bits_are_the_nearest_values() -> None:
    torch.manual_seed(0)
    weight = torch.randn(64, 256)
    blocks = quantize_8bit(weight)
    assert (blocks.quants.dtype, blocks.quants.shape, blocks.scales.shape, blocks.minimums) == (torch.int8, (64, 8, 32), (64, 8), None)
    half_step = blocks.scales.float().repeat_interleave(32, 1) / 2
    # The scale is fp16, so the largest weight of a block may lie a little beyond 127 steps.
    assert bool(((blocks.dequantize() - weight).abs() <= half_step * 1.2).all())


def test_4_bits_are_nearer_than_the_range_of_each_block() -> None:
    torch.manual_seed(0)
    weight = torch.randn(64, 256)
    blocks = quantize_4bit(weight)
    assert blocks.quants.dtype == torch.uint8
    assert int(blocks.quants.max()) <= 15
    assert squared_error(blocks, weight) < 0.87 * float((by_range(weight) - weight).square().sum())


def test_what_4_bits_can_hold_exactly_stays() -> None:
    torch.manual_seed(0)
    quants = torch.randint(0, 16, (8, 3, 32), dtype=torch.uint8)
    quants[..., 0], quants[..., 1] = 0, 15
    stored = Blocks(quants, torch.full((8, 3), 0.25, dtype=torch.float16), torch.full((8, 3), -2.0, dtype=torch.float16), 96, 4)
    again = quantize_4bit(stored.dequantize())
    assert torch.equal(again.dequantize(), stored.dequantize())


@pytest.mark.parametrize("quantize", [quantize_8bit, quantize_4bit])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_constant_and_empty_blocks(quantize: type[Blocks], dtype: torch.dtype) -> None:
    weight = torch.zeros(3, 64, dtype=dtype)
    weight[1], weight[2, 5] = 0.5, -1.0
    found = quantize(weight).dequantize()  # type: ignore[call-arg]
    assert torch.equal(found[0], weight[0].float())
    assert torch.allclose(found, weight.float(), atol=1e-3)


@pytest.mark.parametrize("quantize", [quantize_8bit, quantize_4bit])
def test_inputs_that_fill_no_whole_block(quantize: type[Blocks]) -> None:
    torch.manual_seed(0)
    weight = torch.randn(5, 45)
    blocks: Blocks = quantize(weight)  # type: ignore[call-arg, assignment]
    assert blocks.shape == (5, 45)
    assert blocks.quants.shape == (5, 2, 32)
    assert float((blocks.dequantize() - weight).norm() / weight.norm()) < 0.15


def test_a_row_is_quantized_alone() -> None:
    """Projections are joined before they are quantized, which must not change them."""
    torch.manual_seed(0)
    first, second = torch.randn(7, 64), 100 * torch.randn(9, 64)
    for quantize in (quantize_8bit, quantize_4bit):
        joined = quantize(torch.cat([first, second])).dequantize()
        assert torch.equal(joined, torch.cat([quantize(first).dequantize(), quantize(second).dequantize()]))
