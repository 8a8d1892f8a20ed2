"""Attention of the compiled call, on numbers that no text should bring about."""

from __future__ import annotations

import math

import pytest
import torch

from mm_gateway.runtime.kernels.block_linear import BlockLinear
from mm_gateway.runtime.kernels.decoder import Cells, Decoder, DecoderShape, LayerWeights, Norm, NormKind
from mm_gateway.runtime.kernels.library import library
from mm_gateway.runtime.kernels.model import Angles, Model, Segment

pytestmark = pytest.mark.skipif(library() is None, reason="no compiled kernels")

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, ROWS = 48, 6, 2, 64, 130


def make_model(cells: Cells, window: int | None) -> Model:
    def layer(outputs: int, inputs: int) -> BlockLinear:
        return BlockLinear(torch.randn(outputs, inputs) / math.sqrt(inputs), None)

    torch.manual_seed(0)
    projections = [
        [layer(*shape)]
        for shape in (((HEADS + 2 * KV_HEADS) * HEAD_DIM, HIDDEN), (HIDDEN, HEADS * HEAD_DIM), (2 * HIDDEN, HIDDEN), (HIDDEN, HIDDEN))
    ]
    weights = LayerWeights(*projections, scale=HEAD_DIM**-0.5, window=window, rotary=None)
    keys, values = (torch.zeros(ROWS, KV_HEADS * cells.head_bytes(HEAD_DIM), dtype=torch.uint8) for _ in range(2))
    shape = DecoderShape(HIDDEN, HEADS, KV_HEADS, HEAD_DIM, 0, "silu")
    decoder = Decoder(shape, [weights], Norm(NormKind.RMS, torch.ones(HIDDEN), 1e-6), [(keys, values)], cells)
    return Model(decoder, embeddings=None, head=None)


def hidden_states(model: Model, x: torch.Tensor, chunk: int) -> torch.Tensor:
    parts: list[torch.Tensor] = []
    for start in range(0, ROWS, chunk):
        part = x[start : start + chunk].clone()
        parts.append(model([0] * len(part), Angles([], range(len(part))), [Segment(0, len(part), start, 0)], range(len(part)), part)[0])
    return torch.cat(parts)


@pytest.mark.parametrize("number", [math.nan, math.inf, 1e7])  # the last is too large for values of 16 bits
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("cells", list(Cells))
def test_what_is_no_number_counts_in_no_row_before_it_and_alike_in_all_chunks(cells: Cells, window: int | None, number: float) -> None:
    model = make_model(cells, window)
    x = torch.randn(ROWS, HIDDEN)
    whole = hidden_states(model, x, ROWS)
    for row in (1, 71):
        broken = x.clone()
        broken[row, 5] = number
        found = hidden_states(model, broken, ROWS)
        assert torch.equal(found[:row], whole[:row])
        for chunk in (1, 7):
            torch.testing.assert_close(hidden_states(model, broken, chunk), found, rtol=0, atol=0, equal_nan=True)
