"""Every kernel that this processor has gives what float64 gives, row by row, whatever runs beside it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from mm_gateway.runtime.kernels.block_linear import BlockLinear
from mm_gateway.runtime.kernels.blocks import Blocks, quantize_4bit, quantize_8bit
from mm_gateway.runtime.kernels.library import library, use_kernels

QUANTIZERS = {"int8": quantize_8bit, "int4": quantize_4bit}
LIBRARY = library()
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="no C++ compiler")


@pytest.fixture(params=["avx512_vnni", "avx_vnni", "avx2", "portable"])
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    assert LIBRARY is not None
    try:
        use_kernels(LIBRARY, request.param)
    except ValueError:
        pytest.skip(f"this processor has no {request.param}")
    assert LIBRARY.block_linear_name().decode() == request.param
    yield request.param
    use_kernels(LIBRARY, "")


@pytest.fixture(params=QUANTIZERS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def expected(blocks: Blocks, x: torch.Tensor) -> torch.Tensor:
    """In float64, of the same quantized weights and activations."""
    padding = blocks.quants[0].numel() - blocks.inputs
    parts = torch.nn.functional.pad(x, (0, padding)).unflatten(-1, (-1, 32))
    scales = parts.abs().amax(-1, keepdim=True) / 127
    inverse = torch.where(scales > 0, 1 / scales, 0)
    quantized = (parts * inverse).round().double() * scales.double()
    weight = blocks.quants.double() * blocks.scales.double()[..., None]
    if blocks.minimums is not None:
        weight += blocks.minimums.double()[..., None]
    return quantized.flatten(-2) @ weight.flatten(1).T


def relative_error(found: torch.Tensor, reference: torch.Tensor) -> float:
    return float((found.double() - reference.double()).norm() / reference.double().norm())


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(("outputs", "inputs"), [(1, 32), (16, 32), (17, 96), (40, 64), (576, 160), (31, 48), (3, 5)])
def test_results_are_those_of_float64(kernels: str, kind: str, outputs: int, inputs: int) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(outputs, inputs), torch.randn(outputs)
    blocks = QUANTIZERS[kind](weight)
    layer = BlockLinear(blocks, bias if outputs % 2 else None)
    more = bias.double() if outputs % 2 else 0
    for rows in (*range(1, 18), 33, 70) if outputs < 100 else (1, 8, 70):
        x = torch.randn(rows, inputs)
        found = layer(x)
        size = float((x.abs() @ weight.abs().T).norm())  # of the sums' terms: a sum itself can be near zero
        # An activation halfway between two quants may be rounded to either, since 127 / largest is rounded itself.
        assert float((found - expected(blocks, x) - more).norm()) < 1e-4 * size
        assert float((found - x.double() @ weight.double().T - more).norm()) < {"int8": 0.006, "int4": 0.05}[kind] * size


@pytest.mark.usefixtures("two_threads")
def test_integers_are_computed_exactly(kernels: str, kind: str) -> None:
    """Scales of one, and the largest quants everywhere: nothing is rounded, so nothing may overflow or be lost."""
    least, most = (-128, 127) if kind == "int8" else (0, 15)
    quants = torch.randint(least, most + 1, (48, 4, 32), dtype=torch.int16)
    quants[:16], quants[16:32, 1] = most, least
    ones = torch.ones(48, 4, dtype=torch.float16)
    blocks = Blocks(quants.to(torch.int8 if kind == "int8" else torch.uint8), ones, None if kind == "int8" else -2 * ones, 128)
    x = torch.randint(-127, 128, (9, 128)).float()
    x[:, ::32] = 127  # every block's largest, so that its scale is one
    x[3], x[4] = 127, -127
    assert torch.equal(BlockLinear(blocks, None)(x).double(), x.double() @ blocks.dequantize().double().T)


def test_a_row_does_not_depend_on_the_others(kernels: str, kind: str, two_threads: None) -> None:
    torch.manual_seed(0)
    layer = BlockLinear(QUANTIZERS[kind](torch.randn(200, 352)), torch.randn(200))
    x = torch.randn(70, 352) * torch.logspace(-3, 3, 70)[:, None]
    together = layer(x)
    for rows in (1, 2, 3, 5, 7, 8, 9, 33):
        apart = torch.cat([layer(part) for part in x.split(rows)])
        assert torch.equal(apart, together)
    torch.set_num_threads(1)
    assert torch.equal(layer(x), together)


def test_many_rows_pass_in_chunks(kind: str, two_threads: None) -> None:
    torch.manual_seed(0)
    layer = BlockLinear(QUANTIZERS[kind](torch.randn(24, 4096)), None)
    x = torch.randn(700, 4096)
    together = layer(x)
    assert torch.equal(torch.cat([layer(part) for part in x.split(100)]), together)
    assert torch.equal(layer(x[None, :, :])[0], together)
    assert torch.equal(layer(x.T.contiguous().T), together)  # not contiguous
    assert layer(x[:0]).shape == (0, 24)


@pytest.mark.parametrize("scale", [1e-45, 1e-38, 1e-30, 1e30, 1e36])
def test_extreme_activations(kernels: str, kind: str, scale: float) -> None:
    torch.manual_seed(0)
    blocks = QUANTIZERS[kind](torch.randn(16, 64))
    x = torch.randn(3, 64).clamp(-2, 2) * scale
    x[1] = 0
    found = BlockLinear(blocks, None)(x)
    assert torch.isfinite(found).all()
    assert torch.equal(found[1], torch.zeros(16))
    if scale >= 1e-30:
        assert relative_error(found / scale, expected(blocks, x / scale)) < 1e-3


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_stays_none_and_in_its_row(kernels: str, kind: str, value: float) -> None:
    layer = BlockLinear(QUANTIZERS[kind](torch.randn(20, 64)), None)
    x = torch.randn(5, 64)
    clean = layer(x)
    for column in (0, 17, 63):
        broken = x.clone()
        broken[2, column] = value
        found = layer(broken)
        assert not torch.isfinite(found[2]).any()
        assert torch.equal(found[[0, 1, 3, 4]], clean[[0, 1, 3, 4]])


def test_a_scale_of_a_row_is_for_its_weights_and_not_for_its_bias(kernels: str, kind: str) -> None:
    torch.manual_seed(0)
    plain, bias, of_rows = QUANTIZERS[kind](torch.randn(37, 96)), torch.randn(37), torch.rand(37) * 1e-6 + 1e-7
    scaled, x = replace(plain, row_scales=of_rows), torch.randn(5, 96)
    assert torch.equal(scaled.dequantize(), plain.dequantize() * of_rows[:, None])
    expected = BlockLinear(plain, None)(x).double() * of_rows + bias
    torch.testing.assert_close(BlockLinear(scaled, bias)(x).double(), expected, rtol=1e-6, atol=1e-6)


def test_callers_at_once_do_not_disturb_each_other(kind: str) -> None:
    torch.manual_seed(0)
    layers = [BlockLinear(QUANTIZERS[kind](torch.randn(300, 256)), None) for _ in range(4)]
    inputs = [torch.randn(40, 256) for _ in layers]
    alone = [layer(x) for layer, x in zip(layers, inputs, strict=True)]

    def many(index: int) -> bool:
        torch.set_num_threads(2)
        return all(torch.equal(layers[index](inputs[index]), alone[index]) for _ in range(50))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(many, range(4), timeout=60))


def test_a_forked_child_computes_too(kind: str, two_threads: None) -> None:
    """libgomp's threads are not there in it, and waiting for them would never end."""
    layer, x = BlockLinear(QUANTIZERS[kind](torch.randn(300, 256)), None), torch.randn(40, 256)
    expected_rows = layer(x)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        os._exit(0 if bool((layer(x).sub_(expected_rows).abs_().max() == 0).item()) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_blocks_without_compiled_kernels_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mm_gateway.runtime.kernels.block_linear.library", lambda: None)
    with pytest.raises(RuntimeError, match="kernels"):
        BlockLinear(quantize_8bit(torch.randn(16, 32)), None)


def test_unknown_kernels_are_named() -> None:
    assert LIBRARY is not None
    with pytest.raises(ValueError, match="MM_CPU_KERNELS=sse9"):
        use_kernels(LIBRARY, "sse9")
