"""Products of numbers by bf16 tiles give what fp32 gives, row by row: on emulated tiles, and on real ones where there are."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from mm_gateway.runtime.kernels.block_linear import BlockLinear
from mm_gateway.runtime.kernels.library import library, use_kernels
from tests.runtime.kernels.native_kernels import compiled_for_avx512, has_kernels

pytestmark = pytest.mark.skipif(not has_kernels("avx512_vnni"), reason="no C++ compiler, or no AVX-512")
NUMBERS = [torch.float32, torch.float16, torch.bfloat16]
Product = Callable[[BlockLinear, torch.Tensor], torch.Tensor]


@pytest.fixture(scope="module")
def emulation(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    loaded = compiled_for_avx512(tmp_path_factory.mktemp("emulation"), {Path(__file__).with_name("emulated_numbers.cpp"): "-O1"})
    loaded.emulated_numbers.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_int64] * 4
    loaded.emulated_numbers.restype = None
    loaded.first_fault.restype = ctypes.c_char_p
    return loaded


@pytest.fixture(params=["emulated", "real"])
def product(request: pytest.FixtureRequest, emulation: ctypes.CDLL) -> Iterator[Product]:
    """y [rows, outputs] of a layer and x [rows, inputs]."""
    if request.param == "real":
        if not has_kernels("amx"):
            pytest.skip("this processor has no AMX")
        loaded = library()
        assert loaded is not None
        use_kernels(loaded, "amx")
        yield lambda layer, x: layer(x)
        use_kernels(loaded, "")
        return

    def emulated(layer: BlockLinear, x: torch.Tensor) -> torch.Tensor:
        y = torch.full((len(x), layer.outputs), 7.0)
        x = x.contiguous()
        emulation.emulated_numbers(layer.address, x.data_ptr(), y.data_ptr(), layer.outputs, len(x), 0, -(-layer.outputs // 16))
        return y

    yield emulated
    assert emulation.first_fault() == b""


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize(("outputs", "inputs"), [(1, 1), (16, 32), (17, 33), (50, 95), (33, 64), (100, 129), (3, 800), (20, 1600)])
def test_sums_are_those_of_fp32(product: Product, dtype: torch.dtype, outputs: int, inputs: int) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(outputs, inputs).to(dtype), torch.randn(outputs)
    layer = BlockLinear(weight, bias if outputs % 2 else None)
    x = torch.randn(35, inputs)
    found, more = product(layer, x), bias if outputs % 2 else torch.zeros(outputs)
    size = float((x.abs() @ weight.float().abs().T + more.abs()).norm())
    assert float((found - x.double() @ weight.double().T - more.double()).norm()) < 1e-6 * size


@pytest.mark.parametrize("dtype", NUMBERS)
def test_terms_of_single_products_are_those_of_fp32(product: Product, dtype: torch.dtype) -> None:
    """One input: nothing but the product's own rounding, and the parts left out."""
    torch.manual_seed(0)
    weight, x = torch.randn(64, 1).to(dtype), torch.randn(40, 1)
    exact = x.double() @ weight.double().T
    assert float(((product(BlockLinear(weight, None), x) - exact) / exact).abs().max()) < 2**-22


@pytest.mark.parametrize("dtype", NUMBERS)
def test_a_row_does_not_depend_on_the_others(product: Product, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = BlockLinear(torch.randn(70, 150).to(dtype), torch.randn(70))
    x = torch.randn(300, 150) * torch.logspace(-3, 3, 300)[:, None]
    together = product(layer, x)
    for rows in (1, 2, 5, 16, 17, 33):
        apart = torch.cat([product(layer, part) for part in x[:66].split(rows)])
        assert torch.equal(apart, together[:66]), rows


def test_a_row_of_the_smallest_numbers_does_not_depend_on_the_others(product: Product) -> None:
    torch.manual_seed(0)
    layer = BlockLinear(torch.randn(48, 800).bfloat16(), None)
    x = torch.randn(40, 800) * torch.logspace(-39, -34, 40)[:, None]
    together = product(layer, x)
    assert torch.equal(torch.cat([product(layer, row) for row in x.split(1)]), together)


@pytest.mark.parametrize("dtype", NUMBERS)
def test_a_part_of_the_panels_writes_nothing_else(emulation: ctypes.CDLL, product: Product, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer, x = BlockLinear(torch.randn(90, 70).to(dtype), None), torch.randn(40, 70)
    whole = product(layer, x)
    if product.__name__ != "emulated":
        return
    for first, last in ((0, 1), (1, 4), (2, 6), (5, 6), (3, 3)):
        y = torch.full((40, 100), 7.0)
        emulation.emulated_numbers(layer.address, x.data_ptr(), y.data_ptr(), 100, 40, first, last)
        meant = torch.full((40, 100), 7.0)
        meant[:, 16 * first : min(16 * last, 90)] = whole[:, 16 * first : min(16 * last, 90)]
        assert torch.equal(y, meant)


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_stays_none_and_in_its_row(product: Product, dtype: torch.dtype, value: float) -> None:
    torch.manual_seed(0)
    layer, x = BlockLinear(torch.randn(20, 70).to(dtype), None), torch.randn(20, 70)
    clean = product(layer, x)
    for column in (0, 33, 69):
        broken = x.clone()
        broken[2, column] = value
        found = product(layer, broken)
        assert not torch.isfinite(found[2]).any()
        assert torch.equal(found[3:], clean[3:]) and torch.equal(found[:2], clean[:2])
    weight = torch.randn(20, 70).to(dtype)
    weight[5, 40] = value
    found = product(BlockLinear(weight, None), x)
    assert not torch.isfinite(found[:, 5]).any()
    assert torch.isfinite(found[:, :5]).all() and torch.isfinite(found[:, 6:]).all()


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("scale", [1e-25, 1e20])
def test_large_and_small_numbers_are_as_exact(product: Product, dtype: torch.dtype, scale: float) -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(20, 70).to(dtype), torch.randn(5, 70)
    found = product(BlockLinear(weight, None), x * scale)
    size = float((x.abs() @ weight.float().abs().T).norm())
    assert float((found.double() - (x * scale).double() @ weight.double().T).norm()) < 1e-6 * size * scale
