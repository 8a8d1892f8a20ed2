"""Every kernel that this processor has gives what float64 gives, row by row, whatever runs beside it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from mm_gateway.runtime.kernels.block_linear import BlockLinear
from mm_gateway.runtime.kernels.blocks import Blocks, joined, quantize_4bit, quantize_8bit
from mm_gateway.runtime.kernels.library import library, use_kernels

LIBRARY = library()
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="no C++ compiler")


def random_blocks(bits: int, *, fine: bool) -> Callable[[int, int], Blocks]:
    """Of any outputs and inputs; fine ones have whole groups of 8 blocks."""

    def make(outputs: int, inputs: int) -> Blocks:
        inputs = -(-inputs // 256) * 256 if fine else inputs
        count = -(-inputs // 32)
        quants = torch.randint(0, 2**bits, (outputs, count, 32), dtype=torch.uint8)
        scales = torch.rand(outputs, count // 8 if fine else count).half() / 2**bits
        if bits == 6:
            return Blocks(quants, scales / 64, None, inputs, bits, torch.randint(-128, 128, (outputs, 2 * count), dtype=torch.int8))
        parts = [torch.randint(0, 64, (outputs, count), dtype=torch.uint8) for _ in range(2)] if fine else [None, None]
        scales = scales / 32 if fine else scales
        return Blocks(quants, scales, -scales * 2 ** (bits - 1), inputs, bits, *parts)

    return make


MAKERS: dict[str, Callable[[int, int], Blocks]] = {
    "Q8": lambda outputs, inputs: quantize_8bit(torch.randn(outputs, inputs)),
    "Q4": lambda outputs, inputs: quantize_4bit(torch.randn(outputs, inputs)),
    "Q5": random_blocks(5, fine=False),
    "Q4F": random_blocks(4, fine=True),
    "Q5F": random_blocks(5, fine=True),
    "Q6F": random_blocks(6, fine=True),
}


NUMBERS = [torch.float16, torch.bfloat16, torch.float32]


@pytest.fixture(params=["amx", "avx512_vnni", "avx_vnni", "avx2", "portable"])
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    assert LIBRARY is not None
    try:
        use_kernels(LIBRARY, request.param)
    except ValueError:
        pytest.skip(f"this processor has no {request.param}")
    assert LIBRARY.block_linear_name().decode() == request.param
    yield request.param
    use_kernels(LIBRARY, "")


@pytest.fixture(params=MAKERS)
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
    return quantized.flatten(-2) @ torch.nn.functional.pad(blocks.dequantize().double(), (0, padding)).T


def relative_error(found: torch.Tensor, reference: torch.Tensor) -> float:
    return float((found.double() - reference.double()).norm() / reference.double().norm())


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(("outputs", "inputs"), [(1, 32), (16, 32), (17, 96), (40, 64), (576, 160), (31, 48), (3, 5)])
def test_results_are_those_of_float64(kernels: str, kind: str, outputs: int, inputs: int) -> None:
    torch.manual_seed(0)
    blocks, bias = MAKERS[kind](outputs, inputs), torch.randn(outputs)
    layer = BlockLinear(blocks, bias if outputs % 2 else None)
    more = bias.double() if outputs % 2 else 0
    for rows in (*range(1, 10), 33) if outputs < 100 else (1, 33):
        x = torch.randn(rows, blocks.inputs)
        found = layer(x)
        size = float((x.abs() @ blocks.dequantize().abs().T).norm())  # of the sums' terms: a sum itself can be near zero
        # An activation halfway between two quants may be rounded to either, since 127 / largest is rounded itself.
        assert float((found - expected(blocks, x) - more).norm()) < 1e-4 * size
        assert float((found - x.double() @ blocks.dequantize().double().T - more).norm()) < 0.006 * size


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize(("outputs", "inputs"), [(1, 1), (17, 96), (40, 33), (576, 160), (3, 2000)])
def test_numbers_are_multiplied_as_they_are(kernels: str, dtype: torch.dtype, outputs: int, inputs: int) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(outputs, inputs).to(dtype), torch.randn(outputs)
    weight[0, 0] = 3e-7  # subnormal in fp16
    layer = BlockLinear(weight, bias)
    x = torch.randn(70, inputs)
    together = layer(x)
    for rows in (1, 2, 3, 4, 5, 7, 11, 13):
        assert torch.equal(torch.cat([layer(part) for part in x.split(rows)]), together)
    size = float((x.abs() @ weight.float().abs().T + bias.abs()).norm())
    assert float((together - x.double() @ weight.double().T - bias.double()).norm()) < 1e-6 * size
    padded = inputs + inputs % 2 if dtype == torch.bfloat16 else inputs
    assert layer.nbytes == -(-outputs // 16) * 16 * padded * dtype.itemsize


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("dtype", NUMBERS)
def test_rows_that_fill_the_cache_are_multiplied_as_few_are(kernels: str, dtype: torch.dtype) -> None:
    """More than a megabyte of activations passes by the weights in another order, with the same sums."""
    torch.manual_seed(0)
    weight = (torch.randn(1100, 700) / 700**0.5).to(dtype)
    layer = BlockLinear(weight, torch.randn(1100))
    x = torch.randn(380, 700)
    assert torch.equal(torch.cat([layer(part) for part in (x[:5], x[5:30], x[30:])]), layer(x))


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("inputs", [1, 2, 63, 64, 65, 193, 400])
def test_all_of_bf16_is_held(kernels: str, inputs: int) -> None:
    """Also what fp16 has no range for; and the zero that fills up an odd number of inputs is no weight."""
    torch.manual_seed(0)
    weight = torch.randn(20, inputs).bfloat16()
    weight[:, 0] = torch.tensor([3e38, -3e38, 1e-30, -65536.0] * 5)
    layer, x = BlockLinear(weight, None), torch.randn(40, inputs)
    x[:, 0] /= 4  # so that nothing overflows
    meant, size = x.double() @ weight.double().T, x.double().abs() @ weight.double().abs().T
    for rows in (1, 5, 40):
        assert ((layer(x[:rows]).double() - meant[:rows]).abs() <= 1e-5 * size[:rows]).all()
    assert torch.equal(layer.rows(torch.arange(20)), weight.float())
    x[3, inputs - 1] = float("inf")
    assert not torch.isfinite(layer(x)[3]).any()


@pytest.mark.parametrize("rows", [1, 4, 13, 40])
def test_bf16_is_summed_in_the_order_of_fp16(kernels: str, rows: int) -> None:
    if kernels == "amx":
        pytest.skip("for which a number of fp16 is two of bf16")
    torch.manual_seed(0)
    weight, x = torch.randn(40, 451).bfloat16(), torch.randn(rows, 451)
    assert torch.equal(BlockLinear(weight, None)(x), BlockLinear(weight.half(), None)(x))


@pytest.mark.usefixtures("two_threads")
def test_rows_are_the_numbers_that_the_weights_stand_for(kind: str) -> None:
    torch.manual_seed(0)
    blocks = MAKERS[kind](40, 300)
    layer = BlockLinear(blocks, None)
    ids = torch.tensor([[3, 39, 0], [16, 15, 3]])
    assert torch.allclose(layer.rows(ids), blocks.dequantize()[ids], rtol=1e-6, atol=1e-9)
    assert layer.rows(ids[:0]).shape == (0, 3, blocks.inputs)
    many = torch.randint(0, 40, (700,))
    assert torch.equal(layer.rows(many)[-1], layer.rows(many[-1:])[0])
    for wrong in (-1, 40):
        with pytest.raises(IndexError):
            layer.rows(torch.tensor([wrong]))


@pytest.mark.parametrize("dtype", NUMBERS)
def test_rows_of_numbers_are_the_numbers(dtype: torch.dtype) -> None:
    weight = torch.randn(20, 33).to(dtype)
    weight[2, 1] = -3e-7
    assert torch.equal(BlockLinear(weight, None).rows(torch.arange(20)), weight.float())


@pytest.mark.usefixtures("two_threads")
def test_integers_are_computed_exactly(kernels: str, kind: str) -> None:
    """Scales of one, and the largest quants everywhere: nothing is rounded, so nothing may overflow or be lost."""
    made = MAKERS[kind](48, 256)
    least, most = (-128, 127) if kind == "Q8" else (0, 2**made.bits - 1)
    quants = torch.randint(least, most + 1, made.quants.shape, dtype=torch.int16)
    quants[:16], quants[16:32, 1], quants[32:40] = most, least, least
    largest = -128 if kind == "Q6F" else 63
    fine = [None if part is None else torch.full_like(part, largest) for part in (made.fine_scales, made.fine_minimums)]
    ones = torch.ones_like(made.scales)
    minimums = None if made.minimums is None else -2 * ones
    blocks = Blocks(quants.to(made.quants.dtype), ones, minimums, 256, made.bits, *fine)
    x = torch.randint(-127, 128, (9, 256)).float()
    x[:, ::32] = 127  # every block's largest, so that its scale is one
    x[3], x[4] = 127, -127
    # What is summed over the blocks in fp32 stays a multiple of a power of two that is not too small.
    found, reference = BlockLinear(blocks, None)(x).double(), x.double() @ blocks.dequantize().double().T
    assert torch.equal(found, reference) if made.fine_scales is None else torch.allclose(found, reference, rtol=1e-6)


def test_a_row_does_not_depend_on_the_others(kernels: str, kind: str, two_threads: None) -> None:
    torch.manual_seed(0)
    layer = BlockLinear(MAKERS[kind](200, 512), torch.randn(200))
    x = torch.randn(70, 512) * torch.logspace(-3, 3, 70)[:, None]
    together = layer(x)
    for rows in (1, 2, 3, 5, 7, 8, 9, 33):
        apart = torch.cat([layer(part) for part in x.split(rows)])
        assert torch.equal(apart, together)
    torch.set_num_threads(1)
    assert torch.equal(layer(x), together)


def test_many_rows_pass_in_chunks(kind: str, two_threads: None) -> None:
    torch.manual_seed(0)
    layer = BlockLinear(MAKERS[kind](24, 4096), None)
    x = torch.randn(700, 4096)
    together = layer(x)
    assert torch.equal(torch.cat([layer(part) for part in x.split(100)]), together)
    assert torch.equal(layer(x[None, :, :])[0], together)
    assert torch.equal(layer(x.T.contiguous().T), together)  # not contiguous
    assert layer(x[:0]).shape == (0, 24)


@pytest.mark.parametrize("scale", [1e-45, 1e-38, 1e-30, 1e30, 1e36])
def test_extreme_activations(kernels: str, kind: str, scale: float) -> None:
    torch.manual_seed(0)
    blocks = MAKERS[kind](16, 256)
    x = torch.randn(3, 256).clamp(-2, 2) * scale
    x[1] = 0
    found = BlockLinear(blocks, None)(x)
    assert torch.isfinite(found).all()
    assert torch.equal(found[1], torch.zeros(16))
    if scale >= 1e-30:
        assert relative_error(found / scale, expected(blocks, x / scale)) < 1e-3


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_stays_none_and_in_its_row(kernels: str, kind: str, value: float) -> None:
    layer = BlockLinear(MAKERS[kind](20, 256), None)
    x = torch.randn(5, 256)
    clean = layer(x)
    for column in (0, 17, 255):
        broken = x.clone()
        broken[2, column] = value
        found = layer(broken)
        assert not torch.isfinite(found[2]).any()
        assert torch.equal(found[[0, 1, 3, 4]], clean[[0, 1, 3, 4]])


def test_a_scale_of_a_row_is_for_its_weights_and_not_for_its_bias(kernels: str, kind: str) -> None:
    torch.manual_seed(0)
    plain, bias, of_rows = MAKERS[kind](37, 256), torch.randn(37), torch.rand(37) * 1e-6 + 1e-7
    scaled, x = replace(plain, row_scales=of_rows), torch.randn(5, 256)
    assert torch.equal(scaled.dequantize(), plain.dequantize() * of_rows[:, None])
    torch.testing.assert_close(BlockLinear(scaled, None).rows(torch.arange(37)), scaled.dequantize(), rtol=1e-6, atol=1e-12)
    assert torch.equal(joined([plain, scaled]).dequantize(), torch.cat([plain.dequantize(), scaled.dequantize()]))
    meant = BlockLinear(plain, None)(x).double() * of_rows + bias
    torch.testing.assert_close(BlockLinear(scaled, bias)(x).double(), meant, rtol=1e-6, atol=1e-6)


def test_callers_at_once_do_not_disturb_each_other(kind: str) -> None:
    torch.manual_seed(0)
    layers = [BlockLinear(MAKERS[kind](300, 256), None) for _ in range(4)]
    inputs = [torch.randn(40, 256) for _ in layers]
    alone = [layer(x) for layer, x in zip(layers, inputs, strict=True)]

    def many(index: int) -> bool:
        torch.set_num_threads(2)
        return all(torch.equal(layers[index](inputs[index]), alone[index]) for _ in range(50))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(many, range(4), timeout=60))


def test_a_forked_child_computes_too(kind: str, two_threads: None) -> None:
    """libgomp's threads are not there in it, and waiting for them would never end."""
    layer, x = BlockLinear(MAKERS[kind](300, 256), None), torch.randn(40, 256)
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
