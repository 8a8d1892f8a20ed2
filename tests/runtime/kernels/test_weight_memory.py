"""Weights in large pages: the same numbers, one region for several layers, and all given back."""

from __future__ import annotations

import gc
import mmap
from pathlib import Path

import pytest
import torch

from mm_gateway.runtime.kernels import weight_memory as module
from mm_gateway.runtime.kernels.block_linear import BlockLinear
from mm_gateway.runtime.kernels.blocks import quantize_4bit
from mm_gateway.runtime.kernels.library import library
from mm_gateway.runtime.kernels.weight_memory import PAGE_BYTES, REGION_BYTES, WeightMemory, in_weight_memory, weight_memory

pytestmark = pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="a system without large pages")


def _mapped_bytes() -> int:
    """Of this process's address space, for which large pages were asked."""
    size_kb = total_kb = 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "Size":
            size_kb = int(rest.split()[0])
        elif name == "VmFlags" and "hg" in rest.split():
            total_kb += size_kb
    return total_kb * 1024


def test_small_tensors_lie_one_after_the_other_at_lines_of_the_cache() -> None:
    memory = WeightMemory()
    first = memory.place(torch.arange(100, dtype=torch.int8).view(4, 25).T)
    second = memory.place(torch.randn(3, 5))
    assert first.tolist() == torch.arange(100).view(4, 25).T.tolist() and first.is_contiguous()
    assert first.data_ptr() % PAGE_BYTES == 0
    assert second.data_ptr() - first.data_ptr() == 128


def test_what_is_larger_than_a_region_has_one_of_its_own() -> None:
    memory = WeightMemory()
    large = torch.randint(0, 256, (REGION_BYTES + 3,), dtype=torch.uint8)
    placed = memory.place(large)
    assert torch.equal(placed, large) and placed.data_ptr() % PAGE_BYTES == 0


def test_a_region_goes_with_the_last_tensor_in_it() -> None:
    before = _mapped_bytes()
    memory = WeightMemory()
    kept = [memory.place(torch.ones(REGION_BYTES // 4, dtype=torch.uint8)) for _ in range(12)]
    del memory
    assert _mapped_bytes() == before + 3 * REGION_BYTES
    last = kept.pop()
    kept.clear()
    gc.collect()
    assert _mapped_bytes() == before + REGION_BYTES and bool(last.all())
    del last
    gc.collect()
    assert _mapped_bytes() == before


@pytest.mark.skipif(library() is None, reason="no compiled kernels")
@pytest.mark.parametrize("held", [torch.Tensor.half, torch.Tensor.float, quantize_4bit])
def test_layers_compute_the_same_there(held) -> None:
    weight, x = torch.randn(100, 96), torch.randn(5, 96)
    ordinary = BlockLinear(held(weight), None)
    with weight_memory():
        layer = BlockLinear(held(weight), None)
    assert torch.equal(layer(x), ordinary(x)) and layer.nbytes == ordinary.nbytes
    assert torch.equal(layer.rows(torch.tensor([3, 99])), ordinary.rows(torch.tensor([3, 99])))


def test_a_system_that_gives_none_leaves_tensors_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = torch.randn(7)
    assert in_weight_memory(tensor) is tensor
    monkeypatch.setattr(module, "_region", lambda size, advice: None)
    with weight_memory():
        assert in_weight_memory(tensor) is tensor
    monkeypatch.setattr(module, "_ADVICE", None)
    with weight_memory():
        assert in_weight_memory(tensor) is tensor
