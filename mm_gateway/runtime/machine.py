"""What models are computed with on this machine, for `mm-gateway doctor`. Loads no model."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from mm_gateway.runtime.checkpoints.device_memory import total_memory
from mm_gateway.runtime.kernels.compiling import CompilationError, find_compiler
from mm_gateway.runtime.kernels.library import CHOICE, compiled_file, library

DRIVERS = (Path("/dev/nvidia0"), Path("/dev/kfd"))
"""Files that a GPU's driver makes, NVIDIA's and AMD's."""


@dataclass(frozen=True)
class CpuKernels:
    """Attributes:
    name: of those that compute; None: they are not compiled yet, were turned off, or cannot be loaded.
    compiler: that there is; None: none.
    turned_off: by MM_CPU_KERNELS=none.
    """

    name: str | None
    compiler: str | None
    turned_off: bool = False


@dataclass(frozen=True)
class Gpu:
    """device: such as `cuda:0`. free_bytes: as the driver says now."""

    device: str
    name: str
    total_bytes: int
    free_bytes: int


def cpu_kernels() -> CpuKernels:
    """The kernels of the CPU, without compiling them.

    Raises:
        ValueError: MM_CPU_KERNELS names some that this processor has not got.
    """
    try:
        compiler = find_compiler()
    except CompilationError:
        compiler = None
    if os.environ.get(CHOICE) == "none":
        return CpuKernels(None, compiler, turned_off=True)
    loaded = library() if compiled_file() is not None else None
    return CpuKernels(loaded.block_linear_name().decode() if loaded is not None else None, compiler)


def cpu_memory_bytes() -> int:
    """Of the machine, or of the container where that is less."""
    return total_memory("cpu")


def gpus() -> list[Gpu]:
    """Those that torch computes on; none where it was built without, or no driver answers."""
    if not torch.cuda.is_available():
        return []
    found: list[Gpu] = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        found.append(Gpu(f"cuda:{index}", torch.cuda.get_device_name(index), total, free))
    return found


def gpu_without_torch() -> bool:
    """Whether there is a GPU that torch cannot compute on."""
    return any(path.exists() for path in DRIVERS) and not torch.cuda.is_available()


def torch_build() -> str:
    """Such as `2.13.0+cpu`."""
    return torch.__version__
