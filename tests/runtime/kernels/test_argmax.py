"""The largest of each row, as torch finds it."""

from __future__ import annotations

import pytest
import torch

from mm_gateway.runtime.kernels.argmax import most_probable
from mm_gateway.runtime.kernels.library import library

pytestmark = pytest.mark.skipif(library() is None, reason="no kernels on this machine")


@pytest.mark.parametrize(("rows", "width"), [(1, 1), (3, 31), (2, 33), (1, 49_152), (33, 151_936)])
def test_the_largest_of_each_row(rows: int, width: int) -> None:
    logits = torch.randn(rows, width, generator=torch.Generator().manual_seed(rows))
    assert most_probable(logits) == logits.argmax(-1).tolist()


@pytest.mark.parametrize("place", [0, 31, 32, 70, 99])
def test_the_first_of_equal_ones_wherever_it_is(place: int) -> None:
    logits = torch.full((1, 100), -3.0)
    logits[0, place:] = 5.0
    assert most_probable(logits) == [place]


@pytest.mark.parametrize("place", [0, 40, 99])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_rows_with_what_is_no_number_have_none(value: float, place: int) -> None:
    logits = torch.randn(3, 100)
    logits[1, place] = value
    assert most_probable(logits) == [int(logits[0].argmax()), -1, int(logits[2].argmax())]


def test_what_is_barred_is_never_the_largest() -> None:
    logits = torch.full((2, 100), -torch.inf)
    logits[0, 77] = -1e30
    assert most_probable(logits) == [77, -1]


def test_other_tensors_are_left_to_torch() -> None:
    assert most_probable(torch.zeros(2, 4, dtype=torch.float64)) is None
    assert most_probable(torch.zeros(4, 2).T) is None
