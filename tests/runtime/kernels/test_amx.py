"""The kernels of AMX give what those of AVX-512 VNNI give, bit for bit: on emulated tiles, and on real ones where there are."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mm_gateway.runtime.kernels.block_linear import BlockLinear
from mm_gateway.runtime.kernels.blocks import Blocks
from mm_gateway.runtime.kernels.library import library, use_kernels
from tests.runtime.kernels.native_kernels import NATIVE, compiled_for_avx512, has_kernels
from tests.runtime.kernels.test_block_linear import MAKERS

LIBRARY = library()
INPUTS = (5, 32, 33, 128, 160, 250, 512, 1100)
SHAPES = [(kind, inputs) for kind in MAKERS for inputs in INPUTS if not kind.endswith("F") or inputs >= 250]  # fine ones have 256 or more


pytestmark = pytest.mark.skipif(not has_kernels("avx512_vnni"), reason="no C++ compiler, or no AVX-512 VNNI to compare with")


class Trial(ctypes.Structure):
    """`struct Trial` of native/amx/trial.h."""

    _fields_ = (("finished", ctypes.c_bool), ("equal", ctypes.c_bool), ("times", ctypes.c_double * 2))


@pytest.fixture(scope="module")
def emulation(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    here = Path(__file__).parent
    sources = {
        here / "emulated_blocks.cpp": "-O1",
        **dict.fromkeys((NATIVE / "avx512_vnni.cpp", NATIVE / "amx/trial.cpp", NATIVE / "float_kernels.cpp"), "-O0"),
    }
    loaded = compiled_for_avx512(tmp_path_factory.mktemp("emulation"), sources)
    loaded.first_fault.restype = ctypes.c_char_p
    for function in (loaded.emulated, loaded.known):
        function.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_int64] * 4
        function.restype = None
    return loaded


@pytest.fixture(params=["emulated", "real"])
def amx(request: pytest.FixtureRequest, emulation: ctypes.CDLL) -> Iterator[str]:
    if request.param == "real" and not has_kernels("amx"):
        pytest.skip("this processor has no AMX")
    yield request.param
    assert emulation.first_fault() == b""


def by_both(amx: str, emulation: ctypes.CDLL, layer: BlockLinear, x: torch.Tensor) -> list[torch.Tensor]:
    """Bits of what AMX gives, and AVX-512 VNNI."""
    found: list[torch.Tensor] = []
    for tiles in (True, False):
        if amx == "emulated":
            y = torch.full((len(x), layer.outputs), 7.0)
            function = emulation.emulated if tiles else emulation.known
            function(layer.address, x.data_ptr(), y.data_ptr(), layer.outputs, len(x), 0, -(-layer.outputs // 16))
        else:
            assert LIBRARY is not None
            use_kernels(LIBRARY, "amx" if tiles else "avx512_vnni")
            y = layer(x)
            use_kernels(LIBRARY, "")
        found.append(y.view(torch.int32))
    return found


def random_layer(kind: str, outputs: int, inputs: int, *, bias: bool = False, row_scales: bool = False) -> BlockLinear:
    blocks = MAKERS[kind](outputs, inputs)
    blocks = replace(blocks, row_scales=torch.rand(outputs) + 0.5) if row_scales else blocks
    return BlockLinear(blocks, torch.randn(outputs) if bias else None)


@pytest.mark.parametrize("kind", MAKERS)
def test_every_number_of_rows_gives_the_same_bits(amx: str, emulation: ctypes.CDLL, kind: str) -> None:
    torch.manual_seed(0)
    layer = random_layer(kind, 50, 110, bias=True)
    x = torch.randn(70, layer.inputs)
    for rows in range(1, 71):
        assert torch.equal(*by_both(amx, emulation, layer, x[:rows].contiguous())), rows
    many = torch.randn(300, layer.inputs)  # more than are kept at once
    for rows in (128, 129, 136, 144, 257, 300):
        assert torch.equal(*by_both(amx, emulation, layer, many[:rows].contiguous())), rows


@pytest.mark.parametrize(("kind", "inputs"), SHAPES)
@pytest.mark.parametrize("outputs", [1, 16, 17, 100])
def test_every_shape_gives_the_same_bits(amx: str, emulation: ctypes.CDLL, kind: str, outputs: int, inputs: int) -> None:
    torch.manual_seed(0)
    layer = random_layer(kind, outputs, inputs, bias=outputs % 2 == 1, row_scales=inputs % 2 == 0)
    x = torch.randn(29, layer.inputs)
    assert torch.equal(*by_both(amx, emulation, layer, x))
    assert torch.equal(*by_both(amx, emulation, layer, x[:20].contiguous()))


@pytest.mark.parametrize("kind", ["Q8", "Q4"])
def test_the_largest_quants_stay_exact(amx: str, emulation: ctypes.CDLL, kind: str) -> None:
    least, most = (-128, 127) if kind == "Q8" else (0, 15)
    made = MAKERS[kind](48, 256)
    quants = torch.randint(least, most + 1, made.quants.shape, dtype=torch.int16)
    quants[:16], quants[16:32] = most, least
    blocks = Blocks(quants.to(made.quants.dtype), torch.ones_like(made.scales), made.minimums, 256, made.bits, None, None)
    x = torch.randint(-127, 128, (40, 256)).float()
    x[3], x[4], x[:, ::32] = 127, -127, 127
    assert torch.equal(*by_both(amx, emulation, BlockLinear(blocks, None), x))


@pytest.mark.parametrize("kind", MAKERS)
def test_what_is_no_number_stays_in_its_row(amx: str, emulation: ctypes.CDLL, kind: str) -> None:
    torch.manual_seed(0)
    layer = random_layer(kind, 40, 200)
    x = torch.randn(30, layer.inputs)
    clean, _ = by_both(amx, emulation, layer, x)
    broken = x.clone()
    broken[2, 199], broken[17, 0], broken[29, 40], broken[28] = float("nan"), float("inf"), float("-inf"), 0
    found, known = (bits.view(torch.float32) for bits in by_both(amx, emulation, layer, broken))
    assert torch.equal(found.isnan(), known.isnan()) and torch.equal(found.nan_to_num(), known.nan_to_num())
    assert not torch.isfinite(found[[2, 17, 29]]).any()
    others = [row for row in range(28) if row not in (2, 17)]
    assert torch.equal(found.view(torch.int32)[others], clean[others])


@pytest.mark.parametrize("kind", MAKERS)
def test_a_part_of_the_panels_writes_nothing_else(emulation: ctypes.CDLL, kind: str) -> None:
    """Threads share a layer by its panels, and layers share a row of results."""
    torch.manual_seed(0)
    layer = random_layer(kind, 90, 70)
    x = torch.randn(30, layer.inputs)
    whole = torch.empty(30, 90)
    emulation.known(layer.address, x.data_ptr(), whole.data_ptr(), 90, 30, 0, 6)
    for first, last in ((0, 1), (1, 2), (1, 4), (2, 6), (5, 6)):
        y = torch.full((30, 100), 7.0)
        emulation.emulated(layer.address, x.data_ptr(), y.data_ptr(), 100, 30, first, last)
        meant = torch.full((30, 100), 7.0)
        meant[:, 16 * first : min(16 * last, 90)] = whole[:, 16 * first : min(16 * last, 90)]
        assert torch.equal(y, meant)
    assert emulation.first_fault() == b""


def test_a_trial_tells_slow_wrong_and_crashing_kernels(emulation: ctypes.CDLL) -> None:
    slow, wrong, crashing = found = [Trial() for _ in range(3)]
    for which, trial in enumerate(found):
        emulation.trial_of(which, ctypes.byref(trial))
    assert slow.finished and slow.equal and all(times > 0 for times in slow.times)
    assert wrong.finished and not wrong.equal
    assert not crashing.finished and not crashing.equal


def test_a_trial_tells_wrong_and_crashing_kernels_of_numbers(emulation: ctypes.CDLL) -> None:
    known, wrong, crashing = found = [Trial() for _ in range(3)]
    for which, trial in enumerate(found):
        emulation.trial_of_floats(which, ctypes.byref(trial))
    assert known.finished and known.equal and all(times > 0 for times in known.times)
    assert wrong.finished and not wrong.equal
    assert not crashing.finished and not crashing.equal


def test_a_processor_with_amx_passes_its_trial() -> None:
    assert LIBRARY is not None
    information = Path("/proc/cpuinfo")
    if not information.exists() or "amx_int8" not in information.read_text():
        assert not has_kernels("amx")
        assert LIBRARY.block_linear_amx_report() == b""
    else:
        assert has_kernels("amx"), LIBRARY.block_linear_amx_report()
