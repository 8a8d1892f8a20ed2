"""Every kernel that this processor has gives what float64 gives, and a row the same whatever runs beside it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from mm_gateway.runtime.kernels.dense_linear import DenseLinear
from mm_gateway.runtime.kernels.library import library, use_kernels

LIBRARY = library()
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="no C++ compiler")


@pytest.fixture(params=["avx512_vnni", "avx2", "portable"])
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    assert LIBRARY is not None
    try:
        use_kernels(LIBRARY, request.param)
    except ValueError:
        pytest.skip(f"this processor has no {request.param}")
    yield request.param
    use_kernels(LIBRARY, "")


@pytest.fixture(params=[torch.float32, torch.float16])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(("outputs", "inputs"), [(1, 1), (16, 32), (17, 96), (97, 1000), (960, 576), (3, 5)])
def test_results_are_those_of_float64(dtype: torch.dtype, outputs: int, inputs: int) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(outputs, inputs).to(dtype), torch.randn(outputs)
    layer = DenseLinear(weight, bias if outputs % 2 else None, dtype)
    for rows in (*range(1, 16), 70) if outputs < 100 else (1, 16, 70):
        x = torch.randn(rows, inputs)
        expected = x.double() @ weight.double().T + (bias.double() if outputs % 2 else 0)
        assert torch.allclose(layer(x).double(), expected, rtol=1e-5, atol=1e-5 * inputs**0.5)


@pytest.mark.usefixtures("kernels")
def test_a_row_does_not_depend_on_the_others(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = DenseLinear(torch.randn(200, 900), torch.randn(200), dtype)
    x = torch.randn(70, 900)
    together = layer(x)
    for rows in (1, 2, 3, 5, 7, 8, 13, 33):
        assert torch.equal(torch.cat([layer(part) for part in x.split(rows)]), together)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    assert torch.equal(layer(x), together)
    torch.set_num_threads(before)


def test_every_half_precision_number_is_read_as_it_is(kernels: str) -> None:
    numbers = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(torch.float16)
    layer = DenseLinear(numbers[:, None], None, torch.float16)
    assert torch.equal(layer(torch.ones(1, 1))[0].nan_to_num(), numbers.float().nan_to_num())


def test_what_is_not_contiguous_or_has_no_rows(dtype: torch.dtype) -> None:
    layer = DenseLinear(torch.randn(24, 40), None, dtype)
    x = torch.randn(2, 5, 40)
    assert torch.equal(layer(x.mT.contiguous().mT), layer(x))
    assert layer(x[:, :0]).shape == (2, 0, 24)
