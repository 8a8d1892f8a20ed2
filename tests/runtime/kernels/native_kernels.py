"""The native kernels beside the library: compiled parts of their sources, and which ones a processor has."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

from mm_gateway.runtime.kernels import compiling
from mm_gateway.runtime.kernels.library import library, use_kernels

NATIVE = Path(compiling.__file__).parent / "native"


def has_kernels(name: str) -> bool:
    """Whether the library is there and this processor has the kernels of this name."""
    loaded = library()
    try:
        if loaded is not None:
            use_kernels(loaded, name)
    except ValueError:
        return False
    if loaded is not None:
        use_kernels(loaded, "")
    return loaded is not None


def compiled_for_avx512(folder: Path, sources: dict[Path, str]) -> ctypes.CDLL:
    """The sources, each with its level of optimization, compiled into a library in `folder`."""
    command = [compiling.find_compiler(), *compiling._FLAGS, *compiling._AVX512, f"-I{NATIVE}"]
    running = [subprocess.Popen([*command, level, "-c", file, "-o", folder / f"{file.stem}.o"]) for file, level in sources.items()]
    assert [process.wait(timeout=300) for process in running] == [0] * len(running)
    subprocess.run([compiling.find_compiler(), "-shared", *folder.glob("*.o"), "-o", folder / "compiled.so"], check=True)
    return ctypes.CDLL(str(folder / "compiled.so"))
