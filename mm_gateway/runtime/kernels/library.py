"""The compiled library: the one that was installed, else one from the cache, else compiled on first use."""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import threading
from enum import IntEnum
from pathlib import Path

import torch

from mm_gateway.runtime.kernels.compiling import CompilationError, compile_library, library_name

logger = logging.getLogger(__name__)

# amx, avx512_vnni, avx_vnni, avx2 or portable instead of the best that the processor has; `none` does without the library.
CHOICE = "MM_CPU_KERNELS"


class Layer(ctypes.Structure):
    """`struct Layer` of native/block_linear.h."""

    _fields_ = (
        ("kind", ctypes.c_int64),
        ("outputs", ctypes.c_int64),
        ("inputs", ctypes.c_int64),
        ("quants", ctypes.c_void_p),
        ("more", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("minimums", ctypes.c_void_p),
        ("fine_scales", ctypes.c_void_p),
        ("fine_minimums", ctypes.c_void_p),
        ("row_scales", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
    )


class Kind(IntEnum):
    """`enum Kind` of native/block_linear.h: bits of a quant, F for fine scales; numbers."""

    Q8 = 0
    Q4 = 1
    Q5 = 2
    Q4F = 3
    Q5F = 4
    Q6F = 5
    FP16 = 6
    BF16 = 7
    FP32 = 8


# Several models can load at once, and only one of them is to compile.
_lock = threading.Lock()


def library() -> ctypes.CDLL | None:
    """The library, ready to be called; None where there is none, which is logged once with the reason.

    Functions of a CDLL release the GIL while they run.

    Raises:
        ValueError: CHOICE names kernels that this processor has not got.
    """
    with _lock:
        return _load()


@functools.cache
def _load() -> ctypes.CDLL | None:
    choice = os.environ.get(CHOICE, "")
    if choice == "none":
        return None
    try:
        loaded = ctypes.CDLL(str(_library_file()))
    except (CompilationError, OSError) as error:
        logger.warning(
            "no kernels for this CPU: %s. Models are slower without, and weights of fewer bits take 16. docs/install.md says more", error
        )
        return None
    loaded.block_linear.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int]
    loaded.block_linear.restype = None
    loaded.block_linear_rows.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int]
    loaded.block_linear_rows.restype = None
    loaded.block_linear_quantize.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, *[ctypes.c_void_p] * 3]
    loaded.block_linear_quantize.restype = None
    loaded.model_workspace.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64]
    loaded.model_workspace.restype = ctypes.c_int64
    loaded.model_run.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
    loaded.model_run.restype = None
    loaded.argmax_rows.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int]
    loaded.argmax_rows.restype = None
    loaded.block_linear_start.argtypes = [ctypes.c_void_p]
    loaded.block_linear_start.restype = None
    loaded.block_linear_use.argtypes = [ctypes.c_char_p]
    loaded.block_linear_name.restype = ctypes.c_char_p
    loaded.block_linear_amx_report.restype = ctypes.c_char_p
    loaded.block_linear_start(_gomp_parallel())
    use_kernels(loaded, choice)
    logger.info("models on the CPU are computed by the %s kernels", loaded.block_linear_name().decode())
    if report := loaded.block_linear_amx_report().decode():
        logger.info("amx kernels: %s", report)
    return loaded


def use_kernels(loaded: ctypes.CDLL, name: str) -> None:
    """Choose kernels by name, the best for an empty one; for all layers of the process.

    Raises:
        ValueError: this processor has not got them.
    """
    if not loaded.block_linear_use(name.encode()):
        report = loaded.block_linear_amx_report().decode()
        if name == "amx" and report:
            raise ValueError(f"{CHOICE}={name}: this processor's are not usable: {report}")
        raise ValueError(f"{CHOICE}={name}: this processor has no such kernels (amx, avx512_vnni, avx_vnni, avx2, portable or none)")


def compiled_file() -> Path | None:
    """The library that was compiled when the package was installed, or on an earlier use; None: it is compiled on the next one."""
    return next((path for folder in (Path(__file__).parent, _cache()) if (path := folder / library_name()).is_file()), None)


def _library_file() -> Path:
    return compiled_file() or compile_library(_cache())


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mm_gateway" / "kernels"


def _gomp_parallel() -> int | None:
    """The address of GOMP_parallel in the libgomp that torch computes with, so that both share one pool of threads."""
    try:
        torch_library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        return ctypes.cast(torch_library.GOMP_parallel, ctypes.c_void_p).value
    except (OSError, AttributeError):  # another system's torch, with another OpenMP: one thread
        return None
